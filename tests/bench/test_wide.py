"""The wide benchmark: its tasks train, runs are kept and not repeated, its numbers are right."""

import gzip
import json
import math
from pathlib import Path

import pytest

from bench.wide import looked, runner
from bench.wide.__main__ import main
from bench.wide.contenders import CONTENDERS, PEERS, contender
from bench.wide.families import FAMILIES, tasks
from bench.wide.machine import STEP_SECONDS, reference_step
from bench.wide.profiles import area, geometric_mean, ratios, share_within
from bench.wide.report import report
from bench.wide.results import best_setting, collect, fixed_setting, place_of
from bench.wide.table import Row, Table
from bench.wide.task import VERSIONS
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training.run import train

_DATA = Path(__file__).parents[3] / "shared" / "data"


def _row(name="adamw", task="unet-development", setting=0, seed=0, tuning=False, **changes):
    """Return a run whose loss falls by half from 16 samples to the next 16."""
    losses = changes.pop("losses", [1.0, 0.5, 0.25])
    seconds = changes.pop("seconds", 1.0)
    curve = [[k, 16 * k, seconds * k, loss, loss] for k, loss in enumerate(losses)]
    given = {"status": "succeeded", "reason": "budget", "code": "", "environment": {}} | changes
    params = dict(contender(name).settings[setting])
    return Row(f"{name}{task}{setting}{seed}", task, name, setting, params, seed, tuning,
               curve=curve, **given)  # fmt: skip


def test_every_family_has_a_version_that_differs_in_data_and_network():
    assert len(FAMILIES) >= 10
    for first, second in zip(tasks("development"), tasks("judged"), strict=True):
        assert first.family == second.family
        assert (first.batch_size, first.dataset, first.steps) != (
            second.batch_size,
            second.dataset,
            second.steps,
        )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_task_is_trained_by_the_engine(family, version, tmp_path):
    task = FAMILIES[family](version, "tiny")
    if task.missing(_DATA):
        pytest.skip(f"needs {', '.join(task.missing(_DATA))} in ../shared/data")
    config = task.config(_DATA, tmp_path, "adamw", {"lr": 0.003}, 0)
    ended = train(
        config.model_copy(update={"budget": config.budget.model_copy(update={"steps": 3})})
    )
    assert ended.status == "succeeded"
    assert ended.dataset.size("train") == task.train_samples
    assert math.isfinite(ended.summary["train_loss"]["last"])


@pytest.mark.parametrize("family", ["modular", "experts", "graphs", "unet", "tied-language"])
def test_the_candidate_trains_networks_of_the_wide_set(family, tmp_path):
    task = FAMILIES[family]("development", "tiny")
    if task.missing(_DATA):
        pytest.skip(f"needs {', '.join(task.missing(_DATA))} in ../shared/data")
    ended = train(task.config(_DATA, tmp_path, "mlhf", {}, 0))
    assert ended.status == "succeeded"
    losses = ended.summary["train_loss"]
    assert losses["best_step"] > 0


def test_peers_have_the_same_number_of_settings_and_all_are_known():
    for each in CONTENDERS:
        for params in each.settings:
            OPTIMIZERS.parse(each.optimizer, params)
    counts = {len(contender(name).settings) for name in PEERS}
    assert counts == {5}


def test_runs_are_kept_line_by_line_and_not_repeated(tmp_path, monkeypatch):
    calls = []

    def fake(place, wanted, config, key):
        calls.append((wanted.contender.name, wanted.setting, wanted.seed))
        loss = 0.1 * (1 + abs(wanted.setting - 1))
        row = _row(wanted.contender.name, wanted.task.name, wanted.setting, wanted.seed,
                   wanted.tuning, losses=[1.0, loss, loss / 2])  # fmt: skip
        return Row(**{**vars(row), "key": key})

    monkeypatch.setattr(runner, "_trained", fake)
    common = ["--task", "surrogate", "--size", "tiny", "--only", "adamw", "--only", "mlhf"]
    common += ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main(["tune", "--settings", "3", *common]) == 0
    assert [c[:2] for c in calls] == [("adamw", 0), ("adamw", 1), ("adamw", 2)]
    assert {c[2] for c in calls} == {runner.TUNING_SEED}
    assert main(["judge", "--seeds", "2", *common]) == 0
    assert sorted(calls[3:]) == [("adamw", 1, 0), ("adamw", 1, 1), ("mlhf", 0, 0), ("mlhf", 0, 1)]
    assert main(["judge", "--seeds", "2", *common]) == 0
    assert len(calls) == 7
    file = tmp_path / "out" / "runs.jsonl.gz"
    assert len(gzip.decompress(file.read_bytes()).splitlines()) == 7
    assert not looked.looks(tmp_path / "out")


def test_a_line_cut_short_is_left_out_and_cut_off(tmp_path):
    table = Table(tmp_path / "runs.jsonl.gz")
    table.append(_row(seed=0))
    whole = table.path.read_bytes()
    table.append(_row(seed=1, losses=[1.0, math.nan]))
    table.path.write_bytes(table.path.read_bytes()[:-5])
    assert [row.seed for row in table.rows()] == [0]
    table.append(_row(seed=2, losses=[1.0, math.nan]))
    assert [row.seed for row in table.rows()] == [0, 2]
    assert table.path.read_bytes().startswith(whole)
    assert math.isnan(table.rows()[1].measured().points[-1]["values"]["train_loss"])


def test_a_judged_task_needs_a_reason_and_each_look_is_written_down(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        runner, "_trained", lambda place, wanted, config, key: _row(task=wanted.task.name)
    )
    common = ["judge", "--version", "judged", "--size", "tiny", "--task", "surrogate"]
    common += ["--only", "mlhf", "--output", str(tmp_path), "--cache", str(tmp_path / "cache")]
    with pytest.raises(SystemExit):
        main(common)
    assert "--why" in capsys.readouterr().err
    assert main([*common, "--why", "a release"]) == 0
    (entry,) = looked.looks(tmp_path)
    assert (entry["task"], entry["why"], entry["first"]) == (
        "surrogate-judged",
        "a release",
        "mlhf",
    )
    assert entry["at"].endswith("+00:00")
    assert next(e["why"] for e in looked.looks(tmp_path)) == "a release"


def test_the_one_setting_for_all_tasks_is_chosen_on_development_versions_alone():
    rows = [
        _row(task="unet-development", setting=0, tuning=True, losses=[1.0, 0.1, 0.1]),
        _row(task="unet-development", setting=1, tuning=True, losses=[1.0, 0.2, 0.2]),
        _row(task="graphs-development", setting=0, tuning=True, losses=[1.0, 9.0, 9.0]),
        _row(task="graphs-development", setting=1, tuning=True, losses=[1.0, 0.2, 0.2]),
        _row(task="graphs-judged", setting=0, tuning=True, losses=[1.0, 1e-6, 1e-6]),
        _row(task="graphs-judged", setting=1, tuning=True, losses=[1.0, math.inf]),
    ]
    adamw = contender("adamw")
    assert best_setting(rows, "unet-development", adamw) == 0
    assert best_setting(rows, "graphs-judged", adamw) == 0
    assert fixed_setting(rows, adamw) == 1  # regrets ln 2 and 0, against 0 and ln 45
    assert fixed_setting(rows, contender("mlhf")) == 0
    assert fixed_setting([], adamw) is None


@pytest.fixture
def numbers():
    rows = [
        _row(setting=0, tuning=True),
        _row(setting=0, seed=0, losses=[1.0, 0.5, 0.25]),
        _row(setting=0, seed=1, losses=[1.0, 0.5, 0.25]),
        _row("muon", setting=2, tuning=True),
        _row("muon", setting=2, losses=[1.0, 0.25, 0.1], seconds=4.0),
        _row("soap", setting=1, tuning=True),
        _row("soap", setting=1, losses=[1.0, 0.9, 0.8]),
        _row("mlhf", losses=[1.0, 0.0625, 0.01], seconds=3.0),
    ]
    return collect(rows, "unet-development")


def test_costs_to_the_target_are_interpolated_on_log_losses(numbers):
    assert numbers.target == pytest.approx(0.25)
    assert numbers.reached("tuned", "adamw").samples.mean == pytest.approx(32)
    # Half of the way from 1 to 1/16 in logarithms.
    assert numbers.reached("tuned", "mlhf").samples.mean == pytest.approx(8)
    assert numbers.reached("tuned", "mlhf").seconds.mean == pytest.approx(1.5)
    assert numbers.reached("tuned", "muon").seconds.mean == pytest.approx(4.0)
    assert numbers.reached("tuned", "soap").missed == 1
    assert numbers.costs("tuned", "soap", "samples") == [2 * 32]
    assert place_of(numbers, "tuned", "samples", "mlhf") == 1
    assert place_of(numbers, "tuned", "seconds", "muon") == 2
    assert place_of(numbers, "tuned", "seconds", "soap") is None


def test_a_seed_of_the_reference_above_the_mean_of_its_own_seeds_took_its_whole_run():
    rows = [
        _row(setting=0, tuning=True),
        _row(setting=0, seed=0, losses=[1.0, 0.5, 0.1]),
        _row(setting=0, seed=1, losses=[1.0, 0.5, 0.4]),
        _row("soap", setting=1, tuning=True),
        _row("soap", setting=1, losses=[1.0, 0.9, 0.4], seconds=90.0),
    ]
    numbers = collect(rows, "unet-development")
    assert numbers.target == pytest.approx(0.25)
    assert numbers.reached("tuned", "adamw").missed == 0
    first, second = numbers.costs("tuned", "adamw", "samples")
    assert first < second == 32
    assert numbers.costs("tuned", "soap", "seconds") == [2 * 180.0]  # a peer's miss stays one


def test_a_miss_costs_the_same_whoever_else_ran():
    rows = [
        _row(setting=0, tuning=True),
        _row(setting=0, losses=[1.0, 0.5, 0.1]),
        _row("soap", setting=1, tuning=True),
        _row("soap", setting=1, losses=[1.0, 0.9, 0.4], seconds=5.0),
    ]
    slow = [
        _row("muon", setting=0, tuning=True),
        _row("muon", setting=0, losses=[1.0, 0.9, 0.4], seconds=900.0),
    ]
    for found in (rows, [*rows, *slow]):
        costs = collect(found, "unet-development").costs("tuned", "soap", "seconds")
        assert costs == [pytest.approx(2 * 10.0)]
    # One that has no whole run costs as the longest of the others.
    rows[3] = _row("soap", setting=1, losses=[1.0], status="diverged")
    (cost,) = collect([*rows, *slow], "unet-development").costs("tuned", "soap", "seconds")
    assert cost == pytest.approx(2 * 1800.0)


def test_seconds_of_a_slower_machine_are_divided_by_how_much_slower_it_was():
    elsewhere = {"environment": {STEP_SECONDS: 3.0}}
    rows = [
        _row(setting=0, tuning=True),
        _row(setting=0, seconds=1.5),
        _row("soap", setting=1, tuning=True),
        _row("soap", setting=1, seconds=6.0, **elsewhere),
        _row("mlhf", seconds=4.0),
    ]
    numbers = collect(rows, "unet-development")
    assert numbers.reached("tuned", "adamw").seconds.mean == pytest.approx(3.0)
    assert numbers.reached("tuned", "soap").seconds.mean == pytest.approx(6.0)
    assert numbers.reached("tuned", "soap").samples.mean == pytest.approx(32)
    assert numbers.reached("tuned", "mlhf").seconds.mean == pytest.approx(8.0)
    # Where all rows know what a step took, they are brought to its mean.
    rows[1] = _row(setting=0, seconds=1.0, environment={STEP_SECONDS: 1.0})
    numbers = collect(rows, "unet-development")
    assert numbers.reached("tuned", "adamw").seconds.mean == pytest.approx(4.0)
    assert numbers.reached("tuned", "soap").seconds.mean == pytest.approx(8.0)


def test_a_step_of_the_reference_is_timed_on_the_task(tmp_path):
    small, large = (FAMILIES[f]("development", "tiny") for f in ("full-batch", "surrogate"))
    times = [reference_step(task, tmp_path, tmp_path) for task in (small, large)]
    assert all(1e-5 < seconds < 1.0 for seconds in times)


def test_profiles_and_geometric_means(numbers):
    found = ratios([numbers], "tuned", "samples")
    task = numbers.name
    assert found["mlhf"][task] == 1
    assert found["adamw"][task] == pytest.approx(4)
    assert found["soap"][task] == math.inf
    assert share_within({"a": 1.0, "b": 3.0, "c": math.inf}, 2) == pytest.approx(1 / 3)
    # 1 all the way, half of it, nothing.
    assert area({"a": 1.0, "b": 2.5, "c": math.inf}) == pytest.approx((1 + 0.5) / 3)
    mean = geometric_mean([numbers], ("tuned", "mlhf"), ("tuned", "adamw"), "samples")
    assert (mean.mean, mean.tasks) == (pytest.approx(0.25), 1)
    assert mean.low <= mean.mean <= mean.high
    assert geometric_mean([numbers], ("tuned", "kfac"), ("tuned", "adamw"), "samples").tasks == 0


def test_a_geometric_mean_covers_the_chance_of_tasks():
    def task(factor, name):
        rows = [_row(task=name, tuning=True), _row(task=name)]
        return collect([*rows, _row("mlhf", task=name, losses=[1.0, 1.0, 0.25], seconds=factor)],
                       name)  # fmt: skip

    apart = [task(0.5, "a-development"), task(2.0, "b-development")]
    mean = geometric_mean(apart, ("tuned", "mlhf"), ("tuned", "adamw"), "seconds")
    assert mean.mean == pytest.approx(1.0)
    assert (mean.low, mean.high) == (pytest.approx(0.5), pytest.approx(2.0))


def test_the_report_says_where_the_candidate_stands(tmp_path):
    table = Table(tmp_path / "runs.jsonl.gz")
    for row in (
        _row(tuning=True, seed=1000),
        _row(),
        _row("muon", tuning=True, seed=1000),
        _row("muon", losses=[1.0, 0.25, 0.1], seconds=0.1),
        _row("mlhf", losses=[1.0, 0.0625, 0.01], seconds=3.0, code="abc"),
    ):
        table.append(row)
    report(tmp_path)
    assert "no learned part" not in (tmp_path / "report.md").read_text()
    table.append(_row("mlhf untrained", losses=[1.0, 0.25, 0.1], seconds=1.5, code="abc"))
    written = report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    # Half of a step for the one, a whole one for the other, at twice the price.
    assert "takes 0.50 (0.50 to 0.50) of its samples and 1.00 (1.00 to 1.00)" in text
    assert "| unet | 0.25 | first | 0.50 (muon) | second | 15.00 (muon) | 2 |" in text
    assert "Nobody has looked at them yet." in text
    assert text.count("abc: 1") == 2
    assert all(path.stat().st_size > 0 for path in written)


def test_the_same_run_has_the_same_key_and_code_counts_for_candidates_only(tmp_path, monkeypatch):
    task = FAMILIES["surrogate"]("development", "tiny")
    place = runner.Place(tmp_path, tmp_path, tmp_path)

    def key(name, seed=0):
        wanted = runner.Wanted(task, contender(name), 0, seed)
        return runner.key_of(wanted.config(place), wanted)

    before = {name: key(name) for name in ("adamw", "mlhf")}
    assert before["adamw"] == key("adamw") != key("adamw", 1)
    monkeypatch.setattr(runner, "code_digest", lambda: "other")
    assert key("adamw") == before["adamw"]
    assert key("mlhf") != before["mlhf"]


def test_a_run_that_counts_tells_what_a_step_of_the_reference_took(tmp_path, monkeypatch):
    taken = iter([0.001, 0.002])
    monkeypatch.setattr(runner, "reference_step", lambda task, data, cache: next(taken))
    common = ["--task", "surrogate", "--size", "tiny", "--only", "mlhf"]
    common += ["--output", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert main(["judge", "--seeds", "1", *common]) == 0
    (row,) = Table(tmp_path / "runs.jsonl.gz").rows()
    assert row.environment[STEP_SECONDS] == pytest.approx(0.0015)


def test_a_run_in_full(tmp_path):
    arguments = ["--task", "surrogate", "--size", "tiny", "--only", "adamw"]
    arguments += ["--output", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert main(["tune", "--settings", "1", *arguments]) == 0
    (row,) = Table(tmp_path / "runs.jsonl.gz").rows()
    assert row.status == "succeeded"
    assert [line[0] for line in row.curve][::25] == [0, 40]
    assert row.measured().points[-1]["values"]["train_loss"] < 0.2
    assert row.environment["parameters"] == 4801
    json.dumps(vars(row), allow_nan=False)
