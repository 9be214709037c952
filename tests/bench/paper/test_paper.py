"""Experiments finish, skip finished runs, resume where they stopped, and report."""

import csv
import json
from dataclasses import replace

import pytest

from bench.harness.configs import identity, train_config
from bench.harness.contract import Context, Setting
from bench.harness.runs import read_curve, read_result
from bench.harness.statistics import Curve, reached
from bench.paper.__main__ import main
from bench.paper.comparison import TUNING_SEED, Comparison
from bench.paper.experiments import (
    EXPERIMENTS,
    experiment,
    experiment1,
    experiment3,
)
from mlhf.ablation.statistics import summarize
from mlhf.core.errors import DataError
from mlhf.core.process import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint
from tests.data_folder import root_or_skip

_TASK = experiment1("tiny").task
_FEW = Comparison(
    "few",
    _TASK,
    [Setting("adam", "adam", grid=[{"lr": 1e-9}, {"lr": 0.01}]), Setting("hf_adam", "hf_adam")],
)


class _After:
    """Says stop once it was asked more than ``count`` times."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        return self.left < 0


def _context(output, **changes):
    logged = []
    return Context(output=output, seeds=(0, 1), log=logged.append, device="cpu", **changes), logged


def _strip(points):
    return [
        {k: v for k, v in p.items() if k not in ("wall_seconds", "cpu_seconds")} for p in points
    ]


def _rows(folder):
    return list(csv.DictReader((folder / "table.csv").read_text().splitlines()))


def _files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_comparison_tunes_judges_reports_and_skips_what_is_done(tmp_path):
    context, logged = _context(tmp_path)
    assert _FEW.run(context)
    assert len(logged) == 2 + 2 + 2  # a grid of two on the tuning seed, then two seeds each
    runs = sorted(p.parent.relative_to(tmp_path / "runs") for p in tmp_path.rglob("result.json"))
    # The rate that learns nothing is only tried on the tuning seed.
    assert [str(p) for p in runs] == [
        "adam/lr=0.01-seed=0",
        "adam/lr=0.01-seed=1",
        f"adam/lr=0.01-seed={TUNING_SEED}",
        f"adam/lr=1e-09-seed={TUNING_SEED}",
        "hf_adam/seed=0",
        "hf_adam/seed=1",
    ]
    before = _files(tmp_path)
    logged.clear()
    assert _FEW.run(context)
    assert (logged, _files(tmp_path)) == ([], before)

    written = {p.name for p in _FEW.report(context)}
    assert written == {"table.md", "table.csv", "samples.png", "seconds.png"}
    rows = {r["optimizer"]: r for r in _rows(tmp_path)}
    finals = [
        read_curve(tmp_path / "runs" / "adam" / f"lr=0.01-seed={seed}")[-1]["values"]["train_loss"]
        for seed in (0, 1)
    ]
    assert rows["adam"]["final training loss"].startswith(f"{sum(finals) / 2:.4f} (")
    assert rows["adam"]["parameters"] == "lr=0.01"
    assert rows["hf_adam"]["samples to target"] != "missed"
    assert "| adam | lr=0.01 | 64 | 2 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("stops", [0, 12])
def test_a_stopped_comparison_resumes_to_the_same_result(tmp_path, stops):
    whole, _ = _context(tmp_path / "whole")
    assert _FEW.run(whole)
    cut, _ = _context(tmp_path / "cut", stop=_After(stops))
    assert not _FEW.run(cut)
    _FEW.report(cut)  # of what is done, and be it nothing
    done = _files(tmp_path / "cut" / "runs") if stops else {}
    again, _ = _context(tmp_path / "cut")
    assert _FEW.run(again)
    assert all(p.stat().st_mtime_ns == t for p, t in done.items() if p.name == "result.json")
    for folder in (p.parent for p in (tmp_path / "whole").rglob("result.json")):
        other = tmp_path / "cut" / folder.relative_to(tmp_path / "whole")
        assert _strip(read_curve(folder)) == _strip(read_curve(other))
        assert read_result(folder)["summary"] == read_result(other)["summary"]
        assert not (other / "checkpoints").exists()


def test_a_stopped_trajectory_resumes_to_the_same_curve(tmp_path):
    ablation = experiment3("tiny")
    whole, _ = _context(tmp_path / "whole")
    assert ablation.run(whole)
    cut, _ = _context(tmp_path / "cut", stop=_After(7))  # asked twice before and once a step
    assert not ablation.run(cut)
    checkpoints = list((tmp_path / "cut").rglob("step-*.safetensors"))
    steps = [int(p.stem.removeprefix("step-")) for p in checkpoints]
    assert any(0 < step < 4 for step in steps), "it was not stopped on its way"
    again, _ = _context(tmp_path / "cut")
    assert ablation.run(again)
    for seed in (0, 1):
        one, two = (
            read_curve(tmp_path / w / f"runs/mlp-digits/seed={seed}") for w in ("whole", "cut")
        )
        assert _strip(one) == _strip(two)
    ablation.report(again)
    rows = _rows(tmp_path / "cut")
    assert [r["form"] for r in rows] == [variant.name for variant in ablation.variants]
    curve = read_curve(tmp_path / "cut/runs/mlp-digits/seed=0")
    mine = [p["values"]["l_p/(4) RNN_p, 4"] for p in curve if "batch_loss" in p["values"]]
    assert len(mine) == int(rows[0]["steps"]) == 4
    lowest, highest = rows[3]["mean l_p"].split("(")[1].rstrip(")").split(" to ")
    assert f"{sum(mine) / 4:.4f}" in (lowest, highest)  # with two seeds each is one of them


def test_another_configuration_in_the_folder_is_refused(tmp_path):
    context, _ = _context(tmp_path, only=["hf_adam"])
    assert _FEW.run(context)
    other = Comparison("other", _TASK, [Setting("hf_adam", "hf_adam", {"damping": 3.0})])
    with pytest.raises(DataError, match="another configuration"):
        other.run(context)


def test_a_diverged_run_is_no_choice_and_no_mean(tmp_path):
    grid = [{"lr": 1e6}, {"lr": 0.01}]
    wild = Comparison(
        "wild", _TASK, [Setting("s", "momentum", grid=grid), Setting("w", "momentum", {"lr": 1e6})]
    )
    context, _ = _context(tmp_path)
    assert wild.run(context)
    wild.report(context)
    rows = {r["optimizer"]: r for r in _rows(tmp_path)}
    assert rows["s"]["parameters"] == "lr=0.01"
    assert rows["w"]["final training loss"] == "diverged (2 of 2)"


def test_the_command_runs_stops_and_resumes(tmp_path, capsys):
    arguments = ["experiment1", "--scale", "tiny", "--output", str(tmp_path)]
    arguments += ["--seeds", "1", "--only", "hf", "--device", "cpu"]
    assert main([*arguments, "--minutes", "0"]) == EXIT_INTERRUPTED
    assert not list(tmp_path.rglob("result.json"))
    assert main(arguments) == EXIT_OK
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["environment"]["seed"] == 0
    assert "| hf |" in (tmp_path / "table.md").read_text()
    capsys.readouterr()
    assert main(["--list"]) == EXIT_OK
    listed = capsys.readouterr().out
    assert all(name in listed for name in EXPERIMENTS)
    with pytest.raises(SystemExit):
        main([*arguments, "--only", "nobody"])


@pytest.mark.data
@pytest.mark.parametrize("scale", ["cpu", "full"])
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_each_scale_fits_its_data(name, scale, tmp_path):
    """What a GPU machine would run is checked as far as a step's shapes go."""
    from mlhf.data.specs import describe
    from mlhf.models.specs import summarize as summarize_model

    chosen = experiment(name, scale)
    tasks = chosen.tasks if name == "experiment3" else [chosen.task]
    for task in tasks:
        info = describe(task.dataset.name, task.dataset.params, root_or_skip(task.dataset.name))
        assert summarize_model(task.model.name, task.model.params, info).parameters > 1000
        if scale == "full":
            assert (info.train_samples, info.input_shape) == (20_000, (3, 32, 32))
            assert task.budget.epochs == 250


_RECIPE = {
    "kind": "meta_train",
    "name": "tiny",
    "tasks": [
        {
            "model": {"name": "mlp", "params": {"hidden": [8]}},
            "dataset": {"name": "digits", "params": {"train_samples": 128}},
            "batch_sizes": [32],
        }
    ],
    "variant": "paper",
    "iterations": 3,
    "unroll": 2,
}


def test_one_command_meta_trains_first_and_resumes_elsewhere(tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(_RECIPE))
    here, there = tmp_path / "here", tmp_path / "there"
    arguments = ["experiment1", "--scale", "tiny", "--seeds", "1", "--only", "mlhf"]
    arguments += ["--device", "cpu", "--meta-train", str(recipe)]
    assert main([*arguments, "--output", str(here), "--minutes", "0"]) == EXIT_INTERRUPTED
    assert main([*arguments, "--output", str(here)]) == EXIT_OK
    made = load_meta_checkpoint(here / "meta/artifacts/meta_checkpoint.safetensors", "mlhf_paper")
    assert made.lineage["iterations"] == 3
    losses = read_curve(here / "runs/mlhf/seed=0")[-1]["values"]["train_loss"]
    here.rename(there)  # a machine that was lent is not the next one
    before = _files(there / "runs"), _files(there / "meta")
    assert main([*arguments, "--output", str(there)]) == EXIT_OK
    assert (_files(there / "runs"), _files(there / "meta")) == before
    shipped = tmp_path / "shipped"
    assert main([*arguments[:-2], "--output", str(shipped)]) == EXIT_OK
    assert read_curve(shipped / "runs/mlhf/seed=0")[-1]["values"]["train_loss"] != losses


def test_a_recipe_that_is_none_is_refused(tmp_path, capsys):
    for text in ("{", "[]", '{"kind": "train"}', '{"kind": "meta_train", "tasks": []}'):
        (tmp_path / "recipe.json").write_text(text)
        arguments = ["experiment1", "--scale", "tiny", "--output", str(tmp_path / "out")]
        assert main([*arguments, "--meta-train", str(tmp_path / "recipe.json")]) == EXIT_FAILED
        assert "meta_train job" in capsys.readouterr().err


def test_a_recipe_whose_checkpoint_would_be_refused_is_refused_before(tmp_path, capsys):
    recipe, out = tmp_path / "recipe.json", tmp_path / "out"
    recipe.write_text(json.dumps({k: v for k, v in _RECIPE.items() if k in ("kind", "tasks")}))
    arguments = ["experiment1", "--scale", "tiny", "--output", str(out)]
    assert main([*arguments, "--meta-train", str(recipe)]) == EXIT_FAILED
    assert '"variant": "paper"' in capsys.readouterr().err
    assert not (out / "meta").exists()


def test_a_runs_identity_is_what_was_learned_not_where_it_lies(tmp_path):
    task, shipped = _TASK, load_meta_checkpoint("default")
    shipped.save(tmp_path / "copy.safetensors")
    shipped.weights["damping"]["kinds"][0] += 1
    shipped.save(tmp_path / "other.safetensors")

    def of(name, data=None, params=()):
        context, _ = _context(tmp_path, meta_checkpoint=str(name), data=data)
        return identity(train_config(context, task, "mlhf", dict(params), 0))

    assert of("default") == of(tmp_path / "copy.safetensors") == of("default", tmp_path)
    assert of("default") != of(tmp_path / "other.safetensors")
    assert of("default") != of("none") == of("default", params={"meta_checkpoint": "none"})
    context, _ = _context(tmp_path)
    assert identity(train_config(context, task, "adam", {}, 0))["optimizer"]["params"] == {}
    cifar = experiment1("cpu").task
    here, there = (_context(tmp_path, data=tmp_path / f)[0] for f in ("a", "b"))
    assert train_config(here, cifar, "adam", {}, 0).dataset.root == str(tmp_path / "a/cifar10")
    a, b = (identity(train_config(c, cifar, "adam", {}, 0)) for c in (here, there))
    assert a == b


def test_a_setting_trains_with_its_own_batch(tmp_path):
    own = Setting("own", "adam", batch_size=32)
    two = Comparison("two", _TASK, [own, Setting("the task's", "adam")])
    context = replace(_context(tmp_path)[0], seeds=(0,))
    assert two.run(context)
    two.report(context)

    def read(name, file):
        return json.loads((tmp_path / "runs" / name / "seed=0" / file).read_text())

    names = ("own", "the task's")
    assert [read(name, "config.json")["batch_size"] for name in names] == [32, 64]
    steps = [read(name, "result.json")["totals"]["steps"] for name in names]
    assert steps == [16, 8]  # two epochs of 256 samples
    assert [row["batch"] for row in _rows(tmp_path)] == ["32", "64"]


def test_statistics():
    points = [
        {"samples": s, "values": {"train_loss": v}} for s, v in ((0, 2.0), (8, 1.0), (16, 0.5))
    ]
    curve = Curve(points, {"status": "succeeded", "totals": {"wall_seconds": 1, "steps": 2}})
    assert curve.mean("train_loss") == 0.75
    assert reached(curve, 1.0)["samples"] == 8
    assert reached(curve, 0.1) is None
    assert summarize([1.0, 3.0], 1) == "2.0 (1.0 to 3.0)"
    assert summarize([1.0, float("nan")]) == "diverged (1 of 2)"
