"""What comes out of a file, and the line protocol between the reading child and its parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# str or list[str] per key, the shape Document.metadata keeps
Metadata = dict[str, Any]


@dataclass(frozen=True)
class Heading:
    """A heading line of the text: where it starts, its level from 1 (outermost), its words."""

    offset: int
    level: int
    title: str


@dataclass(frozen=True)
class ExtractedDocument:
    """One readable text. Offsets are in characters of `text`.

    `path` is unique within the file: the file's own name, or name#row for rows of a table.
    `page_starts` holds the offset of each page; empty when the format has no pages.
    """

    path: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    media_type: str = "text/plain"
    page_starts: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True)
class ExtractedMember:
    """A file unpacked from an archive, waiting at `scratch` for whoever asked."""

    name: str
    scratch: str
    size_bytes: int


@dataclass(frozen=True)
class RefusedMember:
    """A member of an archive that was not unpacked, and why."""

    name: str
    message: str


@dataclass(frozen=True)
class ExtractionNote:
    """Something the uploader should know though the file was read."""

    message: str


@dataclass(frozen=True)
class ExtractionFailure:
    """Why the file was not read. `retryable`: the same bytes may well work another time."""

    message: str
    retryable: bool = False


Item = ExtractedDocument | ExtractedMember | RefusedMember | ExtractionNote | ExtractionFailure

_KINDS: dict[str, type[Any]] = {
    "document": ExtractedDocument,
    "member": ExtractedMember,
    "refused": RefusedMember,
    "note": ExtractionNote,
    "failure": ExtractionFailure,
}
_NAMES = {record: name for name, record in _KINDS.items()}


def as_json(item: Item) -> dict[str, Any]:
    return {"kind": _NAMES[type(item)], **asdict(item)}


def from_json(data: Mapping[str, Any]) -> Item:
    """The inverse of `as_json`; raises KeyError for an unknown kind."""
    fields = {key: value for key, value in data.items() if key != "kind"}
    if data["kind"] == "document":
        fields["page_starts"] = tuple(fields["page_starts"])
        fields["headings"] = tuple(Heading(**heading) for heading in fields["headings"])
    item: Item = _KINDS[data["kind"]](**fields)
    return item


class Unreadable(Exception):
    """Raised by a reader; becomes an ExtractionFailure at the edge of the child."""

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True)
class Limits:
    """Bounds of one file. `expanded_bytes` and `members` are what is left for the whole archive."""

    upload_bytes: int = 200 * 1024 * 1024
    expanded_bytes: int = 1000 * 1024 * 1024
    members: int = 20_000
    memory_bytes: int = 1500 * 1024 * 1024
    seconds: float = 300.0
    text_characters: int = 100_000_000


@dataclass(frozen=True)
class Source:
    """The file to read: `name` as the user knows it; `depth` 0 for an upload, 1 for a member."""

    path: Path
    name: str
    limits: Limits = Limits()
    scratch: Path | None = None
    depth: int = 0

    @property
    def extension(self) -> str:
        """Lower case with its dot; "" when there is none. `.tar.gz` counts as one."""
        lower = self.name.rsplit("/", 1)[-1].lower()
        if lower.endswith(".tar.gz"):
            return ".tar.gz"
        return Path(lower).suffix

    @property
    def stem(self) -> str:
        """The last part of the name without extension, for a title where the file has none."""
        last = self.name.rsplit("/", 1)[-1]
        ext = self.extension
        return last[: -len(ext)] if ext and len(last) > len(ext) else last


def megabytes(size: int) -> str:
    """`size` bytes as people say it: "200 MB", "12 kB"."""
    if size < 1024 * 1024:
        return f"{max(1, size // 1024)} kB"
    return f"{size // (1024 * 1024):,} MB"
