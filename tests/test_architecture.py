"""The house rules of docs/architecture.md, held against the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "sentence_transformers", "openvino"}
PRODUCT = {"django", "celery", "kombu", "redis", "psycopg", "searchapp"}
# Layer of each part of searchapp; a part imports only from its own layer or below.
LAYERS = {
    "models": 0,
    "embedded": 0,
    "celery": 0,
    "slow_clients": 0,
    "engine": 1,
    "search": 2,
    "ingest": 2,
    "workbench": 3,
    "training": 3,
    "tasks": 3,
    "api": 3,
    "views": 3,
    "management": 3,
    "admin": 3,
    "forms": 3,
    "urls": 4,
    "templatetags": 3,
    "metrics": 3,
    "middleware": 3,
}
# Django itself finds these; nothing imports them.
UNLAYERED = {"__init__", "apps", "migrations", "settings", "wsgi"}
# May load a model: the workers' side of the engine.
MAY_IMPORT_INFERENCE = {"searchapp/engine/local.py"}
# rerank.inference modules that import no torch, so that the web side may use their facts.
LIGHT_INFERENCE = {
    "rerank.inference.models",
    "rerank.inference.batching",
    "rerank.inference.scorer",
    "rerank.inference.whole_scorer",
    "rerank.inference.scoring",
    "rerank.inference.score_cache",
}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether at module level) of every import, relative ones made absolute."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).with_suffix("").parts
    top_level = {id(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)} - {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or only_for_types(node)
        for child in ast.walk(node)
        if child is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top_level
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: -node.level]) if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name, id(node) in top_level
            for alias in node.names:
                yield f"{name}.{alias.name}", id(node) in top_level


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", python_files("rerank"), ids=relative)
def test_engine_knows_nothing_of_the_product(path: Path) -> None:
    assert not [name for name, _ in imports(path) if name.split(".")[0] in PRODUCT]


@pytest.mark.parametrize("path", python_files("rerank/ranking"), ids=relative)
def test_ranking_is_numbers_only(path: Path) -> None:
    names = [name for name, _ in imports(path)]
    assert not [name for name in names if name.split(".")[0] in HEAVY]
    assert not [name for name in names if name.startswith("rerank.inference")]


@pytest.mark.parametrize("path", python_files("searchapp"), ids=relative)
def test_arrows_go_down_only(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[1] in UNLAYERED:
        return
    own = LAYERS[parts[1]]
    for name, _ in imports(path):
        target = name.split(".")
        if target[0] == "searchapp" and len(target) > 1 and target[1] in LAYERS:
            assert LAYERS[target[1]] <= own, f"{relative(path)} imports {name}"
    if parts[1] in {"search", "ingest", "engine", "models"}:
        assert not [n for n, _ in imports(path) if n.startswith("searchapp.tasks")]


@pytest.mark.parametrize("path", python_files("searchapp"), ids=relative)
def test_only_the_local_engine_loads_models(path: Path) -> None:
    for name, at_top in imports(path):
        if name.split(".")[0] in HEAVY:
            pytest.fail(f"{relative(path)} imports {name}")
        if not name.startswith("rerank.inference") or name == "rerank.inference":
            continue
        if any(name == light or name.startswith(light + ".") for light in LIGHT_INFERENCE):
            continue
        assert relative(path) in MAY_IMPORT_INFERENCE, f"{relative(path)} imports {name}"
        assert not at_top, f"{relative(path)} imports {name} at import time"


def test_the_web_process_never_imports_torch() -> None:
    code = (
        "import django, sys; django.setup(); import searchapp.urls, searchapp.wsgi, "
        "searchapp.tasks; from django.urls import get_resolver; get_resolver().url_patterns; "
        f"loaded = {sorted(HEAVY)!r}; print([m for m in loaded if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", python_files("rerank") + python_files("searchapp"), ids=relative)
def test_files_are_one_noun(path: Path) -> None:
    assert path.stem not in {"utils", "helpers", "services", "common", "managers", "misc"}
    if "migrations" not in path.parts:
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 450, f"{relative(path)} has {lines} lines: which noun moved in?"


def test_nothing_prints_from_templates_or_loads_from_elsewhere() -> None:
    """Assets are local and scripts are files: the content security policy allows nothing else."""
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert " style=" not in text, f"inline style in {relative(path)}"
        assert " onclick=" not in text, f"inline handler in {relative(path)}"
        for host in ("//cdn", "unpkg.com", "jsdelivr", "googleapis"):
            assert host not in text, f"{host} in {relative(path)}"
