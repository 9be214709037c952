"""Every optimizer on a GPU: it learns, stays there, and goes on from a file bit for bit."""

import pytest
import torch
from torch import nn

from mlhf.optimizers.registry import build
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training import checkpoint

pytestmark = pytest.mark.gpu

ALL = [
    *((name, {}) for name in OPTIMIZERS),
    ("mlhf", {"meta_checkpoint": "none"}),
    ("mlhf", {"autocast": "bfloat16"}),
    ("mlhf", {"variant": "paper"}),
    ("mlhf", {"variant": "paper", "compile": True}),
    ("kfac", {"fisher": "exact"}),
    ("hf_adam", {"micro_batch": 4, "curvature_batch": 8}),
]


def _problem():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 12),
        nn.Tanh(),
        nn.Linear(12, 3),
    ).cuda()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(10, 16, 1, 6, 6, generator=generator).cuda()
    y = torch.randint(0, 3, (10, 16), generator=generator).cuda()
    return model, x, y


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("name", "params"), ALL)
def test_the_loss_falls_and_everything_stays_on_the_device(name, params):
    model, x, y = _problem()
    optimizer = build(name, params, model)
    losses = [optimizer.step(x[0], y[0]).loss for _ in range(20)]
    assert all(loss.is_cuda for loss in losses)
    assert float(losses[-1]) < float(losses[0])
    assert all(p.is_cuda and bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(("name", "params"), ALL)
def test_five_steps_a_file_and_five_more_are_ten_steps(name, params, tmp_path):
    model, x, y = _problem()
    optimizer = build(name, params, model)
    for i in range(5):
        optimizer.step(x[i], y[i])
    tree = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": checkpoint.rng_state(),
    }
    checkpoint.save(tmp_path / "state.safetensors", tree)
    for i in range(5, 10):
        optimizer.step(x[i], y[i])

    torch.manual_seed(99)
    other, _, _ = _problem()
    restored = build(name, params, other)
    state = checkpoint.load(tmp_path / "state.safetensors")
    other.load_state_dict(state["model"])
    restored.load_state_dict(state["optimizer"])
    checkpoint.set_rng_state(state["rng"])
    for i in range(5, 10):
        restored.step(x[i], y[i])
    # Two compilations of the same step may round differently.
    close = 1e-4 if params.get("compile") else 0.0
    for mine, theirs in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=close, atol=close)


@pytest.mark.parametrize(("name", "params"), ALL)
def test_a_state_of_a_gpu_goes_on_on_a_cpu(name, params, tmp_path):
    model, x, y = _problem()
    optimizer = build(name, params, model)
    for i in range(3):
        optimizer.step(x[i], y[i])
    checkpoint.save(tmp_path / "state.safetensors", {"optimizer": optimizer.state_dict()})
    moved = _problem()[0].cpu()
    moved.load_state_dict(model.state_dict())
    restored = build(name, params, moved)
    restored.load_state_dict(checkpoint.load(tmp_path / "state.safetensors")["optimizer"])
    loss = restored.step(x[3].cpu(), y[3].cpu()).loss
    assert not loss.is_cuda
    assert all(bool(torch.isfinite(p).all()) for p in moved.parameters())


@pytest.mark.parametrize("name", ["mlhf", "hf_adam", "adamw"])
def test_a_gpu_takes_the_steps_of_a_cpu(name):
    model, x, y = _problem()
    here = _problem()[0].cpu()
    here.load_state_dict(model.state_dict())
    there_opt, here_opt = build(name, {}, model.double()), build(name, {}, here.double())
    for i in range(6):
        a = there_opt.step(x[i].double(), y[i]).loss
        b = here_opt.step(x[i].double().cpu(), y[i].cpu()).loss
        assert float(a) == pytest.approx(float(b), rel=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize(("name", "params"), ALL)
def test_a_second_device_works_while_the_first_is_current(name, params):
    model, x, y = _problem()
    model.to("cuda:1")
    optimizer = build(name, params, model)
    for i in range(3):
        loss = optimizer.step(x[i].to("cuda:1"), y[i].to("cuda:1")).loss
    assert loss.device.index == 1
