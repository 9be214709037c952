"""Code refers to the docs by anchors that are there, not by numbers that move."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CITATION = re.compile(r"(docs/[\w./-]+\.md)#([\w-]+)")
_BY_NUMBER = re.compile(r"research\.md[,)\]\s(]+sections?\s+\d")


def _sources():
    for folder in ("engine", "app", "bench", "tests"):
        yield from (ROOT / folder).rglob("*.py")


def _anchors(document):
    """Anchors that are written out, and those that headings have by themselves."""
    text = document.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([\w-]+)"', text))


def test_every_anchor_that_code_cites_exists():
    cited = {
        (path, anchor)
        for source in _sources()
        for path, anchor in _CITATION.findall(source.read_text(encoding="utf-8"))
    }
    assert cited
    missing = [f"{p}#{a}" for p, a in sorted(cited) if a not in _anchors(ROOT / p)]
    assert missing == []


def test_code_cites_no_section_of_the_lab_book_by_number():
    found = [
        str(source.relative_to(ROOT))
        for source in _sources()
        if source != Path(__file__) and _BY_NUMBER.search(source.read_text(encoding="utf-8"))
    ]
    assert found == []
