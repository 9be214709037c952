"""The examples of the page on science run, and reach what they are shown for."""

import json
import re
from pathlib import Path

import pytest
import torch

from mlhf import train

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "science.md").read_text(encoding="utf-8")
JOBS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def _run(code):
    names = {"__name__": "example"}
    exec(compile(code, "science.md", "exec"), names)
    return names


@pytest.mark.usefixtures("default_dtype")
def test_the_network_solves_its_equation():
    # A third of the steps and points; the whole takes some ten seconds.
    code = EXAMPLES[0].replace("range(30)", "range(12)").replace("rand(300, 2)", "rand(100, 2)")
    names = _run(code)
    assert names["error"] < 0.5


@pytest.mark.usefixtures("default_dtype")
def test_causal_weights_fall_with_time():
    names = _run(EXAMPLES[1].replace("range(20)", "range(10)"))
    assert names["result"].loss < 1e-2
    weights = names["causal"](torch.rand(50, 2), 1e6)
    assert weights[0] == 1
    assert bool((weights.diff() <= 0).all())
    assert weights[-1] < 1


@pytest.mark.usefixtures("default_dtype")
def test_the_surrogate_fits():
    assert _run(EXAMPLES[2])["result"].loss < 1e-4


@pytest.mark.usefixtures("default_dtype")
def test_the_state_reaches_the_ground_states_energy():
    names = _run(EXAMPLES[3])
    h = torch.diag(names["diagonal"])
    for i in range(names["N"]):
        h[torch.arange(len(h)), names["flips"][:, i]] -= 1
    exact = torch.linalg.eigvalsh(h)[0]
    assert (names["result"].loss - exact) / exact.abs() < 1e-3


@pytest.mark.parametrize("number", range(len(JOBS)))
def test_jobs_train(number):
    """Every job of the page with each of its optimizers, for a few steps on few points."""
    job = {k: v for k, v in JOBS[number].items() if k not in ("kind", "optimizer", "seeds")}
    optimizers = job.pop("optimizers", None) or [JOBS[number]["optimizer"]]
    data = job["dataset"]["params"]
    if job["dataset"]["name"] == "pde":
        data |= {"points": {"interior": 40, "boundary": 20}, "test_points": 100}
    else:
        data |= {"train_samples": 100, "test_samples": 100}
        job["batch_size"] = 100
    job["model"]["params"]["hidden"] = [8]
    for optimizer in optimizers:
        fast = optimizer["name"] in ("gauss_newton", "lm", "lbfgs")
        run = {**job, "optimizer": optimizer, "budget": {"steps": 15}, "device": "cpu"}
        result = train({**run, "evaluation": {"every_epochs": 15}})
        assert result.status == "succeeded"
        assert result.summary["test_relative_l2"]["best"] < (0.7 if fast else 2)
