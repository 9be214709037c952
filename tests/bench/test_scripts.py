"""Each script of bench/ starts as its documentation says, and patches names that exist."""

import importlib
import sys
from pathlib import Path

import pytest

import bench
from bench import kronecker_ablation

SCRIPTS = sorted(
    path.stem
    for path in Path(bench.__file__).parent.glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    "name",
    [
        *SCRIPTS,
        "faults.__main__",
        "foreign.__main__",
        "generality.__main__",
        "judge.__main__",
        "paper.__main__",
        "science.__main__",
    ],
)
def test_a_script_says_how_it_is_run(name, monkeypatch, capsys):
    module = importlib.import_module(f"bench.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert f"python -m bench.{name.removesuffix('.__main__')}" in capsys.readouterr().out


def test_what_the_ablation_replaces_is_there():
    places = [place for part in kronecker_ablation.PARTS.values() for place in part if "." in place]
    assert places
    for place in places:
        owner, name = place.split(".")
        assert hasattr(kronecker_ablation.OWNERS[owner], name), place
