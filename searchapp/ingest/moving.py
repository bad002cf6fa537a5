"""Copying a collection from a server that speaks the ZeroEntropy contract: text by text, so that a
copy which breaks off goes on where it stopped."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from searchapp.models import Collection, Document

from .adding import PagedText, add_text
from .zeroentropy import Content, Listed, Source, SourceFailed

# Texts asked for at once; one more waits for each.
READERS = 8
MAX_PATH = 1024
MAX_TOLD = 100

# What became of a document.
COPIED, REPLACED, KEPT, UNREAD, FAILED = "copied", "replaced", "kept", "unread", "failed"
# What the contract calls a document whose text is known.
_READ = {"not_indexed", "indexing", "indexed", "indexing_failed"}
# An answer about one document, not about the server.
_OF_ONE = {400, 404, 422}


@dataclass
class Copy:
    """`counts` by outcome; `told`: (path, why) of the first that were not copied."""

    counts: Counter[str] = field(default_factory=Counter)
    told: list[tuple[str, str]] = field(default_factory=list)

    def note(self, outcome: str, path: str, why: str = "") -> None:
        self.counts[outcome] += 1
        if why and len(self.told) < MAX_TOLD:
            self.told.append((path, why))

    @property
    def seen(self) -> int:
        return self.counts.total()


def copy(
    source: Source,
    name: str,
    target: Collection,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Copy], None] = lambda made: None,
) -> Copy:
    """Copies texts, pages and metadata of the source's collection `name`.

    A path that is taken is kept as it is, without asking for its text, unless `overwrite`. Raises
    SourceFailed when the source does; what is copied by then stays.
    """
    made = Copy()
    with ThreadPoolExecutor(READERS, thread_name_prefix="moving") as readers:
        under_way: deque[tuple[Listed, Future[Content]]] = deque()
        try:
            for document in _wanted(source, name, target, overwrite, made):
                under_way.append((document, readers.submit(source.content, name, document)))
                if len(under_way) >= 2 * READERS:
                    _write(target, *under_way.popleft(), overwrite, made)
                on_progress(made)
            while under_way:
                _write(target, *under_way.popleft(), overwrite, made)
                on_progress(made)
        finally:
            for _, future in under_way:
                future.cancel()
    on_progress(made)
    return made


def _wanted(
    source: Source, name: str, target: Collection, overwrite: bool, made: Copy
) -> Iterator[Listed]:
    for rows in source.documents(name):
        taken: set[str] = set()
        if not overwrite:
            there = Document.objects.filter(collection=target, path__in=[row.path for row in rows])
            taken = set(there.values_list("path", flat=True))
        for row in rows:
            if row.path in taken:
                made.note(KEPT, row.path)
            elif row.index_status not in _READ:
                made.note(UNREAD, row.path, f"not read there: {row.index_status}")
            elif why := _unfit(row):
                made.note(FAILED, row.path, why)
            else:
                yield row


def _unfit(row: Listed) -> str:
    if not row.path or len(row.path) > MAX_PATH or "\0" in row.path:
        return f"its path must have 1 to {MAX_PATH} characters, and no null character"
    if not all(_is_value(each) for each in row.metadata.values()):
        return "its metadata holds something besides texts and lists of texts"
    return ""


def _is_value(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(each, str) and "\0" not in each for each in texts)


def _write(
    target: Collection, document: Listed, asked: Future[Content], overwrite: bool, made: Copy
) -> None:
    try:
        content = asked.result()
    except SourceFailed as error:
        if error.status not in _OF_ONE:
            raise
        made.note(FAILED, document.path, str(error))
        return
    text = PagedText(content.text, content.pages)
    outcome = add_text(target, document.path, text, document.metadata, overwrite=overwrite)
    made.note({"added": COPIED, "replaced": REPLACED}.get(outcome, KEPT), document.path)
