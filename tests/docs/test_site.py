"""The documentation's site: what it shows exists. ``make docs`` builds it, strictly."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIGURATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation() -> None:
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert set(re.findall(r": ([\w/.-]+\.md)$", CONFIGURATION, re.MULTILINE)) == pages


@pytest.mark.parametrize("page", sorted(path.name for path in (DOCS / "reference").glob("*.md")))
def test_every_name_of_the_reference_exists(page: str) -> None:
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    names = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert names
    for block, name in zip(text.split("::: ")[1:], names, strict=True):
        shown = resolve_name(name)
        members = re.search(r"members: \[([^\]]+)\]", block)
        for member in members.group(1).split(", ") if members else ():
            assert hasattr(shown, member), f"{name}.{member}"


def test_every_file_that_a_guide_names_exists() -> None:
    """Links, and paths in code from the root or a package, but for those with a place to fill."""
    roots = (ROOT, ROOT / "engine", ROOT / "app" / "mlhf_service")
    guides = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    guides += [page for page in DOCS.glob("*.md") if page.name != "research.md"]
    missing = []
    for guide in guides:
        text = guide.read_text(encoding="utf-8")
        for path in re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|json|sh|md|gz))`", text):
            if not path.startswith("results/") and not any((r / path).exists() for r in roots):
                missing.append(f"{guide.name}: {path}")
        for link in re.findall(r"\]\((?!http)([\w./-]+)[)#]", text):
            if not (guide.parent / link).exists():
                missing.append(f"{guide.name}: {link}")
    assert missing == []
