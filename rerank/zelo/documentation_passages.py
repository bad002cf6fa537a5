"""Sources and pages -> passages: what a summary or a heading promises, and the text below it."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from rerank.zelo.documentation_text import (
    Section,
    cut,
    first_sentence,
    markdown_sections,
    plain,
    shortened,
    underlined_sections,
)

# Characters of a passage.
SHORTEST, LONGEST = 200, 1500
# Bytes of a file: longer ones hold tables, not documentation.
LARGEST = 2_000_000
_SIGNATURE = 200
# What a generator says of itself in the comments at the head of a file.
_GENERATED = re.compile(
    r"^#.*(?:auto(?:matically)?[- ]?generated|generated (?:by|from|automatically)|do not edit)",
    re.IGNORECASE | re.MULTILINE,
)
_HEAD = 1500
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_CALL = re.compile(r"^[\w.]+\s*\(.*\)\s*(?:->.*)?:?$", re.DOTALL)
# A definition in the language reference: a call at the margin, its text indented below.
_DEFINITION = re.compile(r"^(?:class |exception )?([A-Za-z_]\w*(?:\.\w+)*)(\(.*\)|)$")
_NO_CHAPTER = re.compile(
    r"change ?logs?|what.?s (?:new|changed)|release notes|history|^news\b|licen[cs]|copyright|"
    r"contribut|acknowledg|credits?$|authors?$|sponsor|backers|maintainers?$|thanks|citation|"
    r"table of contents|^contents$|badges?$|^links?$|changes|security contact|code of conduct|"
    r"^releases?\b|^(?:local )?develop|^test(?:s|ing)?\b|^build(?:ing)?\b|^running (?:the )?tests|"
    r"^v?\d+(?:\.\d+)+|\(\d{4}-\d\d-\d\d\)|report|support$|community|help$|star history|donat|"
    r"in action$|next steps|learn more|resources$|who uses|who is using|used by|related projects",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Passage:
    """`document`: the module or page it stands in; `path`: where in there, () for a module's own
    docstring. `subject`: what its summary may lean on. `summary`: a sentence or heading, as a
    person would type it. `kind`: "docstring" or "section"."""

    document: str
    path: tuple[str, ...]
    subject: str
    summary: str
    text: str
    kind: str

    def is_near(self, other: Passage) -> bool:
        """Whether two passages of a document have the same name, or one holds the other: what is
        said of a class may answer for its method."""
        holds = other.path[:-1] == self.path or self.path[:-1] == other.path
        return holds or self.path[-1:] == other.path[-1:]


class Unreadable(ValueError):
    """A file that is left out; the message is the reason, as it is counted."""


def python_text(data: bytes) -> str:
    """As its coding line says, else UTF-8, else Latin-1, which reads any bytes. Raises Unreadable
    for a file that is too large."""
    if len(data) > LARGEST:
        raise Unreadable("too large")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return data.decode("latin-1")


def passages_of_module(text: str, path: str) -> list[Passage]:
    """Of the public docstrings of a Python file at `path`, a/b.py. Raises Unreadable when it does
    not parse or was written by a generator."""
    if _GENERATED.search(text[:_HEAD]):
        raise Unreadable("generated")
    try:
        with warnings.catch_warnings():
            # Remarks on other people's escapes.
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        return list(_of_body(tree, _dotted(path)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unreadable("not parsed") from error


def _dotted(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).with_suffix("").parts
    # A folder of sources is no package.
    parts = parts[1:] if parts[0] in ("src", "lib") and len(parts) > 1 else parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def _of_body(tree: ast.Module, module: tuple[str, ...]) -> Iterator[Passage]:
    dotted = ".".join(module)
    # What a private module defines is meant to be imported from its package.
    shown = module[:-1] if len(module) > 1 and module[-1].startswith("_") else module
    public = [shown[0].strip("_"), *shown[1:]]
    own = ast.get_docstring(tree)
    if own:
        subject = " ".join(dict.fromkeys((public[0], public[-1])))
        yield from _of_docstring(own, f"module {dotted}", dotted, (), subject)
    for node in tree.body:
        yield from _of_named(node, dotted, public, ())


def _of_named(
    node: ast.stmt, dotted: str, public: list[str], within: tuple[str, ...]
) -> Iterator[Passage]:
    """Of a class with its methods, or of a function; nothing for other statements."""
    if not isinstance(node, _Named) or node.name.startswith("_"):
        return
    decorators = {ast.unparse(each).partition("(")[0] for each in node.decorator_list}
    lasts = {each.rpartition(".")[2] for each in decorators}
    if lasts & {"overload", "setter", "deleter", "deprecated"}:
        return
    path = (*within, node.name)
    if text := ast.get_docstring(node):
        subject = " ".join(dict.fromkeys((public[0], within[-1] if within else public[-1])))
        head = _signature(node, ".".join([*public, *path]), bool(within), lasts)
        yield from _of_docstring(text, head, dotted, path, subject)
    if isinstance(node, ast.ClassDef):
        for each in node.body:
            yield from _of_named(each, dotted, public, path)


def _signature(node: _Named, name: str, is_method: bool, decorators: set[str]) -> str:
    """Its name and what it takes, without types and without self."""
    if isinstance(node, ast.ClassDef):
        starts = (each for each in node.body if isinstance(each, ast.FunctionDef))
        start = next((each for each in starts if each.name == "__init__"), None)
        return f"class {name}{_arguments(start.args, True) if start else ''}"
    if decorators & {"property", "cached_property"}:
        return name
    return f"{name}{_arguments(node.args, is_method and 'staticmethod' not in decorators)}"


def _arguments(given: ast.arguments, is_bound: bool) -> str:
    for each in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
        if each is not None:
            each.annotation = None
    shown = ast.unparse(given)
    if is_bound:
        shown = re.sub(r"^(?:self|cls)(?:, /)?(?:, |$)", "", shown)
    return f"({shown})" if len(shown) <= _SIGNATURE else f"({cut(shown, _SIGNATURE)} …)"


def _of_docstring(
    docstring: str, head: str, document: str, path: tuple[str, ...], subject: str
) -> Iterator[Passage]:
    """At most one."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring).strip(), maxsplit=1)
    # Of functions written in C the first line is what they take.
    if _CALL.match(paragraphs[0]):
        paragraphs = (
            re.split(r"\n\s*\n", paragraphs[1].lstrip("\n"), maxsplit=1)
            if (len(paragraphs) > 1)
            else [""]
        )
    first, more = _summary_lines(paragraphs[0])
    sentence, following = first_sentence(plain(first))
    rest = "\n\n".join(each for each in [more, *paragraphs[1:]] if each.strip())
    # Sections are told by their marks, so these go last.
    body = plain(shortened(rest))
    body = "\n\n".join(each for each in (following, body) if each.strip())
    text = cut(f"{head}\n\n{body}", LONGEST)
    yield Passage(document, path, subject, sentence, text, "docstring")


def _summary_lines(paragraph: str) -> tuple[str, str]:
    """(a first paragraph up to the list, field or section that follows without a blank line, that
    rest)."""
    lines = paragraph.splitlines()
    for at, line in enumerate(lines[1:], start=1):
        is_other = re.match(
            r"^\s*(?:[-*+•]\s|\d+[.)]\s|[:@]\w+(?:\s[^:`]*)?:(?:\s|$)|>>>|\.\. |[-=~^*]{4,}\s*$)",
            line,
        )
        is_section = re.match(
            r"^(?:Args|Arguments|Returns|Raises|Yields|Parameters|Examples?):", line
        )
        if is_other or is_section or (line.startswith("  ") and not lines[at - 1].startswith("  ")):
            if re.match(r"^\s*[-=~^*]{4,}\s*$", line):
                return "\n".join(lines[: at - 1]) or lines[0], "\n".join(lines[at + 1 :])
            return "\n".join(lines[:at]), "\n".join(lines[at:])
    return paragraph, ""


def passages_of_page(text: str, title: str, document: str, is_markdown: bool) -> list[Passage]:
    """One for each section of a page that `title` names; chapters of changes, licences and thanks
    are left out."""
    sections = markdown_sections(text) if is_markdown else underlined_sections(text)
    found = []
    for section in sections:
        if not section.path or any(_NO_CHAPTER.search(each) for each in section.path):
            continue
        found.append(_of_section(section, title, document, is_markdown))
    return [each for each in found if each is not None]


def _of_section(section: Section, title: str, document: str, is_markdown: bool) -> Passage | None:
    own = section.path[-1]
    body = section.text if is_markdown else plain(section.text)
    kept = re.sub(r"^\[!\w+\]\s*", "", body, flags=re.MULTILINE).strip()
    if len(re.sub(r"https?://\S+", "", kept)) < SHORTEST or not own:
        return None
    # The heading above tells what a short one is about.
    parents = [each for each in section.path[:-1] if _bare(each) != _bare(title)][-1:]
    heading = ": ".join([*parents, own]) if len(own.split()) < 3 else own
    words = set(re.findall(r"\w+", heading.lower()))
    named = set(re.findall(r"\w+", title.lower())) <= words
    summary = heading if named else f"{title}: {heading}"
    return Passage(document, section.path, title, summary, cut(kept, LONGEST), "section")


def _bare(title: str) -> str:
    return re.sub(r"[\W_]+", "", title.lower())


def passages_of_topics(text: str) -> list[Passage]:
    """Of the language reference as pydoc keeps it: a module that assigns a dictionary of texts.
    Raises Unreadable."""
    try:
        values = [node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)]
        topics: dict[str, str] = ast.literal_eval(values[-1])
        pages = {f"{name}": f"{page}" for name, page in topics.items()}
    except (SyntaxError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise Unreadable("not parsed") from error
    found: list[Passage] = []
    for name, page in pages.items():
        document = f"pydoc topic {name}"
        for section in underlined_sections(page):
            before, definitions = _definitions(section.text)
            for head, body in definitions:
                named = _DEFINITION.match(head)
                owner, _, last = named.group(1).rpartition(".") if named else ("", "", head)
                subject = f"Python {owner or last}"
                found += _of_docstring(body, head, document, (owner, last), subject)
            if section.path:
                # "The "if" statement" is asked for as "Python if statement".
                own = re.sub(r"^(?:The|A|An) ", "", section.path[-1]).replace('"', "")
                path = (*section.path[:-1], own)
                passage = _of_section(Section(path, before), "Python", document, False)
                found += [passage] if passage else []
    return found


def _definitions(text: str) -> tuple[str, list[tuple[str, str]]]:
    """(the text before any, [(signature, its text)])."""
    before: list[str] = []
    found: list[tuple[str, list[str]]] = []
    lines = text.splitlines()
    for at, line in enumerate(lines):
        below = next((each for each in lines[at + 1 :] if each.strip()), "")
        call = _DEFINITION.match(line.strip())
        is_call = call is not None and ("(" in line or "." in line)
        if line and line[0] != " " and is_call and below.startswith("   "):
            found.append((line.strip(), []))
        elif found and (not line.strip() or line.startswith("   ")):
            found[-1][1].append(line)
        elif found:
            found.append(("", [line]))
        else:
            before.append(line)
    kept = [(head, inspect.cleandoc("\n" + "\n".join(body))) for head, body in found if head]
    return "\n".join(before), kept
