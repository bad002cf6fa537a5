"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def settings_read() -> set[str]:
    source = (ROOT / "searchapp" / "settings.py").read_text(encoding="utf-8")
    return set(re.findall(r'env_(?:str|int|bool|list|pairs)\(\s*"([A-Z_]+)"', source))


def settings_of_the_server() -> set[str]:
    source = (ROOT / "gunicorn.conf.py").read_text(encoding="utf-8")
    return set(re.findall(r'os.environ.get\("([A-Z_]+)"', source))


def test_every_setting_stands_in_the_readme_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", readme, flags=re.MULTILINE))
    assert settings_read() <= listed, f"missing: {settings_read() - listed}"
    known = settings_read() | settings_of_the_server() | {"ADMIN_PASSWORD", "PORT", "HOST"}
    assert listed <= known, f"stale: {listed - known}"


def test_every_setting_stands_in_the_example_environment() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    listed = set(re.findall(r"^#? ?([A-Z_]+)=", example, flags=re.MULTILINE))
    assert settings_read() <= listed, f"missing: {settings_read() - listed}"


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for target in re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text("utf-8")):
        assert target in targets or target in {"help"}, f"make {target}"
