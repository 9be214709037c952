"""References to entries of the lab book lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESEARCH = ROOT / "docs" / "research.md"
FOLDERS = ("engine", "app", "bench", "docs")


def _texts():
    yield ROOT / "README.md"
    for folder in FOLDERS:
        for suffix in ("py", "md", "cpp"):
            yield from (ROOT / folder).rglob(f"*.{suffix}")


def test_every_reference_to_the_lab_book_has_its_anchor():
    text = RESEARCH.read_text(encoding="utf-8")
    anchors = re.findall(r'<a id="([^"]+)"></a>', text)
    assert len(set(anchors)) == len(anchors) == len(re.findall(r"^## ", text, re.MULTILINE))
    used = set(re.findall(r"\]\(#([^)]+)\)", text))
    for path in _texts():
        used |= set(re.findall(r"research\.md#([\w-]+)", path.read_text(encoding="utf-8")))
    assert used
    assert used <= set(anchors)
