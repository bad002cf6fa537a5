"""HTML pages: the text people read, with headings, lists, tables and code kept readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .building import TextBuilder, one_line
from .encodings import decode_html
from .records import ExtractedDocument, ExtractionNote, Item, Source, Unreadable

_DROPPED = {
    "script", "style", "noscript", "template", "svg", "iframe", "object", "head", "canvas",
    "button", "select", "input", "textarea", "audio", "video", "map",
}  # fmt: skip
_BOILERPLATE = {"nav"}
_BOILERPLATE_ROLES = {"navigation", "banner", "contentinfo", "search", "menu", "menubar"}
_BLOCKS = {
    "p", "div", "section", "article", "main", "header", "footer", "aside", "blockquote", "ul",
    "ol", "dl", "dt", "dd", "figure", "figcaption", "form", "fieldset", "address", "details",
    "summary", "body", "html", "hr", "center", "hgroup", "legend",
}  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACE = re.compile(r"[ \t\n\r\f\u00a0]+")
# A <main> element stands for the page when it holds at least this share of the text.
_MAIN_SHARE = 0.4


def read_html(source: Source) -> Iterator[Item]:
    from lxml import etree, html

    markup, note = decode_html(source.path)
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(markup.encode("utf-8"), parser=parser)
    except (etree.LxmlError, ValueError) as error:
        raise Unreadable("This page holds no text.") from error
    builder = _text_of(_content(root), source.limits.text_characters, keep_boilerplate=False)
    if not builder.text().strip():
        builder = _text_of(root, source.limits.text_characters, keep_boilerplate=True)
    if not builder.text().strip():
        raise Unreadable("This page holds no text.")
    if note:
        yield ExtractionNote(note)
    yield ExtractedDocument(
        path=source.name,
        text=builder.text(),
        title=_title(root, builder) or source.stem,
        metadata=_facts(root),
        media_type="text/html",
        headings=tuple(builder.headings),
        size_bytes=source.path.stat().st_size,
    )


def _content(root: Any) -> Any:
    mains = root.xpath("//main | //*[@role='main']")
    if len(mains) == 1:
        whole = len(_SPACE.sub("", "".join(root.itertext())))
        part = len(_SPACE.sub("", "".join(mains[0].itertext())))
        if part >= _MAIN_SHARE * whole:
            return mains[0]
    return root


def _title(root: Any, builder: TextBuilder) -> str:
    found = root.xpath("//head/title")
    title = one_line("".join(found[0].itertext())) if found else ""
    if not title and builder.headings:
        title = builder.headings[0].title
    return title[:500]


def _facts(root: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    language = root.get("lang")
    if language:
        facts["language"] = language[:35]
    for name in ("author", "description"):
        value = one_line(" ".join(root.xpath(f"//meta[@name='{name}']/@content")))
        if value:
            facts[name] = value[:500]
    return facts


def _text_of(root: Any, limit: int, *, keep_boilerplate: bool) -> TextBuilder:
    walk = _Walk(TextBuilder(limit), keep_boilerplate)
    walk.visit(root)
    walk.flush()
    return walk.builder


class _Walk:
    """One pass over the tree; inline text gathers in `pending` until a block ends."""

    def __init__(self, builder: TextBuilder, keep_boilerplate: bool) -> None:
        self.builder = builder
        self.keep_boilerplate = keep_boilerplate
        self.pending: list[str] = []

    def flush(self) -> None:
        text = "".join(self.pending)
        self.pending.clear()
        lines = [_SPACE.sub(" ", line).strip() for line in text.split("\x00")]
        self.builder.block("\n".join(line for line in lines if line))

    def visit(self, element: Any) -> None:
        tag = element.tag if isinstance(element.tag, str) else ""
        if tag and not self._is_skipped(element, tag):
            self._enter(element, tag)
        if element.tail:
            self.pending.append(element.tail.replace("\x00", ""))

    def _is_skipped(self, element: Any, tag: str) -> bool:
        if tag in _DROPPED or element.get("hidden") is not None:
            return True
        if element.get("aria-hidden") == "true":
            return True
        if self.keep_boilerplate:
            return False
        if tag in _BOILERPLATE or (element.get("role") or "") in _BOILERPLATE_ROLES:
            return True
        if tag == "footer":  # an article's own footer (sources, notes) is content
            return not any(parent.tag in {"article", "main"} for parent in element.iterancestors())
        return False

    def _enter(self, element: Any, tag: str) -> None:
        if tag in _HEADINGS:
            self.flush()
            self.builder.heading(_HEADINGS[tag], "".join(element.itertext()).rstrip("¶"))
        elif tag == "pre":
            self.flush()
            code = "".join(element.itertext()).strip("\n")
            if code.strip():
                self.builder.block(f"```\n{code}\n```")
        elif tag == "table":
            self.flush()
            self._table(element)
        elif tag == "br":
            self.pending.append("\x00")
        elif tag == "li":
            self.pending.append("\x00- ")
            self._children(element)
        elif tag in _BLOCKS:
            inside_item = any(parent.tag == "li" for parent in element.iterancestors())
            if inside_item:
                self.pending.append("\x00" if tag in {"ul", "ol"} else " ")
                self._children(element)
            else:
                self.flush()
                self._children(element)
                self.flush()
        else:
            self._children(element)

    def _children(self, element: Any) -> None:
        if element.text:
            self.pending.append(element.text.replace("\x00", ""))
        for child in element:
            self.visit(child)

    def _table(self, table: Any) -> None:
        if table.xpath(".//table"):  # a layout table: read its cells as ordinary blocks
            for cell in table.xpath("./*/tr/* | ./tr/*"):
                self._children(cell)
                self.flush()
            return
        for row in table.iter("tr"):
            cells = [one_line("".join(cell.itertext())) for cell in row.iterchildren("td", "th")]
            if any(cells):
                self.builder.line(" | ".join(cells))
        self.builder.end_lines()
