"""The documentation's site: what it shows exists. ``make docs`` builds it, strictly."""

import json
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


def test_tables_are_made_of_the_code() -> None:
    from mkdocs_hooks import TABLES, layers_table, on_page_markdown, settings_table
    from mlhf_service.settings import Settings

    names = ("settings.md", "models.md", "datasets.md", "losses.md")
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in names]
    for mark in TABLES:
        assert sum(mark in page for page in pages) == 1
    shown = [on_page_markdown(page) for page in pages]
    assert not any(mark in page for mark in TABLES for page in shown)
    rows = [line for line in settings_table().splitlines() if line.startswith("| `MLHF_")]
    assert [row.split("`")[1] for row in rows] == [
        f"MLHF_{name.upper()}" for name in Settings.model_fields
    ]
    assert "| `conv2d` | `out_channels`, `kernel_size` (3)" in layers_table()


def _jobs(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```json\n(\{\n.*?)```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["tutorial.md", "models.md", "guide.md"])
def test_every_job_of_a_guide_can_be_submitted(page: str, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from mlhf_service.database import Database
    from mlhf_service.main import create_app
    from mlhf_service.migrate import migrate
    from mlhf_service.settings import Settings

    url = f"sqlite:///{tmp_path}/mlhf.sqlite3"
    migrate(Database(url))
    app = create_app(Settings(_env_file=None, data_dir=tmp_path, database_url=url))
    jobs = _jobs(page)
    assert jobs
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for job in jobs:
            params = {"validate_only": "true"}
            answer = client.post("/v1/jobs", json=json.loads(job), params=params)
            assert answer.status_code == 200, answer.text
    app.state.database.dispose()
