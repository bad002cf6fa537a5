"""The Python documentation that ships inside the interpreter, as documents on standard output.

Run as a child (`python -m searchapp.ingest.demo_python`): the library is imported to read its
docstrings, and what those imports start must not start in a process of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .extract.records import ExtractedDocument, Heading, as_json

# They print, open windows or browsers, are tests, or are not there on every system.
_SKIPPED = {
    "this", "antigravity", "idlelib", "test", "lib2to3", "tkinter", "turtle", "turtledemo",
    "distutils", "ensurepip", "msilib", "msvcrt", "winreg", "winsound", "nt", "ntpath",
    "nturl2path",
    "pydoc_data", "venv", "encodings", "sre_compile", "sre_constants", "sre_parse", "opcode",
    "curses", "crypt", "nis", "ossaudiodev", "spwd", "__main__", "imp", "asynchat", "asyncore",
    "smtpd", "rlcompleter", "posix", "genericpath", "pyexpat", "cgitb", "mailcap",
}  # fmt: skip
_MIN_MODULE, _MIN_MEMBER, _MIN_METHOD = 40, 60, 90
_UNDERLINE = re.compile(r'^(\*{3,}|={3,}|-{3,}|~{3,}|"{3,})$')
_LEVELS = {"*": 1, "=": 2, "-": 3, "~": 4, '"': 4}


def main() -> None:
    # What a module prints at import must not land among the documents.
    out, sys.stdout = sys.stdout, io.StringIO()
    warnings.simplefilter("ignore")
    for document in [*topics(), *library()]:
        out.write(json.dumps(as_json(document), ensure_ascii=True) + "\n")
    out.flush()


def topics() -> Iterator[ExtractedDocument]:
    """The language reference, one document per topic of `help()`."""
    from pydoc_data.topics import topics as texts

    seen: set[str] = set()
    # "compound" repeats the topics of every statement it is made of.
    for name in sorted(set(texts) - {"compound"}):
        text, headings = headed(texts[name].replace("\t", "    "))
        if text in seen or len(text) < _MIN_MODULE:
            continue
        seen.add(text)
        title = headings[0].title if headings else name.replace("-", " ").capitalize()
        yield ExtractedDocument(
            path=f"reference/{name}",
            text=text,
            title=title,
            headings=headings,
            metadata={"kind": "language reference", "version": platform.python_version()},
            size_bytes=len(text.encode()),
        )


def headed(text: str) -> tuple[str, tuple[Heading, ...]]:
    """The text without underlines, and its underlined lines as headings."""
    lines = text.strip("\n").split("\n")
    kept: list[str] = []
    headings: list[Heading] = []
    offset = 0
    for at, line in enumerate(lines):
        if _UNDERLINE.match(line.strip()) and kept and kept[-1].strip():
            continue
        mark = _UNDERLINE.match(lines[at + 1].strip()) if at + 1 < len(lines) else None
        if mark and line.strip():
            line = line.strip().replace('"', "")
            headings.append(Heading(offset, _LEVELS[mark.group(1)[0]], line))
        kept.append(line)
        offset += len(line) + 1
    return "\n".join(kept).rstrip() + "\n", tuple(headings)


def library() -> Iterator[ExtractedDocument]:
    """Modules, classes, functions and methods of the standard library with their docstrings."""
    seen: set[int] = set()
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _SKIPPED:
            continue
        for module in _modules(name):
            yield from _of_module(module, seen)


def _modules(name: str) -> Iterator[ModuleType]:
    module = _imported(name)
    if module is None:
        return
    yield module
    if name == "os":
        yield module.path
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not found.name.startswith("_") and found.name not in {"test", "tests"}:
            yield from _modules(f"{name}.{found.name}")


def _imported(name: str) -> ModuleType | None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module(name)
    except BaseException:  # a module may even exit; it is then left out
        return None


def _of_module(module: ModuleType, seen: set[int]) -> Iterator[ExtractedDocument]:
    name = "os.path" if module.__name__ == "posixpath" else module.__name__
    if id(module) in seen:
        return
    seen.add(id(module))
    text = _doc(module)
    if len(text) >= _MIN_MODULE:
        yield _document(name, text, "module", name)
    public = getattr(module, "__all__", None)
    for member_name in sorted(public or vars(module)):
        member = vars(module).get(member_name)
        if member_name.startswith("_") or member is None or id(member) in seen:
            continue
        home = getattr(member, "__module__", None)
        if public is None and home not in {module.__name__, None}:
            continue
        if inspect.isclass(member):
            seen.add(id(member))
            yield from _of_class(f"{name}.{member_name}", member, name)
        elif inspect.isroutine(member):
            seen.add(id(member))
            text = _doc(member)
            if len(text) >= _MIN_MEMBER:
                yield _document(f"{name}.{member_name}", _signed(member, text), "function", name)


def _of_class(path: str, owner: type, module: str) -> Iterator[ExtractedDocument]:
    text = _doc(owner) if "__doc__" in vars(owner) else ""
    if len(text) >= _MIN_MEMBER:
        yield _document(path, _signed(owner, text), "class", module)
    for name, member in sorted(vars(owner).items()):
        target = getattr(member, "__func__", member)
        if name.startswith("_") or not (inspect.isroutine(target) or isinstance(target, property)):
            continue
        text = _doc(target)
        if len(text) >= _MIN_METHOD:
            kind = "property" if isinstance(target, property) else "method"
            yield _document(f"{path}.{name}", _signed(target, text), kind, module)


def _doc(thing: Any) -> str:
    doc = getattr(thing, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _signed(thing: Any, text: str) -> str:
    """The text below the signature, unless it begins with one."""
    try:
        signature = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return text
    name = getattr(thing, "__name__", "")
    if not name or text.startswith(f"{name}(") or len(signature) > 300 or " at 0x" in signature:
        return text
    return f"{name}{signature}\n\n{text}"


def _document(path: str, text: str, kind: str, module: str) -> ExtractedDocument:
    shown = path.removeprefix("builtins.") if path != "builtins" else path
    return ExtractedDocument(
        path=f"library/{path}",
        text=text + "\n",
        title=shown,
        metadata={"kind": kind, "module": module, "version": platform.python_version()},
        size_bytes=len(text.encode("utf-8", errors="replace")),
    )


if __name__ == "__main__":
    main()
