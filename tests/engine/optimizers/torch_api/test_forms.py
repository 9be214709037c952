"""The three forms of a step are one step."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional

from mlhf import MLHF, HessianFree
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.torch_api.base import sum_of
from mlhf.optimizers.torch_api.gradients import gradients_of
from tests.engine.optimizers.loops import OPTIMIZERS, batch, network, theta

ALL = {**OPTIMIZERS, "l2l": L2L}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
by_curvature = pytest.mark.parametrize("name", ["mlhf", "paper", "hf", "hf_lm"])


def wide():
    """With what a pass changes or draws: batch norm and dropout; and a convolution."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 3, 3),
        nn.BatchNorm1d(3),
        nn.Tanh(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def batches(steps=12):
    for k in range(steps):
        x, y = batch(20 if k % 5 == 4 else 32)
        yield x + 0.1 * k, y


def by_batch(model, optimizer):
    return [float(optimizer.step(x, y).loss) for x, y in batches()]


def by_closure(model, optimizer):
    return [float(optimizer.step(lambda x=x, y=y: (model(x), y))) for x, y in batches()]


def plainly(model, optimizer):
    found = []
    for x, y in batches():
        loss = optimizer.loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@by_curvature
@pytest.mark.parametrize("form", [by_closure, plainly])
def test_all_forms_take_the_same_step_bit_for_bit(name, form):
    ends = []
    for each in (by_batch, form):
        model = wide()
        torch.manual_seed(1)
        ends.append((each(model, ALL[name](model)), theta(model), model[2].running_mean.clone()))
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])
    assert torch.equal(ends[0][2], ends[1][2])


@pytest.mark.parametrize("make", [Kfac, L2L])
@pytest.mark.parametrize("form", [by_closure, plainly])
def test_kfac_and_l2l_take_the_same_step_up_to_rounding(make, form):
    ends = []
    for each in (by_batch, form):
        model = network().double()
        optimizer = make(model)
        data = [(x.double(), y) for x, y in batches()]
        losses = []
        for x, y in data:
            if each is by_batch:
                losses.append(float(optimizer.step(x, y).loss))
            elif each is by_closure:
                losses.append(float(optimizer.step(lambda m=model, x=x, y=y: (m(x), y))))
            else:
                optimizer.zero_grad()
                loss = optimizer.loss(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        ends.append(losses)
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


@pytest.mark.parametrize("fisher", ["empirical", "exact"])
def test_kfac_takes_its_labels_from_the_recorded_pass(fisher):
    ends = []
    for form in ("batch", "plain"):
        model = network().double()
        optimizer = Kfac(model, fisher=fisher)
        for x, y in batches(6):
            if form == "batch":
                optimizer.step(x.double(), y)
            else:
                optimizer.loss(model(x.double()), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        ends.append(theta(model))
    torch.testing.assert_close(*ends)


@every
def test_grad_is_that_of_plain_backward(make):
    model = network()
    optimizer = make(model)
    x, y = batch()
    optimizer.loss(model(x), y).backward()
    found = [p.grad.clone() for p in model.parameters()]
    expected = torch.autograd.grad(functional.cross_entropy(model(x), y), [*model.parameters()])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_forward_pass_runs_once():
    model, calls = network(), []
    optimizer = MLHF(model)
    model.register_forward_hook(lambda *_: calls.append(1))
    x, y = batch()
    for _ in range(4):
        optimizer.zero_grad()
        optimizer.loss(model(x), y).backward()
        optimizer.step()
    assert len(calls) == 4


@by_curvature
def test_microbatches_add_up_to_the_batch(name):
    """b, the loss and products are those of the whole batch."""
    model = network().double()
    optimizer = ALL[name](model)
    x, y = batch(32)
    x = x.double()
    for part in (slice(0, 8), slice(8, 32)):
        share = (part.stop - part.start) / 32
        (share * optimizer.loss(model(x[part]), y[part])).backward()
    passes = optimizer._recorder.take()
    found = sum_of(passes, gradients_of(optimizer, optimizer._parameters))
    whole = GGN(model, "cross_entropy", x, y, optimizer._parameters)
    torch.testing.assert_close(found.loss, whole.loss)
    v = [torch.randn_like(p) for p in optimizer._parameters]
    pairs = [
        (found.gradient, whole.gradient),
        (found.product(v), whole.product(v)),
        ([found.quadratic(v)], [whole.quadratic(v)]),
        (found.vjp(found.output_hessian(found.jvps([v])[0])), whole.product(v)),
    ]
    for ours, theirs in pairs:
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


@every
def test_accumulation_learns_as_whole_batches_do(make):
    ends = []
    for parts in (1, 4):
        model = network()
        optimizer = make(model)
        x, y = batch(64)
        for _ in range(12):
            optimizer.zero_grad()
            for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
                (optimizer.loss(model(a), b) / parts).backward()
            optimizer.step()
        ends.append(float(functional.cross_entropy(model(x), y).detach()))
    assert ends[1] == pytest.approx(ends[0], rel=0.2, abs=0.02)


@by_curvature
def test_a_multiple_of_the_loss_is_a_multiple_of_its_matrix(name):
    """Twice a loss is the loss ``lambda z, y: 2 * …``, in every form."""

    def double(z, y):
        return 2 * functional.cross_entropy(z, y)

    ends = []
    for factor, loss in ((2.0, "cross_entropy"), (1.0, double)):
        model = network().double()
        optimizer = ALL[name](model, loss)
        x, y = batch()
        for _ in range(3):
            optimizer.zero_grad()
            (factor * optimizer.loss(model(x.double()), y)).backward()
            optimizer.step()
        ends.append(theta(model))
    torch.testing.assert_close(*ends)


@every
def test_clipping_shortens_the_step(make):
    """The default form is linear in b at its first step, where v̂ is b² and D is G's."""
    moved = []
    for clip in (None, 1e-3):
        model = network()
        optimizer = make(model)
        before = theta(model)
        x, y = batch()
        optimizer.loss(model(x), y).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        moved.append(float((theta(model) - before).norm()))
    assert moved[1] < moved[0] or make in (L2L, ALL["paper"])  # theirs are not linear at all


def test_gradients_may_be_edited_before_the_step():
    model = network()
    optimizer = HessianFree(model)
    x, y = batch()
    optimizer.loss(model(x), y).backward()
    before = theta(model)
    for p in model.parameters():
        p.grad.zero_()
    optimizer.step()
    assert torch.equal(theta(model), before)


def test_a_closure_of_torch_is_taken_too():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()

    def closure():
        optimizer.zero_grad()
        loss = optimizer.loss(model(x), y)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert isinstance(first, torch.Tensor)
    for _ in range(20):
        last = optimizer.step(closure=closure)
    assert float(last.detach()) < float(first.detach())
    assert float(optimizer.last_result.loss) == float(last.detach())


def test_a_closure_that_skips_its_batch_changes_nothing():
    model = network()
    optimizer = MLHF(model)
    before = theta(model)
    assert optimizer.step(lambda: None) is None
    assert torch.equal(theta(model), before)


def test_a_pass_is_gone_after_its_step():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    loss = optimizer.loss(model(x), y)
    loss.backward()
    optimizer.step()
    with pytest.raises(CurvatureError, match="whose step was taken"):
        loss.backward()
    with pytest.raises(CurvatureError, match="none since the last step"):
        optimizer.step()


def test_zero_grad_forgets_what_went_backward():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    optimizer.loss(model(x), y).backward()
    optimizer.zero_grad()
    with pytest.raises(CurvatureError, match=r"optimizer\.loss\(model\(x\), y\)"):
        optimizer.step()
    optimizer.loss(model(x), y).backward()
    optimizer.step()  # also the first update of the bases


def test_an_evaluation_without_no_grad_leaves_no_graphs():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    for _ in range(50):
        model(x)
    assert all(len(layer.edges) < 12 for layer in optimizer._basis.layers)
    optimizer.loss(model(x), y).backward()
    optimizer.step()


@pytest.mark.parametrize("make", [MLHF, HessianFree])
def test_parts_of_a_model_may_be_called(make):
    model = network()
    optimizer = make(model)
    x, y = batch()
    for _ in range(5):
        optimizer.zero_grad()
        loss = optimizer.loss(model[2](model[1](model[0](x))), y)
        loss.backward()
        optimizer.step()
    again = network()
    other = make(again)
    for _ in range(5):
        result = other.step(x, y)
    assert float(loss.detach()) == float(result.loss)


def test_the_loss_of_a_copy_is_refused():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    optimizer.loss(network()(x), y).backward()
    with pytest.raises(CurvatureError):
        optimizer.step()


def test_without_gradients_the_loss_is_a_number():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    with torch.no_grad():
        loss = optimizer.loss(model(x), y)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, functional.cross_entropy(model(x), y).detach())


def test_fused_attention_is_off_in_the_users_own_pass():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3))
    optimizer = MLHF(model)
    x, y = torch.randn(16, 3, 8), torch.randint(3, (16,))
    for _ in range(3):
        optimizer.loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_pass_that_fails_leaves_the_switches_as_they_were():
    model = network()
    optimizer = MLHF(model)
    with pytest.raises(RuntimeError):
        model(torch.randn(4, 5))
    assert torch.backends.cuda.flash_sdp_enabled()
    x, y = batch()
    optimizer.loss(model(x), y).backward()
    optimizer.step()


def test_a_pass_that_is_interrupted_gives_the_switches_back_with_its_optimizer():
    class Interrupted(nn.Linear):
        def forward(self, x):
            raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(3, 3), Interrupted(3, 3))
    optimizer = MLHF(model)
    with pytest.raises(KeyboardInterrupt):
        model(torch.randn(4, 3))
    del optimizer, model
    gc.collect()
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    "options", [{"micro_batch": 8}, {"curvature_batch": 8}, {"curvature": Hessian}]
)
def test_what_only_a_batch_has_is_refused_in_other_forms(options):
    model = network()
    optimizer = HessianFree(model, **options)
    x, y = batch()
    with pytest.raises(CurvatureError, match=r"step\(x, y\)"):
        optimizer.loss(model(x), y)
    optimizer.step(x, y)


def test_wrong_arguments_are_named():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    with pytest.raises(TypeError, match="target"):
        optimizer.step(x)
    with pytest.raises(TypeError, match="3 values"):
        optimizer.step(lambda: (model(x), y, 1))
    with pytest.raises(CurvatureError, match="backward"):
        optimizer.step(lambda: optimizer.loss(model(x), y))
    with pytest.raises(TypeError, match="batch_size"):
        optimizer.step(batch_size=3)


def test_a_small_last_batch_is_told_or_counted_in_all_forms():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    for k in range(4):
        optimizer.zero_grad()
        optimizer.loss(model(x), y, batch_size=10 * (k + 1)).backward()
        optimizer.step()
    assert optimizer._batch_sizes.recent == (10, 20, 30, 40)
