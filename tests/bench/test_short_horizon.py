"""The table of a change over a short horizon."""

import json
import math

import pytest

from bench.short_horizon import compare, read


def test_differences_are_of_the_seeds_that_both_have(tmp_path):
    files = []
    for name, factor in (("before", 1.0), ("after", 2.0)):
        file = tmp_path / name
        lines = [
            {"task": "digits-mlp", "seed": s, "train": [1.0, factor * 10.0**-s], "test": [1, 1]}
            for s in (0, 1, 2 if factor == 1 else 3)
        ]
        lines.append({"task": "text-lstm", "seed": 0, "train": [1.0], "test": [1.0]})
        file.write_text("\n".join(map(json.dumps, lines)))
        files.append(read(file))
    _, _, row = compare(*files)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["digits-mlp", "2", f"{10**-0.5:.4g}", f"{2 * 10**-0.5:.4g}"]
    last, whole = (float(cell.split(" ± ")[0]) for cell in cells[4:])
    assert last == pytest.approx(math.log(2), abs=1e-3)
    assert whole == pytest.approx(math.log(2) / 2, abs=1e-3)
