"""Every optimizer through the one registry."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models.build import build as build_model
from mlhf.optimizers.registry import build
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training import checkpoint

# What each reports of a step; the paper's variant under a name of its own.
STATS = {
    "hf": ("damping", "cg_residual"),
    "hf_adam": ("damping", "cg_residual"),
    "hf_lm": ("damping", "cg_residual", "reduction_ratio"),
    "kfac": ("step_scale",),
    **dict.fromkeys(("gauss_newton", "engd_w", "spring"), ("damping", "step_length")),
    "lm": ("damping", "reduction_ratio"),
    "mlhf": ("damping", "momentum", "step_factor"),
    "mlhf paper": ("damping", "cg_residual"),
}
DECAYED = [(name, {"weight_decay": 0.1}) for name in OPTIMIZERS]
ALL = [
    *((name, {}) for name in OPTIMIZERS),
    *DECAYED,
    ("rmsprop", {"momentum": 0.9}),
    ("momentum", {"momentum": 0.0}),
    ("hf_adam", {"iterations": 1, "warm_start": 0.0}),
    *(("kfac", {"fisher": fisher}) for fisher in ("empirical", "exact")),
    ("kfac", {"factors_every": 2, "inverse_every": 3, "norm_clip": 1.0, "kl_clip": None}),
    ("kfac", {"max_dimension": 7}),
    ("shampoo", {"block_size": 3, "precondition_every": 3}),
    ("soap", {"max_dimension": 7, "precondition_every": 2}),
    ("muon", {"nesterov": False}),
    ("mlhf", {"iterations": 3, "meta_checkpoint": "none"}),
    ("mlhf", {"autocast": "bfloat16"}),
    ("mlhf", {"variant": "paper"}),
    ("mlhf", {"variant": "paper", "micro_batch": 8, "autocast": "bfloat16"}),
    *((name, {"micro_batch": 4, "curvature_batch": 8}) for name in ("hf", "hf_lm", "hf_adam")),
]


def _problem():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)),
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(10, 16, 6, generator=generator)
    y = torch.randint(0, 3, (10, 16), generator=generator)
    return model, x, y


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_specification_says_where_its_optimizer_is_built(name):
    spec = OPTIMIZERS[name]
    parameters = inspect.signature(spec.load()).parameters
    assert list(parameters) == ["model", "loss", "params", "seed"]
    assert parameters["params"].annotation is spec.params


@pytest.mark.parametrize(("name", "params"), ALL)
def test_the_loss_falls_and_results_have_the_documented_form(name, params):
    model, x, y = _problem()
    if name == "lbfgs":
        model[3].p = 0.0  # it fits a step's own mask; what that does to the next is chance
    optimizer = build(name, params, model)
    losses = []
    for _ in range(15):
        result = optimizer.step(x[0], y[0])
        assert result.loss.shape == ()
        assert not result.loss.requires_grad
        losses.append(float(result.loss))
    assert losses[-1] < losses[0]
    expected = STATS.get(f"{name} {params['variant']}" if "variant" in params else name, ())
    assert set(result.stats) == {"learning_rate", *expected}


@pytest.mark.parametrize(("name", "params"), ALL)
def test_restored_from_a_file_it_goes_on_bit_for_bit(name, params, tmp_path):
    model, x, y = _problem()
    optimizer = build(name, params, model)
    torch.manual_seed(2)
    for i in range(5):
        optimizer.step(x[i], y[i])
    path = tmp_path / "state.safetensors"
    tree = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": checkpoint.rng_state(),
    }
    checkpoint.save(path, tree)
    for i in range(5, 10):
        optimizer.step(x[i], y[i])

    torch.manual_seed(99)
    other, _, _ = _problem()
    restored = build(name, params, other)
    state = checkpoint.load(path)
    other.load_state_dict(state["model"])
    restored.load_state_dict(state["optimizer"])
    checkpoint.set_rng_state(state["rng"])
    for i in range(5, 10):
        restored.step(x[i], y[i])
    for mine, theirs in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


IN_MEMORY = [*((name, {}) for name in OPTIMIZERS), ("mlhf", {"variant": "paper"})]


@pytest.mark.parametrize(("name", "params"), IN_MEMORY)
def test_a_state_kept_in_memory_does_not_change_with_later_steps(name, params):
    model, x, y = _problem()
    optimizer = build(name, params, model)
    torch.manual_seed(2)
    for i in range(4):
        optimizer.step(x[i], y[i])
    weights, state = copy.deepcopy(model.state_dict()), optimizer.state_dict()
    rng = torch.get_rng_state()

    def three_steps_later(model, optimizer):
        torch.set_rng_state(rng)
        for i in range(4, 7):
            optimizer.step(x[i], y[i])
        return copy.deepcopy(model.state_dict())

    after = three_steps_later(model, optimizer)
    other, _, _ = _problem()
    second = build(name, params, other)
    other.load_state_dict(weights)
    second.load_state_dict(state)
    three_steps_later(other, second)  # the state is neither optimizer's
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    again = three_steps_later(model, optimizer)
    assert all(torch.equal(again[key], after[key]) for key in after)


def _numbers(value):
    if isinstance(value, torch.Tensor):
        return value.numel() if value.ndim else 0
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_numbers, value)) if isinstance(value, list) else 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_as_large_as_the_specification_says(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = build(name, {}, model)
    for _ in range(2):
        optimizer.step(torch.randn(16, 200), torch.randint(0, 10, (16,)))
    vectors = 1 + _numbers(optimizer.state_dict()) / sum(p.numel() for p in model.parameters())
    stated = OPTIMIZERS[name].state_copies
    if name in ("sgd", "momentum", "nesterov", "adam", "adamw"):
        assert vectors == pytest.approx(stated, rel=1e-3)  # nothing but state and gradient
    assert 1 <= vectors <= stated


@pytest.mark.parametrize(
    ("name", "params", "shape"),
    [
        ("mlp", {"hidden": [64]}, (784,)),  # 27 numbers a parameter, most for its first layer
        ("mlp", {"hidden": [256, 128]}, (784,)),
        ("cuda_convnet", {}, (3, 32, 32)),
        ("resnet", {}, (3, 32, 32)),
    ],
)
def test_mlhfs_state_has_room_for_a_steps_vectors_in_common_networks(name, params, shape):
    kind = "table" if len(shape) == 1 else "image"
    model = build_model(name, params, DataInfo(kind, shape, 10, "classification", 50, 10), 0)
    optimizer = build("mlhf", {}, model)
    optimizer.step(torch.randn(4, *shape), torch.arange(4))
    kept = _numbers(optimizer.state_dict()) / sum(p.numel() for p in model.parameters())
    working = 10  # the gradient, what is made of it in the basis, and the directions
    assert kept + working <= OPTIMIZERS["mlhf"].state_copies


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_taken_before_the_first_step_restores(name):
    model, x, y = _problem()
    state = build(name, {}, model).state_dict()
    optimizer = build(name, {}, model)
    optimizer.load_state_dict(state)
    optimizer.step(x[0], y[0])


def test_sgd_is_the_update_it_says():
    model, x, y = _problem()
    model.eval()
    other = copy.deepcopy(model)
    build("sgd", {"lr": 0.5, "weight_decay": 0.1}, model).step(x[0], y[0])
    F.cross_entropy(other(x[0]), y[0]).backward()
    for mine, p in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, p - 0.5 * (p.grad + 0.1 * p), atol=1e-7)


@pytest.mark.parametrize("name", ["hf", "hf_lm", "hf_adam", "mlhf"])
def test_how_a_batch_is_taken_reaches_the_optimizer(name, monkeypatch):
    from mlhf.optimizers import hessian_free
    from mlhf.optimizers.mlhf.paper import optimizer as mlhf

    calls = []
    for module in (hessian_free, mlhf):
        batch_curvature = module.batch_curvature
        monkeypatch.setattr(
            module,
            "batch_curvature",
            lambda *a, of=batch_curvature, **k: calls.append(k) or of(*a, **k),
        )
    model, x, y = _problem()
    params = {"micro_batch": 4, "curvature_batch": 8, "autocast": "bfloat16"}
    variant = {"variant": "paper"} if name == "mlhf" else {}
    build(name, {**params, **variant}, model).step(x[0], y[0])
    (call,) = calls
    assert (call["micro_batch"], call["curvature_batch"]) == (4, 8)
    assert call["autocast"] is torch.bfloat16


def test_mlhf_is_compiled_where_that_is_asked_for():
    """It reaches the optimizer, which then refuses this model for its dropout."""
    model, x, y = _problem()
    reasons = []
    for compile in (False, True):
        optimizer = build("mlhf", {"variant": "paper", "compile": compile}, model)
        optimizer.step(x[0], y[0])
        assert optimizer.inner.path == "eager"
        reasons.append(optimizer.inner.path_reason)
    assert reasons[0] == "compile is off"
    assert "random" in reasons[1]


@pytest.mark.parametrize(
    ("name", "params", "pointer"),
    [
        ("adamm", {}, "/name"),
        ("adam", {"lr": float("nan")}, "/params/lr"),
        ("adam", {"lr": -1}, "/params/lr"),
        ("adam", {"lr": "fast"}, "/params/lr"),
        ("adam", {"momentum": 0.9}, "/params/momentum"),
        ("hf", {"iterations": 0}, "/params/iterations"),
        ("hf", {"iterations": 2.5}, "/params/iterations"),
        ("hf_adam", {"beta2": 1.0}, "/params/beta2"),
        ("hf_adam", {"damping": float("inf")}, "/params/damping"),
        ("hf", {"micro_batch": 0}, "/params/micro_batch"),
        ("hf_lm", {"curvature_batch": 0}, "/params/curvature_batch"),
        ("hf_adam", {"micro_batch": 2.5}, "/params/micro_batch"),
        ("hf", {"autocast": "float16"}, "/params/autocast"),
        ("mlhf", {"autocast": True}, "/params/autocast"),
        ("mlhf", {"micro_batch": 8}, "/params"),
        ("mlhf", {"variant": "kronecker", "curvature_batch": 8}, "/params/variant"),
        ("mlhf", {"compile": True}, "/params"),
        ("mlhf", {"variant": "paper", "compile": "always"}, "/params/compile"),
    ],
)
def test_wrong_parameters_are_pointed_at(name, params, pointer):
    with pytest.raises(SpecError) as error:
        OPTIMIZERS.parse(name, params)
    assert error.value.pointer == pointer
