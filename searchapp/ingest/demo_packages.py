"""The documentation strings of installed packages, read from their source without importing it.

Run as a child: `python -m searchapp.ingest.demo_packages`, documents on standard output.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .extract.records import ExtractedDocument, as_json

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Package:
    """`only`: module prefixes below the package to keep; empty keeps all."""

    distribution: str
    package: str
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


PACKAGES = [
    Package("Django", "django", skip=("contrib.gis", "conf.locale", "db.backends", "conf.app")),
    Package("celery", "celery", skip=("bin",)),
    Package("kombu", "kombu", skip=("transport",)),
    Package("numpy", "numpy", only=("lib", "linalg", "random", "fft", "_core.fromnumeric")),
    Package("sentence-transformers", "sentence_transformers"),
    Package(
        "transformers",
        "transformers",
        only=(
            "pipelines",
            "generation",
            "trainer",
            "training_args",
            "modeling_utils",
            "configuration_utils",
            "tokenization_utils",
            "feature_extraction",
            "image_processing",
            "processing_utils",
            "optimization",
            "data.data_collator",
        ),
    ),
    Package("scipy", "scipy", only=("optimize", "stats._stats_py", "spatial.distance")),
    Package("psycopg", "psycopg"),
    Package("redis", "redis", only=("client", "connection", "cluster", "lock", "sentinel")),
    Package("openpyxl", "openpyxl", only=("workbook", "worksheet", "reader", "utils", "cell")),
    Package("pypdf", "pypdf"),
    Package("lxml", "lxml"),
    Package("gunicorn", "gunicorn"),
    Package("structlog", "structlog"),
    Package("safetensors", "safetensors"),
]
_MIN_MODULE, _MIN_CLASS, _MIN_FUNCTION = 80, 60, 100
_MAX_DOC = 20_000
_SKIPPED_PARTS = {"tests", "test", "testing", "migrations", "vendor", "_vendor", "vendored"}


def main() -> None:
    warnings.simplefilter("ignore")  # old escapes in the sources of others
    for package in PACKAGES:
        for document in documents(package):
            sys.stdout.write(json.dumps(as_json(document), ensure_ascii=True) + "\n")
    sys.stdout.flush()


def versions() -> dict[str, str]:
    """Distribution -> version of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package.distribution] = metadata.version(package.distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


def documents(package: Package) -> Iterator[ExtractedDocument]:
    """Modules, classes and functions of one package; nothing when it is not installed."""
    version = versions().get(package.distribution)
    spec = find_spec(package.package)  # of a top-level package, which this does not run
    if version is None or spec is None or not spec.submodule_search_locations:
        return
    root = Path(spec.submodule_search_locations[0])
    trees = dict(_trees(root, package))
    shown = _public_names(trees)
    facts = {"package": package.distribution, "version": version}
    seen: set[str] = set()
    for module in sorted(trees):
        for document in _of_module(module, trees[module], shown, facts):
            if document.text not in seen and document.path not in seen:
                seen |= {document.text, document.path}
                yield document


def _trees(root: Path, package: Package) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(root.rglob("*.py")):
        inner = list(file.relative_to(root).with_suffix("").parts)
        if _SKIPPED_PARTS & set(inner):
            continue
        if inner[-1] == "__init__":
            inner.pop()
        below = ".".join(inner)
        if package.only and inner and not below.startswith(package.only):
            continue
        if package.skip and below.startswith(package.skip):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        yield ".".join([package.package, *inner]), tree


def _public_names(trees: Mapping[str, ast.Module]) -> dict[str, str]:
    """Where a thing is defined -> the shortest name it is imported under by a package above."""
    found: dict[str, str] = {}
    for module, tree in trees.items():
        if not _is_package(module, trees):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.names[0].name == "*":
                continue
            source = _source(module, node)
            for alias in node.names:
                defined, public = f"{source}.{alias.name}", f"{module}.{alias.asname or alias.name}"
                if "._" not in public and len(public) < len(found.get(defined, defined)):
                    found[defined] = public
    # An import may name a package that itself only imported the thing.
    for defined, public in list(found.items()):
        found[defined] = found.get(public, public)
    return found


def _source(package: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that an import line of `package` takes from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _is_package(module: str, trees: Mapping[str, ast.Module]) -> bool:
    return any(name.startswith(f"{module}.") for name in trees)


def _of_module(
    module: str, tree: ast.Module, shown: Mapping[str, str], facts: Mapping[str, str]
) -> Iterator[ExtractedDocument]:
    published = set(shown.values())
    doc = ast.get_docstring(tree) or ""
    if len(doc) >= _MIN_MODULE and not _is_private(module):
        yield _document(module, doc, "module", facts)
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        defined = f"{module}.{node.name}"
        name = shown.get(defined, defined)
        top = f"{module.split('.')[0]}.{node.name}"
        if _is_private(name) and top in published:
            name = top
        elif _is_private(name):
            # Private modules of numpy and scipy hold public functions that no import line names.
            name = ".".join(part for part in name.split(".") if not part.startswith("_"))
        if isinstance(node, ast.ClassDef):
            yield from _of_class(name, node, facts)
        else:
            yield from _of_function(name, node, "function", facts)


def _of_class(
    name: str, node: ast.ClassDef, facts: Mapping[str, str]
) -> Iterator[ExtractedDocument]:
    doc = ast.get_docstring(node) or ""
    if len(doc) >= _MIN_CLASS:
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield _document(name, f"class {node.name}({bases})\n\n{doc}", "class", facts)
    for member in node.body:
        if not isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not member.name.startswith("_"):
            yield from _of_function(f"{name}.{member.name}", member, "method", facts)


def _of_function(
    name: str,
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    kind: str,
    facts: Mapping[str, str],
) -> Iterator[ExtractedDocument]:
    doc = ast.get_docstring(node) or ""
    if len(doc) < _MIN_FUNCTION:
        return
    signature = ast.unparse(node.args)
    head = f"{node.name}({signature if len(signature) <= 300 else '…'})"
    yield _document(name, f"{head}\n\n{doc}", kind, facts)


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def _document(name: str, text: str, kind: str, facts: Mapping[str, str]) -> ExtractedDocument:
    text = inspect.cleandoc(text)[:_MAX_DOC] + "\n"
    return ExtractedDocument(
        path=name,
        text=text,
        title=name,
        metadata={**facts, "kind": kind},
        size_bytes=len(text.encode("utf-8", errors="replace")),
    )


if __name__ == "__main__":
    main()
