"""Documentation as it is written in sources and readmes -> text without markup, in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Characters kept of one section of a docstring: what a function is for matters more than the list
# of what it takes, and that more than another example.
_LISTED, _EXAMPLES = 500, 300
_LISTING = {
    "parameters", "other parameters", "args", "arguments", "keyword args", "keyword arguments",
    "attributes", "returns", "return", "yields", "raises", "warns", "methods", "fields", "shape",
}  # fmt: skip
_EXAMPLE = {"example", "examples", "usage", "usages"}
_DROPPED = {"references", "see also", "seealso"}
_ROLE = re.compile(r"(?::[a-zA-Z][\w+-]*)+:`([^`]*)`")
_TARGET = re.compile(r"^(.*?)\s*<[^<>]*>$", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*\.\.[ \t]+([a-zA-Z][\w:-]*?)::[ \t]*(.*)$")
_SAID = {"note", "warning", "tip", "important", "caution", "attention", "hint", "danger"}
_FIELD = re.compile(r"^([ \t]*)[:@](\w+)(?:[ \t]+([^:\n]*?))?:(?:[ \t]+|$)(.*)$")
_TAG = re.compile(
    r"</?(?:a|b|br|code|details|div|em|h\d|hr|hfoptions?|i|img|kbd|li|p|picture|pre|source|span|"
    r"strong|sub|summary|sup|table|td|th|tip|tr|tt|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_UNDERLINE = re.compile(r"^[ \t]*([-=~^*#+\"'.`_])\1{2,}[ \t]*$")
_WORD_END = re.compile(r"(?<=[.!?])[)\"']*\s+(?=[A-Z\"'(\[0-9<])")
_ABBREVIATED = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|approx|resp|incl|no|fig|eq|al)\.$|\b[A-Z]\.$")


@dataclass(frozen=True)
class Section:
    """`path`: the headings above it, outermost first, its own last; () for what stands before any.
    `text` without its heading and without the sections below it."""

    path: tuple[str, ...]
    text: str


def plain(text: str) -> str:
    """reStructuredText and the Markdown that docstrings hold -> the text a reader sees."""
    lines = []
    options = False
    for line in text.expandtabs().splitlines():
        if found := _DIRECTIVE.match(line):
            options = True
            if found.group(1).lower() in _SAID:
                lines.append(f"{found.group(1).capitalize()}: {found.group(2)}".rstrip())
            continue
        if options and re.match(r"^[ ]+:[\w-]+:", line):
            continue
        options = options and not line.strip()
        if re.match(r"^[ ]*(\.\. |\.\.$|```|<!--)", line):
            continue
        lines.append(_field(line))
    kept = _TAG.sub("", "\n".join(lines))
    kept = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", kept)
    kept = re.sub(r"\[`?~?([^\]`]+)`?\]\((?:https?:|#|/|\.)[^)\s]*\)", r"\1", kept)
    kept = re.sub(r"\[`~?([^\]`]+)`\]", r"\1", kept)
    kept = _ROLE.sub(lambda found: _shown(found.group(1)), kept)
    kept = re.sub(r"``(.+?)``", r"\1", kept, flags=re.DOTALL)
    # Links, then names, which are of more than one line at times.
    kept = re.sub(
        r"`([^`<>\n]*(?:\n[^`<>\n]*)?)\s<[^<>`]+>`_{0,2}",
        lambda found: found.group(1).strip(),
        kept,
    )
    kept = re.sub(r"`([^`\n]+)`(?:__?(?!\w))?", lambda found: _shown(found.group(1)), kept)
    kept = re.sub(r"(?<![\w*])\*\*(\w[^*]{0,200}?)\*\*(?![\w*])", r"\1", kept)
    kept = re.sub(r"(?<![\w*])\*(\w(?:[^*\n]*[\w.!?])?)\*(?![\w*])", r"\1", kept)
    # Places that are filled in when the module is imported, and names' last parts without a role.
    kept = re.sub(r"^[ ]*(?:%\(\w+\)s|\{\w+\})[ ]*$\n?", "", kept, flags=re.MULTILINE)
    kept = re.sub(r"(?<![\w~/])~(?=[A-Za-z_]\w*\.\w)", "", kept)
    # Borders of tables, and lines across.
    kept = re.sub(r"^[ ]*[=+|~-][=+|~ -]{4,}$\n?", "", kept, flags=re.MULTILINE)
    kept = re.sub(r"[ ]?\[\w+\]_(?!\w)", "", kept)
    kept = re.sub(r"(?<![\w|])\|(@?\w(?:[\w .-]*\w)?)\|_{0,2}(?![\w|])", r"\1", kept)
    kept = re.sub(r"::[ ]*$", ":", kept, flags=re.MULTILINE)
    kept = "\n".join(line.rstrip() for line in kept.splitlines())
    return re.sub(r"\n{3,}", "\n\n", kept).strip("\n")


def _shown(role: str) -> str:
    """Of a role's content what is shown: its title, or the last part of a name behind "~"."""
    if titled := _TARGET.match(role):
        return titled.group(1)
    return role.rpartition(".")[2] if role.startswith("~") else role.lstrip("!~")


def _field(line: str) -> str:
    """ ":param int count: how many" -> "count: how many"; types of what is named are left out."""
    found = _FIELD.match(line)
    if found is None:
        return line
    indent, kind, about, said = found.groups()
    name = (about or "").split()[-1] if about else ""
    if kind in ("param", "parameter", "arg", "argument", "key", "keyword", "ivar", "cvar", "var"):
        return f"{indent}{name}: {said}" if name else line
    if kind in ("return", "returns", "yields", "yield"):
        return f"{indent}Returns: {said}"
    if kind in ("raises", "raise", "except"):
        return f"{indent}Raises {name}: {said}"
    return "" if kind in ("type", "rtype", "vartype", "meta") else line


def first_sentence(paragraph: str) -> tuple[str, str]:
    """(it, what follows) of one paragraph, white space joined."""
    joined = " ".join(paragraph.split())
    for found in _WORD_END.finditer(joined):
        if not _ABBREVIATED.search(joined[: found.start()].rstrip(")\"'")):
            return joined[: found.end()].strip(), joined[found.end() :]
    return joined, ""


def shortened(text: str) -> str:
    """A docstring's body with its lists of parameters and its examples cut, and without references.

    Sections are those of the styles of NumPy and Google; other text stays as it is.
    """
    kept: list[str] = []
    for title, lines in _docstring_sections(text):
        name = title.strip().rstrip(":").lower()
        if name in _DROPPED:
            continue
        body = "\n".join(lines).strip("\n")
        if name in _LISTING:
            body = cut(body, _LISTED)
        elif name in _EXAMPLE:
            body = cut(body, _EXAMPLES)
        else:
            body = _with_short_examples(body)
        if body.strip():
            kept.append(f"{title.strip().rstrip(':')}:\n{body}" if title else body)
    return "\n\n".join(kept)


def _docstring_sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(heading or "", its lines)."""
    lines = text.splitlines()
    title, body = "", list[str]()
    at = 0
    while at < len(lines):
        line = lines[at]
        following = lines[at + 1] if at + 1 < len(lines) else ""
        underlined = bool(line.strip()) and bool(_UNDERLINE.match(following))
        known = line.strip().rstrip(":").lower() in _LISTING | _EXAMPLE | _DROPPED
        if underlined or (known and line.rstrip().endswith(":") and not line.startswith(" " * 5)):
            yield title, body
            title, body = line, []
            at += 2 if underlined else 1
            continue
        if not _UNDERLINE.match(line):
            body.append(line)
        at += 1
    yield title, body


def _with_short_examples(text: str) -> str:
    """Runs of doctest lines are cut."""
    paragraphs = re.split(r"\n\s*\n", text)
    left = _EXAMPLES
    kept = []
    for each in paragraphs:
        if each.lstrip().startswith(">>>"):
            if left <= 0:
                continue
            each = cut(each, left)
            left -= len(each)
        kept.append(each)
    return "\n\n".join(each for each in kept if each.strip())


def cut(text: str, most: int) -> str:
    """At most so many characters, ended where a paragraph, line or sentence ends."""
    if len(text) <= most:
        return text
    head = text[:most]
    for border in ("\n\n", "\n", ". ", " "):
        at = head.rfind(border)
        if at > most // 2:
            return head[: at + (border == ". ")].rstrip()
    return head


def markdown_sections(text: str) -> Iterator[Section]:
    """Paragraphs, lists and code of a Markdown text under their headings; tables, pictures and
    HTML are left out."""
    path: list[tuple[int, str]] = []
    body: list[str] = []
    in_table = False
    depth = level = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("bullet_list_open", "ordered_list_open"):
            depth += 1
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            depth -= 1
        elif token.type in ("table_open", "table_close"):
            in_table = token.type == "table_open"
        elif token.type == "heading_open":
            yield Section(tuple(title for _, title in path), "\n\n".join(body))
            body = []
            level = int(token.tag[1:])
            path = [each for each in path if each[0] < level]
        elif token.type == "heading_close":
            level = 0
        elif token.type in ("fence", "code_block"):
            body.append(cut(token.content.rstrip(), 500))
        elif token.type == "inline" and level:
            path.append((level, _inline(token).strip()))
        elif token.type == "inline" and not in_table and (shown := _inline(token).strip()):
            body.append(f"- {shown}" if depth else shown)
    yield Section(tuple(title for _, title in path), "\n\n".join(body))


def _inline(token: Token) -> str:
    parts = []
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
    return plain("".join(parts))


def underlined_sections(text: str) -> Iterator[Section]:
    """Of reStructuredText and plain text: a heading is a line with one of signs below it, its level
    the order in which such signs first come."""
    path: list[tuple[int, str]] = []
    levels: list[str] = []
    body: list[str] = []
    lines = text.expandtabs().splitlines()
    at = 0
    while at < len(lines):
        line, following = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
        under = _UNDERLINE.match(following)
        is_title = bool(line.strip()) and line[0] != " " and not _UNDERLINE.match(line)
        if under and is_title and len(following.strip()) >= min(len(line.strip()), 4):
            # A line above the heading belongs to it, not to the text before.
            if body and _UNDERLINE.match(body[-1]):
                body.pop()
            yield Section(tuple(title for _, title in path), "\n".join(body))
            if under.group(1) not in levels:
                levels.append(under.group(1))
            level = levels.index(under.group(1))
            path = [*(each for each in path if each[0] < level), (level, plain(line).strip())]
            body = []
            at += 2
            continue
        body.append(line)
        at += 1
    yield Section(tuple(title for _, title in path), "\n".join(body))
