"""A small collection with judged queries, and a tiny base to train: for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from searchapp.models import Collection, Judgment
from searchapp.models.judgments import Source, query_key
from searchapp.training.asked import Asked
from tests.shelves import add_document, make_collection

KINDS = ["heron", "otter", "perch", "alder", "sedge"]
PLACES = ["pond", "river", "marsh", "lake", "ditch", "brook", "spring", "delta"]


def make_judged(slug: str = "wetland", *, user: Any = None, **fields: Any) -> Collection:
    """40 documents, one for each kind of being at each place, and as many queries with judgments of
    five documents each: the one that has both is relevant."""
    collection = make_collection(slug, user=user, **fields)
    for kind in KINDS:
        for place in PLACES:
            text = f"The {kind} lives at the {place}. Seen at the {place} in spring."
            add_document(collection, f"{kind} {place}", [text])
    judge_all(collection)
    return collection


def judge_all(collection: Collection, kinds: list[str] = KINDS) -> None:
    rows = []
    for kind in kinds:
        for place in PLACES:
            query = f"{kind} of the {place}"
            paths = {f"{kind} {place}.txt": 3, f"{kind} {_next(PLACES, place)}.txt": 0}
            paths |= {f"{each} {place}.txt": 0 for each in KINDS if each != kind}
            rows += [
                Judgment(
                    collection=collection,
                    query=query,
                    query_key=query_key(query),
                    path=path,
                    grade=grade,
                    source=Source.IMPORT,
                )
                for path, grade in paths.items()
            ]
    Judgment.objects.bulk_create(rows)


def tiny(base: Path, **changes: Any) -> Asked:
    """A training of a few steps on the tiny model in `base`."""
    return Asked(**{"base": str(base), "epochs": 1, "rate": 1e-4, **changes})


def _next(names: list[str], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]
