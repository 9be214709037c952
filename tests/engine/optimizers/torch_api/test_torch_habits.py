"""What users of ``torch.optim`` do with an optimizer, done with ours."""

import copy
import gc
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from mlhf import MLHF, HessianFree
from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from tests.engine.optimizers.loops import OPTIMIZERS, batch, network, theta

ALL = {**OPTIMIZERS, "l2l": L2L}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


def plain_step(model, optimizer):
    x, y = batch()
    optimizer.zero_grad()
    loss = optimizer.loss(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@every
def test_it_is_an_optimizer_of_torch(make):
    model = network()
    optimizer = make(model)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in model.parameters()
    }
    assert "Parameter Group 0" in repr(optimizer)
    assert not optimizer.state


def test_torchs_compiler_is_not_imported():
    code = (
        "import sys, torch; from mlhf import MLHF; m = torch.nn.Linear(3, 2); o = MLHF(m); "
        "o.loss(m(torch.randn(4, 3)), torch.zeros(4).long()).backward(); o.step(); o.zero_grad(); "
        "o.load_state_dict(o.state_dict()); print('torch._dynamo' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == "False"


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=10, cycle_momentum=False),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 2, cycle_momentum=False),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}


@pytest.mark.filterwarnings("error:Detected call of")
@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS.keys())
@pytest.mark.parametrize("name", ["mlhf", "hf", "kfac"])
def test_rates_are_those_that_sgd_has(schedule, name):
    model = network()
    sgd = torch.optim.SGD(network().parameters(), lr=0.5)
    ours = ALL[name](model)
    ours.lr = 0.5
    for group in (sgd.param_groups[0], ours.param_groups[0]):
        group["lr"] = 0.5
    schedulers = schedule(sgd), schedule(ours)
    for _ in range(6):
        assert ours.param_groups[0]["lr"] == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        plain_step(model, ours)
        for each in schedulers:
            each.step()
    assert ours.lr == pytest.approx(sgd.param_groups[0]["lr"])
    saved = ours.state_dict()
    again = ALL[name](network())
    again.load_state_dict(saved)
    assert again.lr == ours.lr
    assert again.param_groups[0]["initial_lr"] == ours.param_groups[0]["initial_lr"]


def test_a_plateau_lowers_the_rate():
    optimizer = MLHF(network())
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for loss in (1.0, 2.0, 3.0):
        scheduler.step(loss)
    assert optimizer.lr == 0.25


def test_momentum_that_is_not_there_cannot_be_cycled():
    with pytest.raises(ValueError, match="cycle_momentum"):
        lr_scheduler.OneCycleLR(MLHF(network()), 1.0, total_steps=10)


@every
def test_hooks_run_around_steps_and_states(make):
    model = network()
    optimizer = make(model)
    seen = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append(state["mine"]))
    optimizer.step(*batch())
    plain_step(model, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "before", "after", 1]


@every
def test_a_state_on_disk_goes_on_bit_for_bit(make, tmp_path):
    model = network()
    optimizer = make(model)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    for _ in range(3):
        plain_step(model, optimizer)
        scheduler.step()
    torch.save([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], tmp_path / "s")
    saved = torch.load(tmp_path / "s", weights_only=True)
    other = network()
    again = make(other)
    after = lr_scheduler.ExponentialLR(again, 0.9)
    for each, state in zip((other, again, after), saved, strict=True):
        each.load_state_dict(state)
    for _ in range(3):
        assert plain_step(model, optimizer) == plain_step(other, again)
        scheduler.step()
        after.step()
    assert torch.equal(theta(model), theta(other))
    assert again.lr == optimizer.lr


@every
@pytest.mark.parametrize("how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_of_model_and_optimizer_go_on_alone(make, how):
    model = network()
    optimizer = make(model)
    lr_scheduler.ExponentialLR(optimizer, 0.9)  # puts a step of its own on the instance
    plain_step(model, optimizer)
    x, y = batch()
    optimizer.loss(model(x), y).backward()  # a graph, which no copy has
    other, again = how((model, optimizer))
    assert again.model is other
    optimizer.zero_grad()
    for _ in range(3):
        assert plain_step(model, optimizer) == plain_step(other, again)
    assert torch.equal(theta(model), theta(other))


def test_a_copy_of_the_model_alone_reports_to_no_one():
    model = network()
    optimizer = MLHF(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(batch()[0])
    assert not any(layer.edges for layer in optimizer._basis.layers)
    plain_step(model, optimizer)


def test_an_optimizer_that_is_gone_leaves_no_hooks():
    model = network()
    for _ in range(3):
        optimizer = MLHF(model)
        optimizer.step(*batch())
    del optimizer
    gc.collect()
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in model.modules()]
    assert not any(hooks)


def test_layers_are_watched_only_while_an_update_is_due():
    model = network()
    optimizer = MLHF(model)
    counts = []
    for _ in range(130):
        plain_step(model, optimizer)
        counts.append(len(model[0]._forward_hooks))
    assert set(counts[:10]) == {1}  # every step updates at first
    assert set(counts[-20:]) == {0, 1}


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("name", ["mlhf", "hf", "paper", "kfac"])
def test_scaled_gradients_take_the_same_step(name, unscaled):
    ends = []
    for scaled in (False, True):
        model = network()
        optimizer = ALL[name](model)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        x, y = batch()
        for _ in range(4):
            optimizer.zero_grad()
            for a, b in zip(x.chunk(2), y.chunk(2), strict=True):
                scaler.scale(optimizer.loss(model(a), b) / 2).backward()
            if unscaled:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
        ends.append(theta(model))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_a_scaled_gradient_that_overflowed_skips_the_step():
    model = network()
    optimizer = MLHF(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x, y = batch()
    before = theta(model)
    scaler.scale(optimizer.loss(model(x), y)).backward()
    model[0].weight.grad[0, 0] = torch.inf
    result = scaler.step(optimizer)
    scaler.update()
    assert result.skipped == "gradient"
    assert torch.equal(theta(model), before)
    assert scaler.get_scale() == 2.0**9
    optimizer.zero_grad()
    plain_step(model, optimizer)


def test_the_average_is_in_the_model_between_eval_and_train():
    """By the names that trainers call, as Schedule-Free's."""
    model = network()
    optimizer = MLHF(model)
    for _ in range(5):
        plain_step(model, optimizer)
    before = theta(model)
    optimizer.eval()
    assert not torch.equal(theta(model), before)
    x, y = batch()
    optimizer.loss(model(x), y).backward()
    with pytest.raises(CurvatureError, match="train_mode"):
        optimizer.step()
    optimizer.train()
    assert torch.equal(theta(model), before)


@every
def test_sparse_gradients_are_read(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
    optimizer = make(model)
    x, y = torch.randint(10, (16, 2)), torch.randint(3, (16,))
    before = model[0].weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        optimizer.loss(model(x), y).backward()
        optimizer.step()
    moved = (model[0].weight != before).any(1)
    assert moved[x.unique()].all()


def test_reading_hooks_on_parameters_and_modules_do_no_harm():
    seen = []
    model = network()
    optimizer = HessianFree(model)
    model[0].weight.register_post_accumulate_grad_hook(lambda p: seen.append(float(p.grad.norm())))
    model[2].register_full_backward_hook(lambda *_: None)
    plain_step(model, optimizer)
    assert len(seen) == 1


def test_one_network_may_have_two_optimizers():
    model = network()
    first = Kfac(model, parameters=model[0].parameters())
    second = MLHF(model, parameters=model[2].parameters())
    x, y = batch()
    losses = []
    for _ in range(10):
        first.zero_grad()
        second.zero_grad()
        z = model(x)
        loss = second.loss(z, y)
        losses.append(float(loss.detach()))
        torch.autograd.backward([loss, 0 * first.loss(z, y)])
        second.step()
        first.zero_grad()
    assert losses[-1] < losses[0]
