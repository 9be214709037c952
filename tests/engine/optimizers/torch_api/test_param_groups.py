"""Parameter groups: each option has its effect on its parameters, and on no others."""

import pytest
import torch
from torch import nn

from mlhf import MLHF, HessianFree
from mlhf.core.errors import DataError
from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt
from tests.engine.optimizers.loops import batch, network, theta


def lm(model, **options):
    return HessianFree(model, "cross_entropy", LevenbergMarquardt(), **options)


GROUPED = {"mlhf": MLHF, "hf": HessianFree, "hf_lm": lm, "kfac": Kfac, "l2l": L2L}
grouped = pytest.mark.parametrize("make", GROUPED.values(), ids=GROUPED.keys())


def weights_and_biases(model):
    named = list(model.named_parameters())
    return [
        [(n, p) for n, p in named if n.endswith("weight")],
        [(n, p) for n, p in named if n.endswith("bias")],
    ]


@grouped
def test_groups_of_equal_options_are_one_group(make):
    ends = []
    for split in (False, True):
        model = network()
        weights, biases = weights_and_biases(model)
        parameters = [{"params": weights}, {"params": biases}] if split else weights + biases
        optimizer = make(model, parameters=parameters, weight_decay=0.01, lr=0.5)
        for _ in range(5):
            optimizer.step(*batch())
        ends.append(theta(model))
    assert torch.equal(*ends)


@grouped
def test_a_rate_of_zero_holds_its_group_only(make):
    model = network()
    weights, biases = weights_and_biases(model)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = make(model, parameters=[{"params": weights}, {"params": biases, "lr": 0.0}])
    for _ in range(3):
        optimizer.step(*batch())
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == [True, False, True, False]


@grouped
def test_a_rate_scales_its_groups_step(make):
    steps = []
    for lr in (1.0, 0.5):
        model = network().double()
        weights, biases = weights_and_biases(model)
        groups = [{"params": weights}, {"params": biases, "lr": lr}]
        optimizer = make(model, parameters=groups, lr=1.0)
        before = [p.detach().clone() for p in model.parameters()]
        x, y = batch()
        optimizer.step(x.double(), y)
        steps.append([p.detach() - b for p, b in zip(model.parameters(), before, strict=True)])
    if make is Kfac:  # its step is bounded as a whole
        return
    torch.testing.assert_close(steps[1][0], steps[0][0])
    torch.testing.assert_close(steps[1][1], 0.5 * steps[0][1])


@pytest.mark.parametrize("make", [MLHF, HessianFree, lm, Kfac])
def test_decay_of_one_group_pulls_on_that_group(make):
    """Where the gradient is zero, as of a layer that is not used, only the decay is left."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = network()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    model = Net()
    groups = [
        {"params": model.used.parameters()},
        {"params": model.a.parameters(), "weight_decay": 0.5},
        {"params": model.b.parameters()},
    ]
    optimizer = make(model, parameters=groups)
    a, b = theta(model.a), theta(model.b)
    for _ in range(5):
        optimizer.step(*batch())
    assert torch.equal(theta(model.b), b)
    assert float(theta(model.a).norm()) < 0.999 * float(a.norm())


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_kronecker_model_holds_the_groups_decay_exactly(iterations):
    """The step is the minimum of the batch's own damped model with W = diag(w)."""
    from mlhf.curvature.ggn import GGN
    from mlhf.curvature.vectors import flatten, unflatten

    torch.manual_seed(0)
    model = network().double()
    weights, biases = weights_and_biases(model)
    groups = [{"params": weights, "weight_decay": 0.3}, {"params": biases, "weight_decay": 0.0}]
    optimizer = MLHF(model, meta_checkpoint=None, parameters=groups, iterations=iterations)
    x, y = batch()
    x = x.double()
    captured = {}
    solve = optimizer._solver.solve

    def spy(ggn, b, damped, first, last, penalty, step, decays):
        found = solve(ggn, b, damped, first, last, penalty, step, decays)
        captured.update(b=b, s=damped.damping, found=found, decays=decays, penalty=penalty)
        return found

    optimizer._solver.solve = spy
    parameters = list(optimizer._parameters)
    before = [p.detach().clone() for p in parameters]
    optimizer.step(x, y)
    with torch.no_grad():
        for p, value in zip(parameters, before, strict=True):
            p.copy_(value)
    ggn = GGN(model, "cross_entropy", x, y, parameters)
    w = flatten([torch.full_like(p, 0.3 if p.ndim > 1 else 0.0) for p in parameters])
    theta0 = flatten([p.detach() for p in parameters])
    expected = optimizer._basis.rotate(unflatten(flatten(ggn.gradient) + w * theta0, parameters))
    torch.testing.assert_close(captured["b"], expected)
    assert float(captured["penalty"]) == pytest.approx(float(0.5 * (w * theta0**2).sum()))
    directions, coefficients, _ = captured["found"]
    pairs = zip(coefficients, directions, strict=True)
    numbers, qs = zip(*((c, q) for c, q in pairs if bool(q.in_parameters.any())), strict=True)

    def apply(q):  # (G + S + W)q, as the flattened parameters have it
        damped = flatten(optimizer._basis.rotate_back(captured["s"] * q.in_eigenbasis))
        return (
            flatten(ggn.product(unflatten(q.in_parameters, parameters)))
            + damped
            + w * q.in_parameters
        )

    b = flatten(ggn.gradient) + w * theta0
    matrix = torch.stack([torch.stack([p.in_parameters @ apply(q) for q in qs]) for p in qs])
    minimum = torch.linalg.solve(matrix, torch.stack([q.in_parameters @ b for q in qs]))
    torch.testing.assert_close(torch.tensor(numbers), minimum, rtol=1e-3, atol=1e-6)


def test_blocks_that_are_not_rotated_have_a_diagonal():
    model = network()
    optimizer = MLHF(
        model,
        parameters=[
            {"params": model[0].parameters(), "rotate": False},
            {"params": model[2].parameters()},
        ],
    )
    assert [layer.module for layer in optimizer._basis.layers] == [model[2]]
    first = float(optimizer.step(*batch()).loss)
    for _ in range(20):
        last = float(optimizer.step(*batch()).loss)
    assert last < 0.5 * first
    optimizer.param_groups[0]["rotate"] = True
    with pytest.raises(CurvatureError, match="rotate was changed"):
        optimizer.step(*batch())


@grouped
def test_parameters_that_are_left_out_are_not_trained_here(make):
    """Another optimizer may take them, by the gradients of the same backward pass."""
    model = network()
    optimizer = make(model, parameters=model[2].parameters())
    other = torch.optim.SGD(model[0].parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    x, y = batch()
    optimizer.loss(model(x), y).backward()
    optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == [False, False, True, True]
    other.step()
    assert not torch.equal(model[0].weight, before[0])


@grouped
def test_a_group_may_be_added_on_the_way(make):
    model = network()
    for p in model[0].parameters():
        p.requires_grad_(False)
    optimizer = make(model, lr=0.5)
    for _ in range(3):
        optimizer.step(*batch())
    for p in model[0].parameters():
        p.requires_grad_(True)
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.25})
    before = model[0].weight.detach().clone()
    losses = [float(optimizer.step(*batch()).loss) for _ in range(20)]
    assert not torch.equal(model[0].weight, before)
    assert losses[-1] < losses[0]
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.25]
    with pytest.raises(CurvatureError, match="twice"):
        optimizer.add_param_group({"params": model[2].parameters()})


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"rotate": "no"}, "rotate='no'"),
        ({"damping": 3.0}, "damping is one for all parameters"),
    ],
)
def test_bad_options_of_groups_are_named(group, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        MLHF(model, parameters=[{"params": model.parameters(), **group}])


def test_bad_groups_are_named():
    model = network()
    with pytest.raises(TypeError, match="'params'"):
        MLHF(model, parameters=[{"lr": 1.0}])
    with pytest.raises(TypeError, match="set"):
        MLHF(model, parameters=[{"params": set(model.parameters())}])
    with pytest.raises(CurvatureError, match="no parameter"):
        MLHF(model, parameters=[])
    with pytest.raises(CurvatureError, match="no module of the model"):
        MLHF(model, parameters=[{"params": network().parameters()}])
    with pytest.raises(TypeError, match="iterable"):
        MLHF(model, parameters=model[0].weight)


def test_edits_of_groups_are_seen_at_the_next_step():
    model = network()
    optimizer = MLHF(model)
    optimizer.step(*batch())
    optimizer.param_groups[0]["lr"] = 0.0
    before = theta(model)
    optimizer.step(*batch())
    assert torch.equal(theta(model), before)
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr=-1\.0 of group 0"):
        optimizer.step(*batch())
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.param_groups[0]["params"].pop()
    with pytest.raises(CurvatureError, match="add_param_group"):
        optimizer.step(*batch())


def test_the_paper_variant_has_one_rate_and_decay():
    model = network()
    weights, biases = weights_and_biases(model)
    optimizer = MLHF(model, variant="paper", parameters=[{"params": weights + biases}])
    optimizer.step(*batch())
    groups = [{"params": weights}, {"params": biases, "lr": 0.1}]
    with pytest.raises(CurvatureError, match="one lr for all parameters"):
        MLHF(network(), variant="paper").__class__(model, parameters=groups).step(*batch())
    with pytest.raises(CurvatureError, match="freeze"):
        MLHF(model, variant="paper", parameters=weights)


def test_a_state_has_names_and_options_of_groups():
    model = network()
    weights, biases = weights_and_biases(model)
    groups = [{"params": weights, "lr": 0.5}, {"params": biases, "name": "no decay"}]
    optimizer = MLHF(model, parameters=groups)
    optimizer.step(*batch())
    saved = optimizer.state_dict()["param_groups"]
    assert saved[0]["param_names"] == ["0.weight", "2.weight"]
    assert saved[0]["params"] == [0, 1]
    assert saved[1]["params"] == [2, 3]
    assert (saved[0]["lr"], saved[1]["lr"], saved[1]["name"]) == (0.5, 1.0, "no decay")
    again = MLHF(network(), parameters=None)
    with pytest.raises(DataError, match="parameter groups"):
        again.load_state_dict(optimizer.state_dict())


def test_a_state_of_another_order_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    x, y = torch.randn(8, 3), torch.randint(3, (8,))
    optimizer = MLHF(model)
    optimizer.step(x, y)
    other = MLHF(model, parameters=[*model[1].parameters(), *model[0].parameters()])
    before = other.state_dict()
    with pytest.raises(DataError, match=r"another order: 0\.weight where the optimizer has 1\."):
        other.load_state_dict(optimizer.state_dict())
    assert other.state_dict()["steps"] == before["steps"] == 0
