"""Experiment 3: its variants are the paper's, and its table and figure say what was measured."""

import csv
import json
import math
import random
import subprocess
import sys

import pytest
from PIL import Image

from bench.harness.contract import Context
from bench.paper.experiments import experiment3
from mlhf.ablation.config import (
    MEASURES,
    SOLVER_VARIANTS,
    STEPPING,
    SolverVariant,
)
from mlhf.ablation.report import Trajectory, panels, rows
from mlhf.ablation.run import ablate
from mlhf.core.errors import SpecError
from mlhf.core.events import encode
from tests.waiting import DEADLINE

CONFIG = {
    "task": "digits",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "digits", "params": {"train_samples": 128}},
    "optimizer": {"name": "mlhf", "params": {"variant": "paper", "meta_checkpoint": "none"}},
    "budget": {"steps": 5},
    "batch_size": 32,
    "device": "cpu",
    "threads": 1,
}


def test_the_variants_are_the_papers_four_and_their_controls():
    # Section 6.3: (1) no RNN_p, 20 iterations; (2) no RNN_p, 4; (3) RNN_p, 2; (4) RNN_p, 4.
    assert [(f.matrix, f.preconditioner, f.iterations) for f in SOLVER_VARIANTS[:4]] == [
        ("learned", "none", 20),
        ("learned", "none", 4),
        ("learned", "learned", 2),
        ("learned", "learned", 4),
    ]
    assert [f.name for f in SOLVER_VARIANTS[:4]] == [
        "(1) no RNN_p, 20",
        "(2) no RNN_p, 4",
        "(3) RNN_p, 2",
        "(4) RNN_p, 4",
    ]
    assert [(f.matrix, f.preconditioner, f.iterations) for f in SOLVER_VARIANTS[4:]] == [
        ("learned", "damping", 2),
        ("learned", "damping", 4),
        ("adam", "none", 20),
        ("adam", "none", 4),
        ("adam", "damping", 2),
        ("adam", "damping", 4),
    ]
    assert SOLVER_VARIANTS[3].name == STEPPING
    assert experiment3("cpu").variants == experiment3("full").variants == SOLVER_VARIANTS


def _write_run(folder, seed, steps, status="succeeded"):
    """Leave what a run of the command leaves, with values drawn at random."""
    draw = random.Random(seed).uniform
    folder.mkdir(parents=True)
    lines = []
    for step in range(steps + 1):
        at = {"step": step, "samples": 64 * step, "epoch": step / 4, "wall_seconds": 0.1 * step}
        if step:
            solves = {f"l_p/{f.name}": draw(-2, -0.1) for f in SOLVER_VARIANTS}
            solves |= {f"residual/{f.name}": draw(0, 1) for f in SOLVER_VARIANTS}
            lines.append({**at, "values": {"batch_loss": draw(0, 3), **solves}})
        if step % 4 == 0:  # an evaluation measures no solve
            lines.append({**at, "values": {"train_loss": draw(0, 3)}})
    (folder / "curve.jsonl").write_bytes(b"".join(map(encode, lines)))
    (folder / "result.json").write_text(json.dumps({"status": status}))


def _told(folder, name):
    points = [json.loads(line)["values"] for line in (folder / "curve.jsonl").open()]
    return [values[name] for values in points if name in values]


def _cell(values, digits):
    middle = sum(values) / len(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def test_the_report_is_of_what_the_curves_say(tmp_path):
    folders = [tmp_path / f"runs/mlp-digits/seed={seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        _write_run(folder, seed, 8)
    context = Context(output=tmp_path, seeds=(0, 1), device="cpu")
    written = experiment3("tiny").report(context)
    assert [p.name for p in written] == ["table.md", "table.csv", "mlp-digits.png"]

    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["form"] for row in table] == [variant.name for variant in SOLVER_VARIANTS]
    longest = {"learned": "(1) no RNN_p, 20", "adam": "hf_adam: P = 1, 20"}
    for row, variant in zip(table, SOLVER_VARIANTS, strict=True):
        l_p = [_told(folder, f"l_p/{variant.name}") for folder in folders]
        most = [_told(folder, f"l_p/{longest[variant.matrix]}") for folder in folders]
        residual = [_told(folder, f"residual/{variant.name}") for folder in folders]
        parts = [
            [a / b for a, b in zip(*pair, strict=True)] for pair in zip(l_p, most, strict=True)
        ]
        assert (row["task"], row["damping"]) == ("mlp-digits", variant.matrix)
        assert (row["seeds"], row["steps"]) == ("2", "8")
        assert row["mean l_p"] == _cell([sum(v) / 8 for v in l_p], 4)
        assert row["part of the longest solve's"] == _cell([sum(v) / 8 for v in parts], 3)
        assert row["mean ‖r‖/‖b‖"] == _cell([sum(v) / 8 for v in residual], 3)
        cells = [str(value) for value in row.values()]
        assert f"| {' | '.join(cells)} |" in (tmp_path / "table.md").read_text().splitlines()

    with Image.open(tmp_path / "mlp-digits.png") as figure:
        assert figure.format == "PNG"
        assert figure.size == (1050, 620)  # two dampings by two measures
        left = figure.convert("RGB").crop((0, 0, 400, 620))  # panels without their legend
        coloured = [n for n, rgb in left.getcolors(10**6) if max(rgb) - min(rgb) > 60]
        assert sum(coloured) > 1000, "no lines"


def test_the_figures_lines_are_means_over_seeds_and_neighbours():
    variant = SolverVariant("f", "learned", "none", 2)
    one, two = (
        Trajectory.of(
            [64.0 * k for k in range(1, 101)],
            {"l_p/f": [-scale * k for k in range(100)], "residual/f": [scale] * 100},
            variants=[variant],
        )
        for scale in (1.0, 3.0)
    )
    ((l_p, residual),) = panels("t", [one, two], [variant])
    assert l_p[:2] == ("t: Ĝ damped by RNN_s", "l_p")
    assert residual[:2] == ("t: Ĝ damped by RNN_s", "‖r‖/‖b‖")
    ((name, xs, ys),) = l_p[2]
    assert name == "f"
    assert xs == [64.0 * (2 * k + 1.5) for k in range(50)]  # two steps a bin
    assert ys == [-2.0 * (2 * k + 0.5) for k in range(50)]
    assert residual[2][0][2] == [2.0] * 50


def test_a_seed_that_diverged_is_told_and_not_drawn(tmp_path):
    _write_run(tmp_path / "runs/mlp-digits/seed=0", 0, 8)
    _write_run(tmp_path / "runs/mlp-digits/seed=1", 1, 3, status="diverged")
    context = Context(output=tmp_path, seeds=(0, 1), device="cpu")
    assert len(experiment3("tiny").report(context)) == 3
    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    for column in ("mean l_p", "part of the longest solve's", "mean ‖r‖/‖b‖"):
        assert {row[column] for row in table} == {"diverged (1 of 2)"}
    variant = SolverVariant("f", "learned", "none", 2)
    values = {"l_p/f": [-1.0, -3.0], "residual/f": [0.5, 0.5]}
    fine = Trajectory.of([1.0, 2.0], values, variants=[variant])
    lost = Trajectory.of([1.0], {"l_p/f": [-9.0], "residual/f": [9.0]}, True, [variant])
    assert panels("t", [fine, lost], [variant]) == panels("t", [fine], [variant])
    assert panels("t", [fine], [variant])[0][0][2] == [("f", [1.0, 2.0], [-1.0, -3.0])]


def test_a_trajectory_survives_its_way_through_json():
    variant = SolverVariant("f", "learned", "none", 2)
    values = {"l_p/f": [-1.0, math.inf], "residual/f": [0.5, math.nan]}
    for diverged in (False, True):
        made = Trajectory.of([1.0, 2.0], values, diverged, [variant])
        again = Trajectory.from_dict(json.loads(encode(vars(made))))
        assert repr(again) == repr(made)  # NaN equals nothing, but is written alike
        assert rows("t", [again], [variant]) == rows("t", [made], [variant])


def _points(events):
    return [
        {k: v for k, v in point.items() if k not in ("wall_seconds", "cpu_seconds")}
        for told in events
        if told["type"] == "points"
        for point in told["points"]
    ]


def _after(count):
    asked = iter(range(10**9))
    return lambda: next(asked) >= count


def test_a_job_tells_all_the_service_needs_and_goes_on_where_it_stopped(tmp_path):
    whole, first, second = [], [], []
    done = ablate(CONFIG, whole.append, tmp_path / "whole")
    assert (done.status, done.totals["steps"]) == ("succeeded", 5)
    assert [told["type"] for told in whole if told["type"] not in ("points", "progress")] == [
        "started",
        "finished",
    ]
    assert (whole[0]["total_steps"], whole[0]["resumed_from_step"]) == (5, 0)
    assert whole[0]["environment"]["data_digest"]
    assert whole[0]["data"]["train_samples"] == 128
    steps = [point["values"] for point in _points(whole) if "batch_loss" in point["values"]]
    assert len(steps) == 5
    wanted = {variant.metric(measure) for variant in SOLVER_VARIANTS for measure in MEASURES}
    assert len(wanted) == 20
    assert all(wanted <= set(values) for values in steps)
    assert {"l_p_1_no_rnn_p_20", "residual_4_rnn_p_4", "l_p_hf_adam_p_1_s_2"} <= wanted
    # The longest solve is the best one, and leaves the least.
    for values in steps:
        assert values["l_p_1_no_rnn_p_20"] <= values["l_p_2_no_rnn_p_4"] < 0
        assert values["residual_1_no_rnn_p_20"] < values["residual_2_no_rnn_p_4"]

    cut = ablate(CONFIG, first.append, tmp_path, should_stop=_after(6))
    assert (cut.status, first[-1]["type"]) == ("interrupted", "interrupted")
    (saved,) = [told for told in first if told["type"] == "checkpoint"]
    assert 0 < saved["step"] < 5
    rest = ablate(CONFIG, second.append, tmp_path, resume=saved["path"])
    assert rest.status == "succeeded"
    assert second[0]["resumed_from_step"] == saved["step"]
    assert _points(first) + _points(second) == _points(whole)


def test_untrained_networks_are_others_than_the_shipped_ones(tmp_path):
    told = {}
    for name in ("none", "default"):
        params = {"variant": "paper", "meta_checkpoint": name}
        config = {**CONFIG, "optimizer": {"name": "mlhf", "params": params}}
        events = []
        ablate({**config, "budget": {"steps": 1}}, events.append, tmp_path)
        (told[name],) = [p["values"] for p in _points(events) if "batch_loss" in p["values"]]
    none, default = told["none"], told["default"]
    for learned in ("l_p_1_no_rnn_p_20", "l_p_4_rnn_p_4"):
        assert none[learned] != default[learned]
    assert none["l_p_hf_adam_p_1_20"] == default["l_p_hf_adam_p_1_20"]  # nothing is learned there


@pytest.mark.slow
def test_the_trainer_process_runs_it(tmp_path):
    run = {"kind": "ablation", "config": CONFIG, "resume": None}
    (tmp_path / "run.json").write_text(json.dumps(run))
    command = [sys.executable, "-m", "mlhf.runner", str(tmp_path)]
    subprocess.run(command, check=True, timeout=DEADLINE)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").open()]
    assert events[-1]["status"] == "succeeded"
    assert any("l_p_4_rnn_p_4" in point["values"] for point in _points(events))


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [({"task": None}, "/task"), ({"batch_size": 0}, "/batch_size"), ({"forms": []}, "/forms")],
)
def test_a_configuration_that_cannot_be_run_is_a_spec_error(changes, pointer, tmp_path):
    with pytest.raises(SpecError) as caught:
        ablate({**CONFIG, **changes}, lambda _: None, tmp_path)
    assert caught.value.pointer == pointer
