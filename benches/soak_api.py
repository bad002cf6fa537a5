"""Many callers of one collection for a minute: `make soak-api` or `python -m benches.soak_api`.

A whole Podium of its own, as `make up` starts it but with a reranker that costs nothing, and
clients that add, replace, read, search, change and delete documents of one collection at the same
time. Each client has paths of its own and knows what must be there; all look for each other's
documents. Held against that: no answer of 500 or above, no lost document, what is `indexed` is
found, and nobody ever sees parts of two versions.
Prints counts, latencies and what was found wrong; ends with 1 where something was.
"""

from __future__ import annotations

import argparse
import http.client
import random
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benches.api import NO_LIMITS, Client
from benches.stack import Stack

COLLECTION = "birds"
PATHS = 4
# So many that a version is several passages, and halves could be seen.
SENTENCES = 60
PATIENCE_SECONDS = 300.0
VERSION = re.compile(r"heron (v\d+x\d+x\d+) stands")


def text_of(version: str) -> str:
    """Every sentence says of which version it is."""
    return " ".join([f"A heron {version} stands still in the reeds."] * SENTENCES)


@dataclass
class Ledger:
    """What all clients together saw; for any number of threads."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    checks: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def called(self, name: str, status: int, seconds: float, answer: str = "") -> None:
        with self.lock:
            self.statuses[name, status] += 1
            self.seconds[name].append(seconds)
            if status >= 500 or status == 0:
                self.wrong.append(f"{name} answered {status}: {answer}")

    def check(self, name: str, is_right: bool, what: str) -> None:
        with self.lock:
            self.checks[name] += 1
            if not is_right:
                self.wrong.append(f"{name}: {what}")


class Caller:
    """One client with its own paths. `known`: path -> the version that was added last."""

    def __init__(self, number: int, port: int, key: str, ledger: Ledger, others: int) -> None:
        self.number, self._others = number, others
        self.known: dict[str, str] = {}
        self._random = random.Random(number)
        self._client = Client(port, key)
        self._new_client = lambda: Client(port, key)
        self._ledger = ledger
        self._turn = 0

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self._turn += 1
            path = f"{self.number}/{self._random.randrange(PATHS)}"
            pick = self._random.random()
            if pick < 0.40:
                self.add(path)
            elif pick < 0.50:
                self.delete(path)
            elif pick < 0.60:
                self.update(path)
            elif pick < 0.75:
                self.read(f"{self._random.randrange(self._others)}/{self._random.randrange(PATHS)}")
            else:
                self.search()

    def call(self, name: str, endpoint: str, **body: Any) -> tuple[int, Any]:
        began = time.monotonic()
        try:
            status, answer = self._client.post(
                f"/v1/{endpoint}", {"collection_name": COLLECTION, **body}
            )
        except (OSError, http.client.HTTPException) as error:
            self._client = self._new_client()
            status, answer = 0, {"error": repr(error)}
        self._ledger.called(name, status, time.monotonic() - began, str(answer)[:200])
        return status, answer

    def add(self, path: str) -> None:
        version = f"v{self.number}x{path.partition('/')[2]}x{self._turn}"
        content = {"type": "text", "text": text_of(version)}
        name, expected = ("replace", 200) if path in self.known else ("add", 201)
        status, answer = self.call(
            name, "documents/add-document", path=path, content=content,
            metadata={"version": version}, overwrite=name == "replace",
        )  # fmt: skip
        self._ledger.check(
            "adding is told rightly", status == expected, f"{path} {status} {answer}"
        )
        self.known[path] = version
        if self._random.random() < 0.3:
            self.find("what was added is found at once", path, version)

    def find(self, check: str, path: str, version: str) -> None:
        _, answer = self.call(
            "find", "queries/top-documents", query=f"heron {version}", k=1,
            filter={"version": {"$eq": version}},
        )  # fmt: skip
        found = [each["path"] for each in answer.get("results", [])]
        self._ledger.check(check, found == [path], f"{path} {version} {found}")

    def delete(self, path: str) -> None:
        expected = 200 if path in self.known else 404
        status, _ = self.call("delete", "documents/delete-document", path=path)
        self._ledger.check("deleting is told rightly", status == expected, f"{path} {status}")
        self.known.pop(path, None)

    def update(self, path: str) -> None:
        """400 while the document is not indexed yet, as the contract has it."""
        if path in self.known:
            metadata = {"version": self.known[path], "updated": "yes"}
            status, _ = self.call(
                "update", "documents/update-document", path=path, metadata=metadata
            )
            self._ledger.check("updating is told rightly", status in {200, 400}, f"{path} {status}")

    def read(self, path: str) -> None:
        """Anybody's document is whole: one version in its text and its metadata."""
        status, answer = self.call(
            "read", "documents/get-document-info", path=path, include_content=True
        )
        if status == 200:
            document = answer["document"]
            wanted = text_of(document["metadata"]["version"])
            is_whole = document["content"] == wanted
            self._ledger.check(
                "a read document is whole", is_whole, f"{path} {document['metadata']}"
            )

    def search(self) -> None:
        """All of a collection's passages that were found for a path are of one version."""
        reranker = "default" if self._random.random() < 0.5 else None
        status, answer = self.call(
            "search", "queries/top-snippets", query="heron stands", k=128, reranker=reranker
        )
        if status == 200:
            versions: dict[str, set[str]] = defaultdict(set)
            for each in answer["results"]:
                versions[each["path"]] |= set(VERSION.findall(each["content"]))
            mixed = {path: found for path, found in versions.items() if len(found) > 1}
            self._ledger.check("a search sees one version of each", not mixed, f"{mixed}")

    def read_back(self) -> None:
        """Once indexed, each of the own documents is there, whole, and found; no other is."""
        # It may have waited for the others longer than the server keeps a connection.
        self._client = self._new_client()
        for number in range(PATHS):
            path = f"{self.number}/{number}"
            version = self.known.get(path)
            if version is None:
                status, _ = self.call("read", "documents/get-document-info", path=path)
                self._ledger.check("what was deleted is gone", status == 404, f"{path} {status}")
                continue
            status, answer = self.call(
                "read", "documents/get-document-info", path=path, include_content=True
            )
            document = answer["document"] if status == 200 else {}
            self._ledger.check(
                "no document is lost",
                document.get("content") == text_of(version),
                f"{path} should be {version}: {status}",
            )
            is_indexed = document.get("index_status") == "indexed"
            self._ledger.check("all is indexed in the end", is_indexed, f"{path} {version}")
            self.find("what is indexed is found", path, version)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with Stack(NO_LIMITS, null_reranker=True) as stack:
        ledger = soak(stack.port, stack.api_key(), options.clients, options.seconds)
    sys.stdout.write(report(ledger, options.clients, options.seconds))
    sys.exit(1 if ledger.wrong else 0)


def soak(port: int, key: str, clients: int, seconds: float) -> Ledger:
    """Runs the clients, and then lets each read back what it knows."""
    ledger = Ledger()
    status, _ = Client(port, key).post(
        "/v1/collections/add-collection", {"collection_name": COLLECTION}
    )
    ledger.called("new collection", status, 0.0)
    callers = [Caller(number, port, key, ledger, clients) for number in range(clients)]
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda caller: caller.run(until), callers))
        status = settled(port, key)
        list(pool.map(Caller.read_back, callers))
    wanted = sum(len(caller.known) for caller in callers)
    counted = (status["num_documents"], status["num_indexed_documents"])
    ledger.check("the collection counts the same", counted == (wanted, wanted), f"{status}")
    return ledger


def settled(port: int, key: str) -> dict[str, Any]:
    """The collection's status once all of it is indexed, or after PATIENCE_SECONDS."""
    client = Client(port, key)
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        _, status = client.post("/v1/status/get-status", {"collection_name": COLLECTION})
        all_indexed = status["num_documents"] == status["num_indexed_documents"]
        if all_indexed or time.monotonic() > end:
            return dict(status)
        time.sleep(0.5)


def report(ledger: Ledger, clients: int, seconds: float) -> str:
    total = sum(ledger.statuses.values())
    lines = [
        f"{clients} clients, {seconds:.0f} s, then reading back: {total:,} calls",
        "",
        f"{'call':<16}{'count':>8}  {'p50 ms':>8}{'p95 ms':>8}{'max ms':>8}  statuses",
    ]
    for name, took in sorted(ledger.seconds.items()):
        marks = [1000 * float(each) for each in (*np.percentile(took, (50, 95)), max(took))]
        told = ", ".join(
            f"{status}: {count:,}"
            for (call, status), count in sorted(ledger.statuses.items())
            if call == name
        )
        shown = "".join(f"{mark:>8.0f}" for mark in marks)
        lines.append(f"{name:<16}{len(took):>8,}  {shown}  {told}")
    lines.append("")
    wrong = Counter(each.partition(":")[0] for each in ledger.wrong)
    for name, count in sorted(ledger.checks.items()):
        lines.append(f"{name:<36}{count:>8,} checked, {wrong.get(name, 0):,} wrong")
    failed = sum(
        count for (_, status), count in ledger.statuses.items() if status >= 500 or not status
    )
    lines.append(f"{'answers of 500 and above, or none':<36}{failed:>8,}")
    lines += ["", *ledger.wrong[:20], "Wrong." if ledger.wrong else "All right."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
