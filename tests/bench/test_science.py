"""The bench of scientific tasks: it goes on where it stopped, and says what it measured."""

import math
import sys

import pytest
import torch

from bench.science import __main__ as program
from bench.science import results as kept
from bench.science.contenders import CONTENDERS, Setting, run
from bench.science.problems import PROBLEMS


def _called(monkeypatch, folder, *arguments):
    monkeypatch.setattr(sys, "argv", ["science", "--folder", str(folder), *arguments])
    program.main()


def test_it_goes_on_where_it_stopped(monkeypatch, tmp_path):
    calls = []

    def fake(problem, setting, seed, seconds):
        calls.append((problem, setting.name, seed, seconds))
        error = setting.params.get("lr", 1.0) * (1 + seed)
        return [(0.5, 1, 2 * error), (seconds, 2, error)]

    monkeypatch.setattr(program, "run", fake)
    monkeypatch.setattr(program, "warm_up", lambda setting: None)
    arguments = ("--problems", "burgers", "--contenders", "adam", "gauss_newton", "--seeds", "2")
    _called(monkeypatch, tmp_path, *arguments, "--most", "4")
    assert [c[2] for c in calls] == [100, 100, 100, 0]  # three rates of Adam are tuned first
    file = tmp_path / "runs.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"problem": "bur')  # killed while it wrote
    _called(monkeypatch, tmp_path, *arguments)
    assert len(calls) == 7
    best = min(s.params["lr"] for s in CONTENDERS["adam"])
    found = kept.read(file)
    counted = kept.runs(found, "burgers", "adam")
    assert [r["setting"] for r in counted if r["seconds"] == 60] == [2, 2]
    assert kept.final(counted[0]) == best
    _called(monkeypatch, tmp_path, *arguments)
    assert len(calls) == 7
    text = (tmp_path / "README.md").read_text()
    assert "| adam | **1.5e-03** (1e-03 to 2e-03, 2) |" in text
    assert "lr 0.001" in text
    assert (tmp_path / "burgers.svg").read_text().count("<svg") == 1


def test_a_run_that_diverged_counts_as_the_worst():
    curve = [(1.0, 1, math.nan)]
    assert kept.final({"curve": curve}) == math.inf


@pytest.mark.parametrize("name", ["adam", "gauss_newton", "mlhf", "lbfgs"])
def test_a_run_measures_at_ever_longer_times(name):
    first = 0.5 if name == "lbfgs" else 0.0
    ticks = iter(x for k in range(100) for x in (k, k + 0.6))
    setting = Setting(name, cosine=name == "adam", first=first)
    curve = run("surrogate", setting, 0, 2.0, clock=lambda: next(ticks))
    assert [t for t, _, _ in curve] == pytest.approx([0.6, 1.2, 1.8, 2.4][: len(curve)])
    assert curve[-1][0] >= 2.0
    assert all(0 < e < 10 for _, _, e in curve)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_a_problem_draws_points_that_its_network_takes(problem):
    torch.manual_seed(0)
    made = PROBLEMS[problem](torch.float64)
    assert 0.1 < made.error() < 10
    points, _ = made.batch(torch.Generator().manual_seed(0))
    assert torch.isfinite(made.model(points)).all()
