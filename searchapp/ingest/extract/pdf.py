"""PDF by pdfium: text page by page, the outline as headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .encodings import clean
from .records import ExtractedDocument, ExtractionNote, Heading, Item, Source, Unreadable

# pdfium marks a hyphen it believes to be typesetting with U+FFFE or U+0002 at the line's end.
_SOFT_HYPHEN = re.compile("[\ufffe\u0002\u00ad]\\s*\\n?")
_ENCRYPTED = "This PDF is protected by a password. Remove the protection and upload it again."


def read_pdf(source: Source) -> Iterator[Item]:
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(source.path)
    except pypdfium2.PdfiumError as error:
        raise _unopened(source, str(error)) from error
    try:
        yield from _read(source, pdf)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"This PDF is damaged: {error}") from error
    finally:
        pdf.close()


def _unopened(source: Source, error: str) -> Unreadable:
    if "password" in error.lower() or _is_encrypted(source):
        return Unreadable(_ENCRYPTED)
    return Unreadable("This PDF is damaged and cannot be opened.")


def _is_encrypted(source: Source) -> bool:
    from pypdf import PdfReader

    try:
        return PdfReader(source.path).is_encrypted
    except Exception:  # pypdf raises many kinds on damaged files; then it is simply damaged
        return False


def _read(source: Source, pdf: Any) -> Iterator[Item]:
    parts: list[str] = []
    starts: list[int] = []
    blank = length = 0
    for number in range(len(pdf)):
        text = _page_text(pdf, number)
        starts.append(length)
        blank += not text.strip()
        text = text.rstrip() + "\n\n"
        length += len(text)
        if length > source.limits.text_characters:
            raise Unreadable(
                f"The text is longer than {source.limits.text_characters:,} characters. "
                "Split it into several files."
            )
        parts.append(text)
    if not starts:
        raise Unreadable("This PDF has no pages.")
    if blank == len(starts):
        raise Unreadable(_without_text(pdf))
    if blank:
        yield ExtractionNote(f"{blank} of {len(starts)} pages hold no text (perhaps images only).")
    text = "".join(parts)
    facts = _facts(pdf)
    yield ExtractedDocument(
        path=source.name,
        text=text,
        title=facts.pop("title", "") or source.stem,
        metadata=facts,
        media_type="application/pdf",
        page_starts=tuple(starts),
        headings=_outline(pdf, text, starts),
        size_bytes=source.path.stat().st_size,
    )


def _page_text(pdf: Any, number: int) -> str:
    page = pdf[number]
    try:
        textpage = page.get_textpage()
        try:
            text = str(textpage.get_text_range())
        finally:
            textpage.close()
    finally:
        page.close()
    return clean(_SOFT_HYPHEN.sub("", text.replace("\r\n", "\n")))


def _without_text(pdf: Any) -> str:
    for number in range(min(len(pdf), 5)):
        if any(True for _ in pdf[number].get_objects(filter=[3], max_depth=3)):  # 3: image
            return (
                "This PDF holds only images of pages (a scan) and no text. "
                "Run text recognition (OCR) on it and upload the result."
            )
    return "This PDF holds no text."


def _facts(pdf: Any) -> dict[str, Any]:
    raw = pdf.get_metadata_dict(skip_empty=True)
    facts = {"title": raw.get("Title", ""), "author": raw.get("Author", "")}
    subject = raw.get("Subject", "")
    if subject:
        facts["subject"] = subject[:500]
    return {key: " ".join(clean(value).split())[:500] for key, value in facts.items() if value}


def _outline(pdf: Any, text: str, starts: list[int]) -> tuple[Heading, ...]:
    """Bookmarks as headings, placed where their words stand on the page, else at its start."""
    found: list[Heading] = []
    for entry in pdf.get_toc(max_depth=6):
        title = " ".join(clean(entry.get_title() or "").split())
        destination = entry.get_dest()
        page = destination.get_index() if destination else None
        if not title or page is None or not 0 <= page < len(starts):
            continue
        end = starts[page + 1] if page + 1 < len(starts) else len(text)
        at = text.find(title, starts[page], end)
        found.append(Heading(at if at >= 0 else starts[page], entry.level + 1, title[:500]))
    return tuple(sorted(found, key=lambda heading: (heading.offset, heading.level)))
