"""Many callers of one collection at once: nothing is lost, and nobody sees half of a document."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zeroentropy
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections, transaction
from zeroentropy import ZeroEntropy

from searchapp.api import searching
from searchapp.ingest import adding, control
from searchapp.ingest.embedding import embed_pending
from searchapp.models import Collection, Document, DocumentText, Passage, PendingVector
from searchapp.search import erasing, segments
from searchapp.search.checking import check_index
from tests.locks import until_somebody_waits

from .vectors import hashed

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

CALLERS = 8


@pytest.fixture
def client(olive: User, media: Path, client_of: Callable[..., ZeroEntropy]) -> ZeroEntropy:
    client = client_of(olive)
    client.collections.add(collection_name="birds")
    return client


def add(client: ZeroEntropy, path: str, text: str, *, overwrite: bool = False) -> int:
    content: Any = {"type": "text", "text": text}
    raw = client.documents.with_raw_response.add(
        collection_name="birds", path=path, content=content, overwrite=overwrite
    )
    return raw.status_code


def test_one_path_is_added_once_however_many_add_it(client: ZeroEntropy) -> None:
    def attempt(number: int) -> int:
        try:
            return add(client, "heron", f"A heron, says {number}.")
        except zeroentropy.ConflictError:
            return 409

    with ThreadPoolExecutor(CALLERS) as pool:
        statuses = sorted(pool.map(attempt, range(CALLERS)))
    assert statuses == [201, *[409] * (CALLERS - 1)]
    with ThreadPoolExecutor(CALLERS) as pool:
        again = pool.map(lambda n: add(client, "owl", f"Owl {n}.", overwrite=True), range(CALLERS))
    assert sorted(again) == [*[200] * (CALLERS - 1), 201]
    assert Document.objects.count() == Passage.objects.count() == 2


def test_a_search_never_sees_half_of_an_overwritten_document(client: ZeroEntropy) -> None:
    """Each version holds its own word in every passage; a search must never find two of them, nor
    none, nor a part."""
    versions = ["alder", "birch"]
    # Longer than one passage, so that halves could be seen.
    texts = {word: " ".join([f"heron {word} stands still."] * 300) for word in versions}
    add(client, "tree", texts["alder"])
    count = Passage.objects.count()
    assert count > 3
    ended = threading.Event()
    odd: list[Any] = []

    def look() -> int:
        looks = 0
        while not ended.is_set():
            found = client.queries.top_snippets(
                collection_name="birds", query="heron", k=128, precise_responses=True
            ).results
            words = {word for word in versions for each in found if word in each.content}
            if len(words) != 1 or len(found) < 4:
                odd.append((words, len(found)))
            looks += 1
        return looks

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        for turn in range(24):
            assert add(client, "tree", texts[versions[turn % 2]], overwrite=True) == 200
        ended.set()
        assert sum(each.result() for each in looking) > 0
    assert odd == []


def test_a_search_finds_what_is_overwritten_between_all_of_its_steps(
    client: ZeroEntropy, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(range(100))
    scored = searching._scored
    add(client, "tree", "A heron in the birch.")

    def meanwhile(*args: Any) -> Any:
        add(client, "tree", f"A heron in birch number {next(turns)}.", overwrite=True)
        return scored(*args)

    monkeypatch.setattr(searching, "_scored", meanwhile)
    found = client.queries.top_snippets(collection_name="birds", query="heron", k=3).results
    assert [each.path for each in found] == ["tree"]
    assert "A heron in" in found[0].content


@pytest.mark.parametrize("by_whom", ["a program", "a worker"])
def test_a_document_that_is_being_replaced_is_there_to_change_and_delete(
    client: ZeroEntropy, by_whom: str
) -> None:
    add(client, "tree", "birch")
    collection = Collection.objects.get(slug="birds")

    def replace() -> None:
        if by_whom == "a program":
            adding.add_text(collection, "tree", adding.PagedText("alder"), {}, overwrite=True)
        else:
            old = Document.objects.filter(collection=collection, path="tree")
            erasing.delete_documents(collection, list(old.values_list("pk", flat=True)))
            Document.objects.create(collection=collection, path="tree", status="ready")

    def update() -> int:
        try:
            client.documents.update(collection_name="birds", path="tree", metadata={"kind": "tree"})
        except zeroentropy.APIStatusError as error:
            return error.status_code
        return 200

    # A text has to be indexed anew before its metadata can change, as the contract has it.
    expected = 400 if by_whom == "a program" else 200
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            replace()
            updating = pool.submit(update)
            until_somebody_waits()
        assert updating.result() == expected
        with transaction.atomic():
            replace()
            deleting = pool.submit(client.documents.delete, collection_name="birds", path="tree")
            until_somebody_waits()
        assert deleting.result().deleted_paths == ["tree"]
    assert not Document.objects.filter(path="tree").exists()


def test_a_reader_never_sees_half_of_an_overwritten_document(client: ZeroEntropy) -> None:
    """The metadata and the text are of one version, and so is a page."""
    ended = threading.Event()

    def put(word: str) -> None:
        content: Any = {"type": "text-pages", "pages": [f"The {word} of page one.", word]}
        client.documents.add(
            collection_name="birds", path="tree", content=content, metadata={"word": word},
            overwrite=True,
        )  # fmt: skip

    def look() -> list[str]:
        odd = []
        while not ended.is_set():
            asked: Any = {"collection_name": "birds", "path": "tree", "include_content": True}
            seen = client.documents.get_info(**asked).document
            if f"The {seen.metadata['word']} of" not in (seen.content or ""):
                odd.append(f"{seen.metadata} {seen.content!r}")
            page = client.documents.get_page_info(**asked, page_index=1).page
            if page.content not in {"alder", "birch"}:
                odd.append(f"page {page.content!r}")
        return odd

    put("alder")
    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(look) for _ in range(4)]
        try:
            for turn in range(40):
                put(["birch", "alder"][turn % 2])
        finally:
            ended.set()
        assert [each.result() for each in looking] == [[]] * 4


def test_adding_searching_replacing_and_deleting_at_once(client: ZeroEntropy) -> None:
    turns = 14
    ended = threading.Event()
    failures: list[str] = []
    alive: set[str] = set()

    def work(number: int) -> None:
        """Each caller knows which of its own paths must be there."""
        own: set[str] = set()
        for turn in range(turns):
            path = f"{number}/{turn % 6}"
            try:
                if turn % 5 == 4 and path in own:
                    client.documents.delete(collection_name="birds", path=path)
                    own.discard(path)
                else:
                    add(client, path, f"heron number {turn} of {number}", overwrite=True)
                    own.add(path)
                if turn % 3 == 0:
                    client.queries.top_documents(collection_name="birds", query="heron", k=20)
            except zeroentropy.APIError as error:
                failures.append(f"{path}: {error}")
        alive.update(own)

    def tend() -> None:
        while not ended.wait(0.05):
            embed_pending(hashed)
            segments.merge_all_segments()
            control.sweep()
        connections.close_all()

    with ThreadPoolExecutor(CALLERS + 1) as pool:
        tending = pool.submit(tend)
        list(pool.map(work, range(CALLERS)))
        ended.set()
        tending.result()
    assert failures == []
    listed = {each.path for each in client.documents.get_info_list(collection_name="birds")}
    assert listed == alive
    embed_pending(hashed)
    control.sweep()
    status = client.status.get_status(collection_name="birds")
    assert status.num_indexed_documents == len(alive)
    assert not PendingVector.objects.exists()
    assert DocumentText.objects.count() == Document.objects.count() == len(alive)
    collection = Document.objects.select_related("collection")[0].collection
    assert not check_index(collection, 20, random.Random(5)).problems
