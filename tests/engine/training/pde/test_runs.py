"""Runs on equations."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import mlhf
from mlhf import load_model, train
from mlhf.core.errors import SpecError
from mlhf.data.pde.family import measured_points, solution_values
from mlhf.data.pde.params import PdeParams
from mlhf.models.graph.network import to_json
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training.config import TrainConfig
from mlhf.training.pde.points import Draws

POINTS = {"interior": 30, "boundary": 12}


def _config(optimizer="gauss_newton", equation=None, **fields):
    name, params = optimizer if isinstance(optimizer, tuple) else (optimizer, {})
    equation = {"points": POINTS, "test_points": 64, **(equation or {})}
    return {
        "model": {"name": "mlp", "params": {"hidden": [8], "activation": "tanh"}},
        "dataset": {"name": "pde", "params": equation},
        "optimizer": {"name": name, "params": params},
        "budget": {"steps": 6},
        "device": "cpu",
        **fields,
    }


def _weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_what_is_not_said_is_chosen_for_an_equation():
    config = TrainConfig.model_validate(_config())
    assert (config.batch_size, config.dtype) == (42, "float64")
    assert config.evaluation.every_epochs == 10
    said = TrainConfig.model_validate(_config(dtype="float32", evaluation={"every_epochs": 2}))
    assert (said.dtype, said.evaluation.every_epochs) == ("float32", 2)
    for each in (config, said):
        again = TrainConfig.model_validate(each.model_dump(mode="json", exclude_none=True))
        assert again == each
    digits = {**_config(), "dataset": {"name": "digits"}}
    assert "dtype" not in TrainConfig.model_validate(digits).model_dump()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_and_resumes_bit_for_bit(optimizer, tmp_path):
    params = {
        "kfac": {"fisher": "empirical"},
        "lbfgs": {"iterations": 3},
        "sgd": {"lr": 1e-4},
    }
    params |= {name: {"lr": 1e-4} for name in ("momentum", "nesterov")}
    run = _config((optimizer, params.get(optimizer, {})), {"resample_every": 2})
    whole = train(run)
    assert whole.status == "succeeded"
    assert np.isfinite([v["last"] for v in whole.summary.values()]).all()
    asked = iter(range(100))
    events = []
    train(run, events.append, tmp_path, should_stop=lambda: next(asked) >= 8)
    (made,) = [e for e in events if e["type"] == "checkpoint"]
    assert made["step"] == 3, "in the middle of a draw"
    resumed = train(run, events.append, tmp_path, resume=made["path"])
    assert torch.equal(_weights(resumed.model), _weights(whole.model))
    assert resumed.summary == whole.summary


@pytest.mark.parametrize(("every", "draws"), [(0, 1), (1, 4), (3, 2)])
def test_points_are_drawn_anew_every_so_many_steps(every, draws, monkeypatch):
    seen = []
    draw = Draws.draw

    def counted(self, number, sampler=None):
        if sampler is None:
            seen.append(number)
        return draw(self, number, sampler)

    monkeypatch.setattr(Draws, "draw", counted)
    train(_config("adam", {"resample_every": every}, budget={"steps": 4}))
    assert seen == list(range(draws))


def test_a_run_measures_its_error_and_leaves_a_network_and_its_solution(tmp_path):
    equation = {"equation": "heat", "domain": [-1, 3], "time": 2.0, "solution": "exp(-t)*sin(x)+2"}
    target = {"metric": "test_relative_l2", "value": 1e-2, "stop": True}
    events = []
    result = train(
        _config(equation=equation, budget={"steps": 60}, target=target), events.append, tmp_path
    )
    assert result.reason == "target"
    params = PdeParams.model_validate({**equation, "points": POINTS, "test_points": 64})
    points = measured_points(params)
    exact = solution_values(params, points)
    assert np.allclose(exact, np.exp(-points[:, 1]) * np.sin(points[:, 0]) + 2)
    found = load_model(tmp_path / "artifacts").predict(points).squeeze(1).numpy()
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error == pytest.approx(result.summary["test_relative_l2"]["last"], rel=1e-9)
    assert error < 1e-2

    held_out = Draws(params, 0).draw(-1, "uniform")
    network = load_model(tmp_path / "artifacts").module
    x, known = held_out["initial"]
    scaled = (x - torch.tensor([1.0, 1.0])) / torch.tensor([2.0, 1.0])
    part = 10 * (network(scaled).squeeze(1) - known).square().mean()
    assert 0 < part < result.summary["test_loss"]["last"] * (1 + 1e-9)

    names = {e["name"] for e in events if e["type"] == "artifact"}
    assert "solution.npz" in names
    with np.load(tmp_path / "artifacts" / "solution.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == ["x", "t"]
        u, s = arrays["u_0"], arrays["solution_0"]
        at = np.stack([arrays["x_0"][[0, 70]], arrays["y_0"][[0, 70]]], 1)
        assert u.shape == (101, 101) == s.shape
    shown = load_model(tmp_path / "artifacts").predict(at).squeeze(1).numpy()
    assert np.allclose(u[[0, 70], [0, 70]], shown, rtol=1e-12)
    document = json.loads((tmp_path / "artifacts" / "model.json").read_text())
    assert document["preprocessing"]["mean"] == [1.0, 1.0]


def test_without_a_known_solution_the_residuals_are_all_that_is_measured(tmp_path):
    equation = {"dimension": 3, "source": "10*x", "boundary": "y"}
    result = train(_config("adam", equation), run_dir=tmp_path)
    assert {"train_loss", "test_loss"} <= result.summary.keys()
    assert not any("relative" in name for name in result.summary)
    with np.load(tmp_path / "artifacts" / "solution.npz", allow_pickle=False) as arrays:
        assert "solution_0" not in arrays.files
        assert arrays["axes_1"].tolist() == [0, 1]
        assert arrays["at_0"].tolist() == [0.5, 0.5, 0.5]


def test_what_a_run_should_know_of_is_told():
    equation = {"equation": "custom", "residual": "u_xx+u_yy", "solution": "x^2"}
    events = []
    target = {"metric": "test_relative_l2", "value": 1e-7}
    train(_config("adam", equation, dtype="float32", target=target), events.append)
    told = " ".join(e["message"] for e in events if e["type"] == "log")
    assert "float32 hardly reaches test_relative_l2 1e-07" in told
    assert "does not solve the equation" in told
    events.clear()
    train(_config("adam"), events.append)
    assert not [e for e in events if e["type"] == "log"]


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        (
            {"dataset": {"name": "pde", "params": {"solution": "exp(700*x)"}}},
            "/dataset/params/solution",
            "derivative that is not finite",
        ),
        ({"batch_size": 10}, "/batch_size", "all 42 points"),
        ({"evaluation": {"max_samples": 5}}, "/evaluation", "test_points"),
        ({"target": {"metric": "test_accuracy", "value": 1}}, "/target/metric", "not measured"),
        ({"model": {"name": "mlp"}}, "/model/params/activation", "take tanh, gelu"),
        (
            {"model": {"name": "mlp", "params": {"activation": "tanh", "dropout": 0.1}}},
            "/model/params/dropout",
            "random",
        ),
        (
            {"model": {"name": "mlp", "params": {"activation": "tanh", "batch_norm": True}}},
            "/model/params/batch_norm",
            "mixes the points",
        ),
        (
            {
                "model": {
                    "name": "sequential",
                    "params": {
                        "layers": [
                            {
                                "type": "residual",
                                "layers": [{"type": "activation", "function": "relu"}],
                            },
                            {"type": "linear"},
                        ]
                    },
                }
            },
            "/model/params/layers/0/layers/0/function",
            "no second derivative",
        ),
        ({"model": {"name": "resnet"}}, "/model/name", "takes images"),
        ({"optimizer": {"name": "kfac"}}, "/optimizer/params/fisher", "take empirical"),
        (
            {"optimizer": {"name": "hf_lm", "params": {"micro_batch": 5}}},
            "/optimizer/params/micro_batch",
            "groups",
        ),
    ],
)
def test_what_does_not_fit_an_equation_is_refused(change, pointer, message):
    with pytest.raises(SpecError, match=message) as error:
        train(_config() | change)
    assert error.value.pointer == pointer


def test_first_derivatives_alone_allow_any_activation():
    relu = {"name": "mlp", "params": {"hidden": [8]}}
    result = train(_config("adam", {"equation": "advection"}, model=relu))
    assert result.status == "succeeded"


class _Traced(nn.Module):
    def __init__(self, activation, layer=None):
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 1)
        self.activation, self.layer = activation, layer or nn.Identity()

    def forward(self, x):
        return self.last(self.activation(self.layer(self.first(x)))) + x.prod(-1, keepdim=True)


def _graph(*parts):
    network = mlhf.trace(_Traced(*parts), torch.randn(3, 2))
    return {"name": "graph", "params": {"graph": to_json(network.graph)}}


def test_a_network_of_ones_own_solves_an_equation():
    result = train(_config(model=_graph(torch.sin), budget={"steps": 30}))
    assert result.summary["test_relative_l2"]["last"] < 0.05


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((torch.tanh, nn.BatchNorm1d(8)), "mixes the points"),
        ((torch.tanh, nn.Dropout(0.5)), "point by point: .* (called random operation|has Dropout)"),
    ],
)
def test_a_network_of_ones_own_that_has_no_residuals_is_refused(parts, message):
    with pytest.raises(SpecError, match=message) as error:
        train(_config(model=_graph(*parts)))
    assert error.value.pointer.startswith("/model")


def test_a_network_of_ones_own_without_second_derivatives_is_refused():
    straight = mlhf.trace(
        nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), torch.randn(3, 2)
    )
    model = {"name": "graph", "params": {"graph": to_json(straight.graph)}}
    with pytest.raises(SpecError, match="no second derivatives"):
        train(_config(model=model))
