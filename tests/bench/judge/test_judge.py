"""The protocol from tuning to report, on a tiny task, and how its sessions add up."""

import csv
import gzip
import json
import re
import shutil

import pytest

from bench.harness.contract import Context
from bench.harness.statistics import Curve
from bench.judge import settings, time_steps
from bench.judge.__main__ import main
from bench.judge.contenders import (
    ADAMW_DEFAULTS,
    CONTENDERS,
    contender,
    names,
)
from bench.judge.lineage import overlap
from bench.judge.measures import score
from bench.judge.runs import Run, slug
from bench.judge.stages import TUNING_SEEDS, Stage, at_edge
from bench.judge.tasks import FAMILIES, tasks, transfers
from mlhf.core.process import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from mlhf.data.specs import describe
from mlhf.models.specs import summarize
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint
from mlhf.optimizers.specs import OPTIMIZERS
from tests.data_folder import root_or_skip

_TASK = tasks("tiny")[0]
_FEW = ("adamw", "sgd + momentum", "mlhf", "mlhf untrained")


def _judge(output, stage, *more, only=_FEW):
    chosen = [word for name in only for word in ("--only", name)]
    task = [] if stage in ("report", "transfer") else ["--task", _TASK.name]
    shared = ["--scale", "tiny", "--output", str(output), "--device", "cpu"]
    return main(["--stage", stage, *shared, *task, *chosen, *more])


def _context(output, **changes):
    logged = []
    return Context(output=output, seeds=(0, 1), log=logged.append, device="cpu", **changes), logged


def _results(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("result.json")}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """All stages of the protocol for a few contenders on one task."""
    output = tmp_path_factory.mktemp("judged")
    assert _judge(output, "tune") == EXIT_OK
    assert _judge(output, "time") == EXIT_OK
    assert _judge(output, "judge", "--seeds", "2") == EXIT_OK
    assert _judge(output, "horizons", "--seeds", "2") == EXIT_OK
    assert _judge(output, "stability", "--seeds", "2") == EXIT_OK
    assert _judge(output, "report", only=()) == EXIT_OK
    return output


def test_the_best_setting_by_the_criterion_is_pinned(judged):
    context, _ = _context(judged)
    for name in ("adamw", "sgd + momentum"):
        each = contender(name)
        found = [
            Run(_TASK, each, setting, TUNING_SEEDS[0], tuning=True).found(context)
            for setting in each.grid
        ]
        scores = [score(curve) for curve in found]
        pinned = settings.pinned(judged, _TASK.name, name)
        assert pinned["setting"] == each.grid[scores.index(min(scores))]
        assert pinned["score"] == pytest.approx(min(scores))
        assert pinned["settings"] == len(scores) == 9
    assert settings.pinned(judged, _TASK.name, "mlhf") is None


def test_judged_runs_use_what_is_pinned_on_other_seeds(judged):
    context, _ = _context(judged)
    setting = settings.pinned(judged, _TASK.name, "adamw")["setting"]
    for seed in (0, 1):
        run = Run(_TASK, contender("adamw"), setting, seed)
        document = json.loads((run.folder(context) / "config.json").read_text())
        assert document["optimizer"]["params"] == setting
        assert document.get("seed", 0) == seed
        curve = run.found(context)
        assert [p["epoch"] for p in curve.points] == [0, 1, 2, 3]
        assert {"train_loss", "test_loss", "test_accuracy"} <= set(curve.points[-1]["values"])
        assert "running_loss" in curve.points[-1]["values"]
        assert not (run.folder(context) / "artifacts").exists()
    assert not set(TUNING_SEEDS) & set(range(5))


def test_what_is_done_is_skipped_and_more_seeds_need_no_tuning(judged, capsys):
    before = _results(judged)
    for stage, seeds in (("tune", "1"), ("judge", "2"), ("horizons", "2"), ("stability", "2")):
        capsys.readouterr()
        assert _judge(judged, stage, "--seeds", seeds) == EXIT_OK
        assert capsys.readouterr().out == "done\n"
    assert _results(judged) == before
    # A grid that changes later changes nothing: the pinned setting is the one that is judged.
    context, logged = _context(judged)
    other = type(contender("adamw"))("adamw", "adamw", "first order", [{"lr": 1e-9}])
    assert Stage(context, _TASK, [other]).tune(1)
    assert Stage(context, _TASK, [other]).judge()
    assert (logged, _results(judged)) == ([], before)


def test_scheduled_peers_choose_a_horizon_for_each_target(judged):
    for name in ("adamw", "sgd + momentum"):
        chosen = settings.pinned(judged, _TASK.name, name)["horizons"]
        assert set(chosen) <= {"50", "75", "100"}
        for choice in chosen.values():
            assert choice["factor"] in (0.5, 1, 1.5, 2)
            assert choice["setting"] in contender(name).grid
    assert "100" in settings.pinned(judged, _TASK.name, "adamw")["horizons"]


def test_three_times_the_horizon_is_run_with_the_settings_of_the_tasks_own(judged):
    context, _ = _context(judged)
    for name in ("mlhf", "adamw"):
        setting = (settings.pinned(judged, _TASK.name, name) or {"setting": {}})["setting"]
        long = Run(_TASK.longer(3), contender(name), setting, 1).found(context)
        assert long.points[-1]["epoch"] == 9


def test_the_report_says_what_was_run_and_what_was_not(judged):
    text = (judged / "report.md").read_text()
    numbers = json.loads((judged / "numbers.json").read_text())
    assert "| rmsprop |" not in text
    assert f"not run: {', '.join(n for n in names('first order') if n not in _FEW)}" in text
    assert "| fashion-mlp | not run |" in text
    task = numbers["tasks"][_TASK.name]
    assert set(task["optimizers"]) == set(_FEW)
    context, _ = _context(judged)
    setting = settings.pinned(judged, _TASK.name, "adamw")["setting"]
    curves = [Run(_TASK, contender("adamw"), setting, s).found(context) for s in (0, 1)]
    finals = [c.points[-1]["values"]["train_loss"] for c in curves]
    assert task["targets"]["100"] == pytest.approx(sum(finals) / 2)
    assert re.search(rf"\| adamw \| .* \| 2 \| {sum(finals) / 2:.4g} ± ", text)
    second = sum(c.points[2]["values"]["train_loss"] for c in curves) / 2
    took = task["milliseconds"]["adamw"]
    cell = (
        f"{second:#.3g} / {sum(finals) / 2:#.3g} ({took['taken'][-1] / took['marks'][-1]:.1f}) [2]"
    )
    assert f"\n| adamw | {cell} |\n" in text  # beside the others
    assert f"{_TASK.name}, epochs 2 / 3 (" in text
    assert set(task["milliseconds"]) == set(_FEW)
    assert (judged / f"{_TASK.name}-seconds.png").read_bytes().startswith(b"\x89PNG")
    names_of_criteria = [a["aim"].split()[0] for a in numbers["aims"]]
    assert names_of_criteria == ["1a", "1b", "1c", "1d", "2a", "2b", "3", "4", "5"]


def test_hessian_free_peers_are_timed_once_and_before_the_others(tmp_path, monkeypatch):
    context, _ = _context(tmp_path)
    timed = []

    def milliseconds(context, run):
        timed.append(run.contender.name)
        return {"20": float(len(timed))}

    monkeypatch.setattr(time_steps, "_milliseconds", milliseconds)
    runs = [Run(_TASK, contender(name), {}, 0) for name in ("adamw", "hf fixed", "mlhf")]
    assert time_steps.measure(context, _TASK.name, runs)
    assert timed == ["hf fixed", *["adamw", "mlhf"] * 5]
    taken = {name: timing.taken for name, timing in time_steps.load(tmp_path, _TASK.name).items()}
    assert taken == {"hf fixed": [1.0], "adamw": [6.0], "mlhf": [7.0]}


def test_a_reports_table_of_curves_stands_for_its_runs(judged, tmp_path):
    shutil.copy(judged / "settings.json", tmp_path)
    table = ["--curves", str(judged / "curves.csv.gz")]
    assert _judge(tmp_path, "import", *table, only=()) == EXIT_OK
    context, logged = _context(tmp_path)
    of_before, _ = _context(judged)
    setting = settings.pinned(judged, _TASK.name, "adamw")["setting"]
    run = Run(_TASK, contender("adamw"), setting, 1)
    before, now = run.found(of_before), run.run_or_resume(context)
    assert logged == []  # it was not run again
    assert [p["step"] for p in now.points] == [p["step"] for p in before.points]
    assert (now.steps, now.result["status"]) == (before.steps, "succeeded")
    for here, there in zip(now.points, before.points, strict=True):
        assert here["samples"] == there["samples"]
        for metric in ("train_loss", "test_loss", "test_accuracy"):
            assert here["values"][metric] == pytest.approx(there["values"][metric], rel=1e-5)
    # What the candidate was depends on more than a table says.
    assert Run(_TASK, contender("mlhf"), {}, 1).found(context) is None


@pytest.mark.parametrize(
    "content",
    [b"no table", gzip.compress(b"task,loss\na,1\n", mtime=0)],
    ids=["not gzip", "other columns"],
)
def test_what_is_not_a_table_of_curves_is_refused(content, tmp_path, capsys):
    table = tmp_path / "curves.csv.gz"
    table.write_bytes(content)
    assert _judge(tmp_path, "import", "--curves", str(table)) == EXIT_FAILED
    assert str(table) in capsys.readouterr().err


def test_settings_without_their_runs_are_enough_for_horizons(judged, tmp_path):
    pinned = json.loads((judged / "settings.json").read_text())
    for found in pinned[_TASK.name].values():
        found.pop("horizons", None)
    (tmp_path / "settings.json").write_text(json.dumps(pinned))
    context, _ = _context(tmp_path)
    assert Stage(context, _TASK, [contender("adamw")], named=True).horizons(1)
    again = settings.pinned(tmp_path, _TASK.name, "adamw")
    assert "100" in again["horizons"]


def test_three_times_the_horizon_needs_no_tuned_reference(tmp_path):
    context, logged = _context(tmp_path)
    assert Stage(context, _TASK, [contender("mlhf")]).stability()
    assert not any("no target" in line for line in logged)
    assert Run(_TASK.longer(3), contender("mlhf"), {}, 0).found(context) is not None


def test_the_reports_curves_are_the_runs(judged):
    with gzip.open(judged / "curves.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    context, _ = _context(judged)
    setting = settings.pinned(judged, _TASK.name, "adamw")["setting"]
    points = Run(_TASK, contender("adamw"), setting, 1).found(context).points
    mine = [
        row
        for row in rows
        if (row["task"], row["optimizer"], row["seed"]) == (_TASK.name, "adamw", "1")
        and row["horizon"] == "1"
    ]
    assert len(mine) == len(points)
    for row, point in zip(mine, points, strict=True):
        assert float(row["samples"]) == point["samples"]
        for key in ("train_loss", "test_loss", "test_accuracy"):
            assert float(row[key]) == pytest.approx(point["values"][key], rel=1e-5)
    assert {row["optimizer"] for row in rows} == set(_FEW)


def test_a_report_of_little_is_a_report(tmp_path):
    assert _judge(tmp_path, "report", only=()) == EXIT_OK
    context, _ = _context(tmp_path)
    assert Stage(context, _TASK, [contender("mlhf")]).judge()
    assert _judge(tmp_path, "report", only=()) == EXIT_OK
    text = (tmp_path / "report.md").read_text()
    assert f"| {_TASK.name} | not run | not run: adamw |" in text
    assert "| mlhf | defaults | – | 2 |" in text


def test_a_stopped_stage_resumes(tmp_path):
    assert _judge(tmp_path, "tune", "--minutes", "0") == EXIT_INTERRUPTED
    assert not _results(tmp_path)
    asked = iter([False] * 30 + [True] * 10_000)
    context, _ = _context(tmp_path, stop=lambda: next(asked))
    assert not Stage(context, _TASK, [contender("adamw")]).tune(1)
    done = _results(tmp_path)
    assert 0 < len(done) < 9
    assert settings.load(tmp_path) == {}
    again, logged = _context(tmp_path)
    assert Stage(again, _TASK, [contender("adamw")]).tune(1)
    assert len(logged) == 9 - len(done)
    assert done.items() <= _results(tmp_path).items()


def test_who_is_not_tuned_is_left_out(tmp_path):
    context, logged = _context(tmp_path)
    assert Stage(context, _TASK, [contender("adam")]).judge()
    assert not _results(tmp_path)
    assert logged == [f"{_TASK.name}: adam is not tuned yet"] * 2


def test_a_setting_that_diverges_is_never_chosen(tmp_path):
    context, _ = _context(tmp_path)
    wild = type(contender("adamw"))("wild", "momentum", "first order", [{"lr": 1e6}, {"lr": 0.01}])
    assert Stage(context, _TASK, [wild]).tune(1)
    pinned = settings.pinned(tmp_path, _TASK.name, "wild")
    assert (pinned["setting"], pinned["diverged"], pinned["next"]) == ({"lr": 0.01}, 1, [])


def test_a_run_is_identified_by_its_configuration(tmp_path):
    context, _ = _context(tmp_path)
    one = Run(_TASK, contender("kfac"), {"lr": 0.1, "damping": 0.1}, 0).folder(context)
    assert one == Run(_TASK, contender("kfac"), {"damping": 0.1, "lr": 0.1}, 0).folder(context)
    assert one != Run(_TASK.longer(2), contender("kfac"), {"lr": 0.1, "damping": 0.1}, 0).folder(
        context
    )
    shipped = load_meta_checkpoint("default")
    next(iter(next(iter(shipped.weights.values())).values())).view(-1)[0] += 1
    shipped.save(tmp_path / "other.safetensors")
    other, _ = _context(tmp_path, meta_checkpoint=str(tmp_path / "other.safetensors"))
    mlhf, control = (Run(_TASK, contender(n), {}, 0) for n in ("mlhf", "mlhf untrained"))
    assert mlhf.folder(context) != mlhf.folder(other)
    assert control.folder(context) == control.folder(other)


def _lineage(path, *seen):
    made = load_meta_checkpoint("default")
    tasks_seen = [{"dataset": dataset, "model": model} for dataset, model in seen]
    type(made)(made.optimizer, made.weights, {"deep": {"tasks": tasks_seen}}).save(path)
    return str(path)


def test_what_meta_training_saw_is_reported(tmp_path):
    network = {"name": "mlp", "params": {"hidden": [64, 32]}}
    other = {"name": "mlp", "params": {"hidden": [8]}}
    part, whole = ({"name": "digits", "params": p} for p in ({"split": "meta"}, {}))
    path = tmp_path / "made.safetensors"
    assert overlap(_lineage(path, (part, other)), _TASK) == []
    assert overlap(_lineage(path, (whole, other)), _TASK) == ["data"]
    assert overlap(_lineage(path, (part, network)), _TASK) == ["network"]
    assert overlap("none", _TASK) == []
    assert f"lineage: {_TASK.name}: network" in _reported(tmp_path, path)
    _lineage(path, (part, other))
    assert "lineage: none of it" in _reported(tmp_path, path)


def _reported(output, path):
    assert _judge(output, "report", "--meta-checkpoint", str(path), only=()) == EXIT_OK
    return (output / "report.md").read_text()


def test_transfer_needs_no_tuning(tmp_path):
    context, _ = _context(tmp_path)
    task = transfers("tiny")[0]
    assert Stage(context, task, []).transfer()
    for name in ("mlhf", "mlhf untrained", ADAMW_DEFAULTS.name):
        assert len(list((tmp_path / "runs" / task.name / slug(name)).iterdir())) == 2


def test_all_are_tuned_by_the_same_budget():
    for each in CONTENDERS:
        assert len(each.grid) == (0 if each.category == "candidate" else 9)
        checked = [
            OPTIMIZERS.parse(each.optimizer, {**each.params, **setting}) for setting in each.grid
        ]
        assert len({c.model_dump_json() for c in checked}) == len(checked)
    assert at_edge([{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}], {"lr": 0.3}) == ["lr"]
    assert at_edge([{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}], {"lr": 0.2}) == []


_SCALES = ("tiny", "cpu", "full")
_ALL = [(scale, task) for scale in _SCALES for task in (*tasks(scale), *transfers(scale))]


@pytest.mark.parametrize("scale", _SCALES)
def test_there_are_tasks_of_every_family(scale):
    every = [*tasks(scale), *transfers(scale)]
    assert len({task.name for task in every}) == len(every)
    assert {task.family for task in tasks(scale)} == set(FAMILIES)


@pytest.mark.parametrize(("scale", "task"), _ALL, ids=lambda v: getattr(v, "name", v))
def test_a_task_keeps_from_what_meta_training_sees(scale, task):
    assert task.spec.dataset.params["split"] == "compare"
    if scale == "cpu":
        small = task.family == "mlp"
        assert task.epochs >= (40 if small else 12 if task.kind != "judged" else 20)


@pytest.mark.data
@pytest.mark.parametrize(("scale", "task"), _ALL, ids=lambda v: getattr(v, "name", v))
def test_a_task_fits_its_data(scale, task):
    data, model = task.spec.dataset, task.spec.model
    info = describe(data.name, data.params, root_or_skip(data.name))
    assert summarize(model.name, model.params, info).parameters > 1000
    assert info.train_samples >= task.spec.batch_size


def test_curves_are_of_the_judged_task_alone(judged):
    context, _ = _context(judged)
    assert isinstance(Run(_TASK, contender("mlhf"), {}, 0).found(context), Curve)
    assert Run(tasks("tiny")[1], contender("mlhf"), {}, 0).found(context) is None
