"""Where documentation lies on this machine: installed distributions, the standard library, and
folders of one's own. Nothing of it is imported or run."""

from __future__ import annotations

import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    distributions,
    packages_distributions,
)
from pathlib import Path, PurePosixPath

from rerank.errors import BadInput

STANDARD_LIBRARY, REFERENCE = "python", "python-reference"
# The language reference, as pydoc shows it.
TOPICS = "pydoc_data/topics.py"
# Folders with copies of other packages, and with what is no documentation.
_COPIES = {"vendor", "vendored", "extern", "externals", "third_party", "thirdparty"}
_OTHER = {
    "test", "tests", "migrations", "fixtures", "node_modules", "site-packages", "idlelib",
    "lib2to3", "turtledemo", "ensurepip", "build", "dist",
}  # fmt: skip
_NAME = re.compile(r"^\w[\w-]*(?:\.\w[\w-]*)*$")
_TEST_FILE = re.compile(r"^(test_.*|.*_tests?|conftest|_?tests?|_?testing_utils)\.pyi?$")


@dataclass(frozen=True)
class Source:
    """One package or folder to read. `kind`: "installed" or "folder". `files`: relative name in the
    form a/b.py -> where it lies; `pages` the same for texts (.md, .rst). `readme`: a description
    that comes with the package; `is_markdown` says how it is written."""

    name: str
    version: str
    licence: str
    kind: str
    files: Mapping[str, Path]
    pages: Mapping[str, Path]
    readme: str = ""
    is_markdown: bool = True


def all_installed() -> list[Source]:
    """The standard library and every distribution of this environment, by name."""
    found: dict[str, Source] = {}
    for each in distributions():
        source = _of_distribution(each)
        # The first on the path is the one that would be imported.
        found.setdefault(_key(source.name), source)
    return [_standard_library(), _reference(), *(found[name] for name in sorted(found) if name)]


def sources_of(names: Sequence[str]) -> list[Source]:
    """Of distributions, importable packages, modules of the standard library ("python" for all of
    it, "python-reference" for the language's reference) and folders, each once. Raises BadInput
    for what is none of these."""
    found: dict[str, Source] = {}
    for name in names:
        source = _named(name)
        found.setdefault(f"{source.kind} {source.name}", source)
    return list(found.values())


def _named(name: str) -> Source:
    """Raises BadInput."""
    if name in (STANDARD_LIBRARY, REFERENCE):
        return _standard_library() if name == STANDARD_LIBRARY else _reference()
    # What looks like a path is one; a bare name is a package first.
    if not _NAME.match(name):
        if Path(name).is_dir():
            return _of_folder(Path(name))
    elif name in sys.stdlib_module_names:
        return _standard_library(name)
    else:
        with suppress(PackageNotFoundError):
            return _of_distribution(distribution(name))
        if owners := packages_distributions().get(name):
            return _of_distribution(distribution(owners[0]))
        if Path(name).is_dir():
            return _of_folder(Path(name))
    raise BadInput(
        f"There is no installed package and no folder {name!r}. Give the name that pip or import "
        "knows, or a folder with Python files, .md or .rst."
    )


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name or "").lower()


def _standard_library(module: str = "") -> Source:
    """All of it, or one of its modules."""
    root = Path(sysconfig.get_paths()["stdlib"])
    if not module:
        paths: Iterable[Path] = root.rglob("*.py")
    elif (root / module).is_dir():
        paths = (root / module).rglob("*.py")
    else:
        paths = [path for path in [root / f"{module}.py"] if path.is_file()]
    files = _usable({path.relative_to(root).as_posix(): path for path in paths}, (".py",))
    files.pop(TOPICS, None)
    name = f"{STANDARD_LIBRARY} {module}".strip()
    return Source(name, platform.python_version(), "PSF-2.0", "installed", files, {})


def _reference() -> Source:
    path = Path(sysconfig.get_paths()["stdlib"]) / TOPICS
    files = {TOPICS: path} if path.is_file() else {}
    return Source(REFERENCE, platform.python_version(), "PSF-2.0", "installed", files, {})


def _of_distribution(installed: Distribution) -> Source:
    meta = installed.metadata
    places = {
        file.as_posix(): Path(str(installed.locate_file(file)))
        for file in installed.files or []
        if file.suffix in (".py", ".pyi")
    }
    kind = str(meta["Description-Content-Type"] or "")
    readme = str(meta["Description"] or "") or str(meta.get_payload() or "")  # type: ignore[attr-defined]
    return Source(
        str(meta["Name"] or ""),
        installed.version,
        _licence(installed),
        "installed",
        _usable(places, (".py", ".pyi")),
        {},
        readme,
        "markdown" in kind or (not kind and bool(re.search(r"^#{1,4} \w", readme, re.MULTILINE))),
    )


def _licence(installed: Distribution) -> str:
    """As the metadata states it, in one line; "" for none."""
    meta = installed.metadata
    stated = str(meta["License-Expression"] or meta["License"] or "").strip()
    if not stated or "\n" in stated:
        named = [str(each) for each in meta.get_all("Classifier") or []]
        classes = [each.rpartition(" :: ")[2] for each in named if each.startswith("License ::")]
        stated = ", ".join(classes) or stated.partition("\n")[0]
    return stated[:100]


def _of_folder(folder: Path) -> Source:
    """Raises BadInput when it holds nothing to read."""
    root = folder.resolve()
    try:
        every = {path.relative_to(root).as_posix(): path for path in _walk(root)}
    except OSError as error:
        raise BadInput(f"{error.filename} cannot be read: {error.strerror or error}.") from error
    files, pages = _usable(every, (".py", ".pyi")), _usable(every, (".md", ".rst"))
    if not files and not pages:
        raise BadInput(f"The folder {folder} holds no Python files and no .md or .rst.")
    return Source(root.name, "", "", "folder", files, pages)


def _walk(folder: Path) -> Iterator[Path]:
    """Files, but none of hidden folders and of environments."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir() and not (path / "pyvenv.cfg").is_file():
            yield from _walk(path)
        elif path.is_file():
            yield path


def _usable(places: Mapping[str, Path], endings: tuple[str, ...]) -> dict[str, Path]:
    """Those with one of the endings that are no tests and no copies of others; stubs only where
    the module itself is not written in Python."""
    return {
        name: places[name]
        for name in sorted(places)
        if PurePosixPath(name).suffix in endings
        and not any(_is_left_out(part) for part in PurePosixPath(name).parts[:-1])
        and not _TEST_FILE.match(PurePosixPath(name).name)
        and not (name.endswith(".pyi") and name[:-1] in places)
    }


def _is_left_out(folder: str) -> bool:
    bare = folder.lower().strip("_")
    return bare in _COPIES or bare in _OTHER or folder in ("_internal", "..", "__pycache__")
