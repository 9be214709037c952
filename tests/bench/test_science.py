"""The bench of scientific tasks: it goes on where it stopped, and says what it measured."""

import math
import sys

import numpy as np
import pytest
import torch

from bench.science import __main__ as program
from bench.science import results as kept
from bench.science.catalogue import ALL
from bench.science.contenders import CONTENDERS, Setting, run
from bench.science.problems import cole_hopf
from bench.science.published import PUBLISHED


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


@pytest.mark.parametrize("name", ["mlhf", "gauss_newton"])
def test_without_memory_for_rows_they_take_other_steps(name):
    setting = CONTENDERS[f"{name}_matrix_free"][0]
    assert setting == Setting(name, matrix_free=True)
    ticks = iter(range(100))
    errors = [
        run("kfac_poisson2", each, 0, 2.0, clock=lambda: float(next(ticks)))[-1][2]
        for each in (setting, Setting(name))
    ]
    assert errors[0] != errors[1]


def test_published_errors_stand_beside_ours(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "run", lambda *_: [(1.0, 1, 0.0123)])
    monkeypatch.setattr(program, "warm_up", lambda _: None)
    arguments = ("--problems", "kfac_poisson5", "--contenders", "mlhf", "--seeds", "1")
    (tmp_path / "conditions.txt").write_text("On a shared machine.")
    _called(monkeypatch, tmp_path, *arguments)
    text = (tmp_path / "README.md").read_text()
    assert "KFAC* 2.7e-06" in text
    assert "On a shared machine." in text
    assert "mlhf 1.2e-02 (1e-02 to 1e-02, 1)" in text
    assert PUBLISHED["kfac_poisson5"].conditions in text


def test_burgers_solution_has_converged_and_solves_the_equation():
    nu = 0.01 / math.pi
    t, x = np.meshgrid(np.linspace(0.1, 0.9, 9), np.linspace(-0.8, 0.8, 9))
    assert np.allclose(cole_hopf(t, x, nu), cole_hopf(t, x, nu, 150), atol=1e-9)
    t, x, h, nu = np.array(0.3), np.array(0.4), 1e-3, 0.1 / math.pi
    u, u_x = cole_hopf(t, x, nu), (cole_hopf(t, x + h, nu) - cole_hopf(t, x - h, nu)) / (2 * h)
    u_t = (cole_hopf(t + h, x, nu) - cole_hopf(t - h, x, nu)) / (2 * h)
    u_xx = (cole_hopf(t, x + h, nu) + cole_hopf(t, x - h, nu) - 2 * u) / h**2
    assert abs(u_t + u * u_x - nu * u_xx) < 1e-4 * abs(u * u_x)


@pytest.mark.parametrize("problem", list(ALL))
def test_a_problem_draws_points_that_its_network_takes(problem):
    torch.manual_seed(0)
    made = ALL[problem](torch.float64)
    assert 0.1 < made.error() < 10
    points, _ = made.batch(torch.Generator().manual_seed(0))
    assert torch.isfinite(made.model(points)).all()
