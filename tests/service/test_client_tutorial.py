"""The README's program: from a CSV file to a table of compared optimizers, on a real service."""

import contextlib
import io
import random
import re
from pathlib import Path

import pytest

from tests.service.conftest import Serving

README = Path(__file__).parents[2] / "README.md"
MOST_LINES = 10


def write_flowers(path: Path, rows: int = 150) -> None:
    """A table of three kinds of flowers, told apart by their sizes."""
    draw = random.Random(1)
    lines = ["length,width,colour,species"]
    for row in range(rows):
        kind = row % 3
        length, width = 3 + kind + draw.gauss(0, 0.4), 1 + kind / 2 + draw.gauss(0, 0.2)
        colour = draw.choice(["red", "blue"])
        lines.append(f"{length:.2f},{width:.2f},{colour},{('iris', 'rose', 'tulip')[kind]}")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.long
@pytest.mark.services
def test_from_a_csv_to_compared_optimizers(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.read_text(encoding="utf-8")
    (program,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "flowers.csv" in b]
    assert len(program.strip().splitlines()) <= MOST_LINES
    serving.start("serve")
    serving.wait_until_ready()
    write_flowers(tmp_path / "flowers.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLHF_URL", serving.client.url)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    rows = printed.getvalue().splitlines()
    assert [row.split()[0] for row in rows[:4]] == ["optimizer", "adam", "hf_adam", "mlhf"]
    assert next(iter(serving.client.runs(optimizer="mlhf"))).last("test_accuracy") > 0.5
