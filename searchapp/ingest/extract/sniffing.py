"""What a file really is, whatever its name says."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from pathlib import Path

from .encodings import detect
from .records import Source, Unreadable

# kind -> (what people call it, extensions)
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pdf": ("a PDF", (".pdf",)),
    "docx": ("a Word document", (".docx",)),
    "pptx": ("a PowerPoint presentation", (".pptx",)),
    "xlsx": ("an Excel spreadsheet", (".xlsx",)),
    "html": ("an HTML page", (".html", ".htm", ".xhtml")),
    "markdown": ("a Markdown text", (".md", ".markdown")),
    "plain": ("a plain text", (".txt", ".text", ".rst", ".log")),
    "delimited": ("a table", (".csv", ".tsv")),
    "json": ("a JSON file", (".json",)),
    "jsonl": ("a JSON lines file", (".jsonl", ".ndjson")),
    "zip": ("a zip archive", (".zip",)),
    "tar": ("a tar archive", (".tar", ".tgz", ".tar.gz")),
    "gzip": ("a gzip file", (".gz",)),
}
TEXT_KINDS = {"html", "markdown", "plain", "delimited", "json", "jsonl"}
ARCHIVE_KINDS = {"zip", "tar", "gzip"}
SUPPORTED = (
    "PDF, Word, PowerPoint, Excel, HTML, Markdown, text, CSV, JSON and zip or tar.gz of these"
)
_BY_EXTENSION = {ext: kind for kind, (_, exts) in KINDS.items() for ext in exts}
_HEAD = 8192
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")


def sniff(source: Source) -> tuple[str, str]:
    """(kind, note): the note is a sentence when the name says something else.

    Raises Unreadable for an empty file, an unsupported type, and content that fits no type.
    """
    with source.path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise Unreadable("The file is empty.")
    named = _BY_EXTENSION.get(source.extension, "")
    kind = _binary_kind(source, head) or _text_kind(source, named)
    if not named or kind == named or {kind, named} == {"plain", "markdown"}:
        return kind, ""
    # A table in a .txt or a page in a .md is the uploader's business; only real surprises are said.
    return kind, (
        f"The name ends in {source.extension}, but this is {KINDS[kind][0]}; "
        "it was read as what it is."
    )


def _binary_kind(source: Source, head: bytes) -> str:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zip_kind(source)
    if head.startswith(b"\x1f\x8b"):
        return "tar" if _is_tar(_gunzip_head(source.path)) else "gzip"
    if _is_tar(head):
        return "tar"
    if head.startswith(_OLE):
        raise Unreadable(_old_office(source))
    # Some PDFs begin with rubbish; an archive may begin with a PDF that is stored as it is.
    return "pdf" if b"%PDF-" in head[:1024] else ""


def _zip_kind(source: Source) -> str:
    try:
        with zipfile.ZipFile(source.path) as archive:
            names = set(archive.namelist())
            declared = archive.read("mimetype")[:100] if "mimetype" in names else b""
    except Exception:  # a damaged directory: its reader says so in the words of its kind
        named = _BY_EXTENSION.get(source.extension, "")
        return named if named in {"docx", "pptx", "xlsx"} else "zip"
    if b"opendocument" in declared or b"epub" in declared:
        kind = "an e-book (EPUB)" if b"epub" in declared else "an OpenDocument file"
        raise Unreadable(f"This is {kind}, which Podium does not read. It reads {SUPPORTED}.")
    if "[Content_Types].xml" in names:
        for folder, kind in [("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")]:
            if any(name.startswith(folder) for name in names):
                return kind
    return "zip"


def _gunzip_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read(512)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _old_office(source: Source) -> str:
    if _ENCRYPTED_PACKAGE in source.path.read_bytes()[: 8 * 1024 * 1024]:
        return "This Office file is protected by a password. Remove it and upload the file again."
    return (
        "This is a file of Office before 2007 (.doc, .xls, .ppt). "
        "Save it as .docx, .xlsx or .pptx and upload it again."
    )


def _text_kind(source: Source, named: str) -> str:
    try:
        encoding, _ = detect(source.path)
        with source.path.open("rb") as file:
            sample = file.read(_HEAD).decode(encoding, errors="replace")
    except Unreadable as error:
        raise Unreadable(_unsupported(source, named)) from error
    if _unprintable(sample) > 0.05:
        raise Unreadable(_unsupported(source, named))
    magic = _magic_name(source.path)
    if magic and named not in TEXT_KINDS:
        raise Unreadable(_unsupported(source, named))
    if _HTML.match(sample):
        return "html"
    if named in TEXT_KINDS:
        return named
    return "plain"


def _unprintable(sample: str) -> float:
    odd = sum(1 for ch in sample if (ch < " " and ch not in "\t\n\r\x0c") or ch == "�")
    return odd / max(1, len(sample))


def _unsupported(source: Source, named: str) -> str:
    magic = _magic_name(source.path)
    if named in TEXT_KINDS:
        return f"The name ends in {source.extension}, but the content is {magic or 'no text'}."
    if named:
        what = magic or f"no {KINDS[named][0].split(' ', 1)[1]}"
        return f"The name ends in {source.extension}, but the content is {what}."
    what = magic or (f"a {source.extension} file" if source.extension else "no text")
    return f"This is {what}, which Podium does not read. It reads {SUPPORTED}."


def _magic_name(path: Path) -> str:
    """ "a PNG image" and the like when puremagic is sure of something that is not text, else ""."""
    import puremagic

    try:
        matches = puremagic.magic_file(str(path))
    except (puremagic.PureError, ValueError, OSError):
        return ""
    for match in matches:
        media_type = match.mime_type or ""
        if match.confidence >= 0.8 and media_type.split("/")[0] in {"image", "audio", "video"}:
            label = match.extension.lstrip(".").upper() or media_type
            kind = media_type.split("/")[0]
            article = "an" if label[:1] in "AEFHILMNORSX" else "a"
            return f"{article} {label} {kind}" + (" file" if kind != "image" else "")
    return ""
