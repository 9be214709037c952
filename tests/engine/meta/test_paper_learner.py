"""MLHF's meta-losses and their gradients, against finite differences of a dense float64 form.

The dense form is told every value at which gradients stop, from the unroll without
perturbation, and lets only what remains depend on the weights.
"""

import copy

import pytest
import torch
from torch.func import functional_call

from mlhf.meta.paper_learner import PaperLearner
from mlhf.meta.task_models import TaskModels
from mlhf.optimizers.learned.kinds import by_kind
from mlhf.optimizers.mlhf.paper.optimizer import fresh_networks
from tests.engine.meta.conftest import Plain
from tests.engine.optimizers.mlhf import dense
from tests.engine.optimizers.mlhf.conftest import loud

STEPS = 3


class Dense:
    """The unroll's losses as functions of the weights alone."""

    def __init__(self, start, batches, step_clip):
        task = Plain()
        self.model = task.model(0)
        parameters, parts = by_kind(self.model)
        self.unpack = dense.flat_function(self.model, parameters)
        self.kinds = [s.kind for s in parts for _ in range(s.end - s.start)]
        self.batches, self.step_clip = batches, step_clip
        self.frozen = None
        self.start = start

    def loss(self, theta, batch):
        buffers = {k: v.clone() for k, v in self.model.named_buffers()}
        z = functional_call(self.model, {**self.unpack(theta), **buffers}, (batch[0],))
        return torch.nn.functional.cross_entropy(z, batch[1])

    def __call__(self, networks):
        """Return l_p and l_s; the first call's values are those at which gradients stop."""
        first = self.frozen is None
        frozen = [] if first else self.frozen
        theta = self.start
        d = r = torch.zeros_like(theta)
        states = dense.zero_states(len(theta))
        fits, gains = [], []
        for n in range(STEPS):
            if first:
                _, b, matrix = dense.gradient_and_matrix(
                    self.model, self.unpack, theta, *self.batches[n]
                )
                frozen.append((theta, b, matrix, d, r))
            theta, b, matrix, d, r = frozen[n]
            d, r, states, damped = dense.direction(matrix, b, d, r, states, networks, self.kinds, 2)
            fits.append(-(d @ b) / (d @ damped @ d).sqrt())
            step = d * (self.step_clip * theta.norm() / d.norm()).clamp_max(1.0)
            after = theta - step
            losses = [self.loss(after, self.batches[k]) for k in (n, n + 1)]
            gains.append(0.5 * sum(losses) - self.loss(theta, self.batches[n]))
            theta = after
        m = torch.stack(gains)
        if first:
            self.frozen = frozen
            self.weights = m.softmax(0)
            self.error = m.mean()
            self.end = theta
        return torch.stack(fits).mean(), 10 * (self.weights * m).sum()


def _unrolled(step_clip, noise=0.0, restart=False):
    learner = PaperLearner(iterations=2, step_clip=step_clip, noise=noise)
    learner.networks = {name: loud(i, torch.float64) for i, name in enumerate(fresh_networks())}
    models = TaskModels(Plain(), 0, STEPS + 1)
    generator = torch.Generator().manual_seed(3)
    batches = [models.task.batch(generator) for _ in range(STEPS + 1)]
    start = models.initialize(5)
    return learner, models, start, batches, learner.unroll(models, start, batches, generator)


@pytest.mark.parametrize("step_clip", [0.25, 0.02])
def test_losses_and_gradients_are_those_of_finite_differences(step_clip):
    learner, _, start, batches, found = _unrolled(step_clip)
    exact = Dense(start.theta, batches, step_clip)
    with torch.no_grad():
        l_p, l_s = exact(learner.networks)
    assert torch.allclose(found.losses["preconditioner"], l_p, rtol=1e-9)
    assert torch.allclose(found.losses["damping"], l_s, rtol=1e-9)
    assert torch.allclose(found.end.theta, exact.end, rtol=1e-9, atol=1e-11)
    assert torch.allclose(found.error, exact.error, rtol=1e-9)  # what replay ranks by
    assert abs(exact.error) > 1e-3
    generator = torch.Generator().manual_seed(1)
    for name, which in (("preconditioner", 0), ("damping", 1)):
        net = learner.networks[name]
        gradient = torch.autograd.grad(
            found.losses[name], list(net.parameters()), retain_graph=True
        )
        for _ in range(3):
            way = [torch.randn(p.shape, generator=generator).double() for p in net.parameters()]
            values = []
            for sign in (1, -1):
                moved = copy.deepcopy(net)
                with torch.no_grad():
                    for p, v in zip(moved.parameters(), way, strict=True):
                        p.add_(v, alpha=sign * 1e-5)
                    values.append(exact({**learner.networks, name: moved})[which])
            difference = (values[0] - values[1]) / 2e-5
            mine = sum((g * v).sum() for g, v in zip(gradient, way, strict=True))
            assert abs(difference) > 1e-4
            assert torch.allclose(mine, difference, rtol=2e-5)


def test_the_clip_that_was_tested_was_at_work():
    assert not torch.allclose(_unrolled(0.25)[-1].end.theta, _unrolled(0.02)[-1].end.theta)


def test_noise_is_within_its_bounds():
    still, noisy = _unrolled(0.25), _unrolled(0.25, noise=0.02)
    first = [u[-1].end.theta - u[2].theta for u in (still, noisy)]
    assert not torch.equal(*first)
    # After one step the ratio would be within 2 %; later steps see other gradients.
    one = []
    for noise in (0.0, 0.02):
        learner, models, start, batches, _ = _unrolled(0.25, noise)
        end = learner.unroll(models, start, batches[:2], torch.Generator().manual_seed(0)).end
        one.append(end.theta - start.theta)
    moved = one[0].abs() > 1e-9  # a bias before batch norm does not
    ratio = (one[1] / one[0])[moved]
    assert 0.98 - 1e-9 <= float(ratio.min()) < 0.985
    assert 1.015 < float(ratio.max()) <= 1.02 + 1e-9


def test_an_unroll_goes_on_where_the_last_one_ended():
    """Two unrolls of two steps walk where one of four does, running statistics included."""
    learner = PaperLearner(noise=0.0)
    models = TaskModels(Plain(torch.float32), 0, 5)
    generator = torch.Generator().manual_seed(3)
    batches = [models.task.batch(generator) for _ in range(5)]
    start = models.initialize(5)
    with torch.no_grad():
        whole = learner.unroll(models, start, batches, generator).end
        middle = learner.unroll(models, start, batches[:3], generator).end
        end = learner.unroll(models, middle, batches[2:], generator).end
    assert middle.steps == 2
    assert end.steps == whole.steps == 4
    assert torch.equal(end.theta, whole.theta)
    assert all(torch.equal(end.memory[k], v) for k, v in whole.memory.items())
    assert all(torch.equal(end.buffers[k], v) for k, v in whole.buffers.items())
    assert int(end.buffers["norm.num_batches_tracked"]) == 4


def test_it_steps_as_the_optimizer_does():
    from mlhf import MetaCheckpoint
    from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF

    learner = PaperLearner(noise=0.0, step_clip=100.0)
    task = Plain(torch.float32)
    models = TaskModels(task, 0, 5)
    generator = torch.Generator().manual_seed(3)
    batches = [task.batch(generator) for _ in range(5)]
    start = models.initialize(5)
    with torch.no_grad():
        end = learner.unroll(models, start, batches, generator).end
    model = task.model(5)
    weights = {name: dict(net.state_dict()) for name, net in learner.networks.items()}
    optimizer = PaperMLHF(model, meta_checkpoint=MetaCheckpoint("mlhf_paper", weights, {}))
    for x, y in batches[:4]:
        optimizer.step(x, y)
    mine = torch.cat([p.detach().reshape(-1) for p in by_kind(model)[0]])
    assert torch.allclose(mine, end.theta, atol=1e-5)
