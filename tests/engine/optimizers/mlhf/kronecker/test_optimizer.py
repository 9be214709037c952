"""Steps against dense float64 algebra, the state, and what the networks may do."""

import math

import pytest
import torch
from torch import nn

from mlhf import MLHF, MetaCheckpoint
from mlhf.curvature.errors import CurvatureError
from mlhf.models.layers import PositionEmbedding
from mlhf.optimizers.mlhf.kronecker import factor_basis
from mlhf.optimizers.mlhf.kronecker.controller import FEATURES, FeatureEMA, StepStats
from mlhf.optimizers.mlhf.kronecker.damping import Scales
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF, fresh_networks
from tests.engine.optimizers.mlhf.dense import flat_function, gradient_and_matrix
from tests.engine.optimizers.mlhf.kronecker.small import batches as _batches
from tests.engine.optimizers.mlhf.kronecker.small import model_of as _model
from tests.engine.optimizers.mlhf.kronecker.small import theta as _theta


def _loud():
    """Networks that change every step a lot."""
    generator = torch.Generator().manual_seed(3)
    return MetaCheckpoint(
        "mlhf",
        {
            name: {k: torch.randn(v.shape, generator=generator) for k, v in n.state_dict().items()}
            for name, n in fresh_networks().items()
        },
    )


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_step_is_the_least_value_over_the_subspace(iterations):
    """θ_new − θ solves the quadratic model over the directions, dense and in θ's own basis.

    On a quarter of a batch it is a quarter of that, and the means are left alone.
    """
    model = _model()
    parameters = list(model.parameters())
    unpack = flat_function(model, parameters)
    optimizer = KroneckerMLHF(model, meta_checkpoint=None, iterations=iterations, weight_decay=0.01)
    last = torch.zeros_like(_theta(model))
    whole = _batches(4)
    for x, y in [*whole, (whole[0][0][:4], whole[0][1][:4])]:
        before = _theta(model)
        _, b, g = gradient_and_matrix(model, unpack, before, x, y)
        b = b + 0.01 * before
        optimizer.step(x, y)
        d = before - _theta(model)
        basis = optimizer._basis
        size = len(b)
        eye = torch.eye(size).double()
        # U's columns in θ's order, and the damping there.
        u = torch.stack(
            [torch.cat([t.reshape(-1) for t in basis.rotate_back(eye[i])]) for i in range(size)], 1
        )
        moment = optimizer._damping.second_moment / (1 - 0.99**optimizer._steps)
        scale = 30 * (1 + (optimizer._steps - 1) / 100) ** 0.5
        s = scale * (moment.sqrt() + 1e-5 * basis.loss_scale) + 0.01
        damped = g + u @ torch.diag(s) @ u.T
        inverse = u @ torch.diag(1 / (basis.diagonal + s)) @ u.T
        directions = [inverse @ b, last]
        for i in range(iterations):
            q = torch.stack(directions if last.any() else directions[:1] + directions[2:], 1)
            expected = q @ torch.linalg.solve(q.T @ damped @ q, q.T @ b)
            if i < iterations - 1:
                directions.append(inverse @ (b - damped @ expected))
        torch.testing.assert_close(d, expected * len(x) / 16, rtol=1e-4, atol=1e-8)
        last = d
    assert optimizer._basis._squares.count == 4


def test_a_fraction_of_a_batch_counts_as_that_fraction_in_the_mean_of_squares():
    model = _model()
    optimizer = KroneckerMLHF(model, meta_checkpoint=None)
    ((x, y),) = _batches(1)
    optimizer.step(x, y)
    before = optimizer._damping.second_moment.clone()
    x, y = x[:4], y[:4]
    unpack = flat_function(model, list(model.parameters()))
    _, b, _ = gradient_and_matrix(model, unpack, _theta(model), x, y)
    optimizer.step(x, y)
    pieces = b.split([p.numel() for p in model.parameters()])
    shaped = [t.view(p.shape) for t, p in zip(pieces, model.parameters(), strict=True)]
    rotated = optimizer._basis.rotate(shaped)
    torch.testing.assert_close(
        optimizer._damping.second_moment, 0.99 * before + 0.01 / 4 * rotated.square()
    )


def test_the_running_means_give_how_far_the_loss_has_fallen():
    means = FeatureEMA()
    assert means.loss_reduction() == 1
    for loss in (8.0, *[0.5] * 200):
        means.add(StepStats(loss, 1.0, 1.0))
    assert means.loss_reduction() == pytest.approx(16, rel=1e-3)


def test_more_iterations_go_lower():
    x, y = _batches(1)[0]
    predicted = []
    for iterations in (1, 2, 4):
        model = _model()
        optimizer = KroneckerMLHF(model, meta_checkpoint=None, iterations=iterations)
        unpack = flat_function(model, list(model.parameters()))
        before = _theta(model)
        _, b, g = gradient_and_matrix(model, unpack, before, x, y)
        optimizer.step(x, y)
        d = before - _theta(model)
        basis = optimizer._basis
        s = 30 * ((optimizer._damping.second_moment / 0.01).sqrt() + 1e-5 * basis.loss_scale)
        rotated = basis.rotate(
            [
                t.view(p.shape)
                for t, p in zip(
                    d.split([p.numel() for p in model.parameters()]),
                    model.parameters(),
                    strict=True,
                )
            ]
        )
        predicted.append(float(0.5 * d @ g @ d + 0.5 * rotated @ (s * rotated) - b @ d))
    assert predicted[0] > predicted[1] > predicted[2]


@pytest.mark.parametrize("exact", [256, 4], ids=["all eigenvectors", "the leading ones"])
def test_it_goes_on_bit_for_bit_from_its_state(exact, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", exact)
    batches = _batches(12)
    model = _model().float()
    batches = [(x.float(), y) for x, y in batches]
    optimizer = MLHF(model, meta_checkpoint=_loud())
    for batch in batches[:6]:
        optimizer.step(*batch)
    other = _model(seed=9).float()
    restored = MLHF(other, meta_checkpoint=None)  # the weights come with the state
    state = optimizer.state_dict()
    saved = torch.load(_written(state), weights_only=True)
    other.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    restored.load_state_dict(saved)
    for batch in batches[6:]:
        optimizer.step(*batch)
        restored.step(*batch)
    assert torch.equal(_theta(model), _theta(other))


def _written(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("lowered", [True, False])
def test_the_damping_is_its_formula_and_lower_for_small_positions(lowered):
    """s = λ (√v̂ + 1e-5 g), the part of the mean square of 4 positions' vectors in the sum."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), PositionEmbedding(4, 3), nn.Linear(3, 5)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].vectors.fill_(1.0)
    optimizer = MLHF(model, meta_checkpoint=None, position_damping=lowered)
    x = torch.randint(0, 5, (6, 4))
    optimizer.step(x, x)
    optimizer._steps, optimizer._damping.second_moment = 0, None
    b = torch.randn(sum(p.numel() for p in model.parameters())).double()
    # All of these count as dense kernels, the third kind.
    segments = optimizer._segments(optimizer._scale(judged=False), [1.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    basis = optimizer._basis
    scales = Scales(0, torch.tensor(3.0).double())
    s = optimizer._damping.step(b, basis.diagonal, segments, scales).damping
    fraction = torch.ones_like(b)
    if lowered:  # layers come first, then matrices in the parameters' order
        fraction[-12:] = 0.25
    torch.testing.assert_close(s, 30 * 2 * (b.abs() + 3e-5) * fraction)


def test_networks_of_zero_change_nothing_and_loud_ones_do():
    ends = {}
    zero = MetaCheckpoint("mlhf", {n: dict(w.state_dict()) for n, w in fresh_networks().items()})
    for name, checkpoint in (("none", None), ("zero", zero), ("loud", _loud())):
        model = _model()
        optimizer = MLHF(model, meta_checkpoint=checkpoint)
        for batch in _batches(5):
            optimizer.step(*batch)
        ends[name] = _theta(model)
    assert torch.equal(ends["none"], ends["zero"])
    assert not torch.allclose(ends["none"], ends["loud"])


@pytest.mark.parametrize("exact", [256, 4], ids=["all eigenvectors", "the leading ones"])
@pytest.mark.parametrize("at", [0, 3])
def test_a_batch_that_is_not_finite_gives_such_a_loss_and_no_error(exact, at, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", exact)
    optimizer = MLHF(_model())
    for k, (x, y) in enumerate(_batches(at + 1)):
        loss = optimizer.step(x.fill_(torch.nan) if k == at else x, y).loss
    assert torch.isnan(loss)


def test_it_lowers_the_loss_with_every_kind_of_layer():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.memory = nn.LSTM(8, 6, batch_first=True)
            self.out = nn.Linear(6, 7)

        def forward(self, x):
            return self.out(self.memory(self.body(self.table(x)))[0])

    torch.manual_seed(0)
    model = Text()
    x = torch.randint(0, 7, (16, 9))
    optimizer = MLHF(model)
    losses = [float(optimizer.step(x, x.roll(1, 1)).loss) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_model_without_parameters_is_refused():
    from mlhf.curvature.errors import CurvatureError

    with pytest.raises(CurvatureError):
        MLHF(nn.ReLU())


def test_the_other_variants_meta_checkpoint_is_refused():
    from mlhf.core.errors import DataError

    with pytest.raises(DataError, match="is for mlhf, not for mlhf_paper"):
        MLHF(_model(), meta_checkpoint=_loud(), variant="paper")


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, -1e30, math.inf, 1e308])
def test_features_are_bounded_whatever_was_seen(value):
    means = FeatureEMA()
    for _ in range(3):
        means.add(StepStats(*[value] * 7))
    features = means.features()
    assert len(features) == FEATURES
    assert all(abs(f) <= 1 for f in features if f == f)
    assert means.loss_reduction() > 0 or value == math.inf


def test_what_is_not_a_number_stays_so_and_raises_nothing():
    means = FeatureEMA()
    for _ in range(3):
        means.add(StepStats(*[math.nan] * 7))
    assert all(f != f for f in means.features()[2:])
    assert means.loss_reduction() != means.loss_reduction()


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_features_do_not_depend_on_the_losss_scale(scale):
    scaled, plain = FeatureEMA(), FeatureEMA()
    for k, loss in enumerate((3.0, 1.0, 1e-3, 1e-7, 1e-10, 1e-14)):
        for means, factor in ((plain, 1.0), (scaled, scale)):
            stats = StepStats(
                factor * loss, 0.3, 0.9, predicted_reduction=factor * 10.0 ** (-2 * k)
            )
            means.add(stats)
    assert scaled.features() == pytest.approx(plain.features())
    assert scaled.loss_reduction() == pytest.approx(plain.loss_reduction())


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e4])
@pytest.mark.parametrize("loss", [nn.functional.cross_entropy, nn.functional.mse_loss])
def test_a_step_does_not_depend_on_the_losss_scale(loss, scale):
    ends = []
    for factor in (1.0, scale):
        model = _model()
        optimizer = MLHF(model, lambda z, y, c=factor: c * loss(z, y))
        for x, y in _batches(30):
            target = y if loss is nn.functional.cross_entropy else x[:, :3]
            value = optimizer.step(x, target).loss / factor
        ends.append((_theta(model), value))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-9)


def test_a_loss_scaled_far_down_is_learned_in_single_precision_too():
    model = _model().float()
    optimizer = MLHF(model, lambda z, y: 1e-6 * nn.functional.cross_entropy(z, y))
    losses = [float(optimizer.step(x.float(), x[:, :3].argmax(1)).loss) for x, _ in _batches(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_first_loss_of_nought_and_then_the_largest_do_not_overflow():
    means = FeatureEMA()
    means.add(StepStats(1e308, 1.0, 1.0))
    for _ in range(300):
        means.add(StepStats(0.0, 1.0, 1.0))
    assert means.loss_reduction() == pytest.approx(1e12)


def test_a_step_that_fails_leaves_nothing_of_its_pass_for_the_next():
    optimizer = KroneckerMLHF(_model(), meta_checkpoint=None)
    ((x, y),) = _batches(1)
    with pytest.raises(CurvatureError, match="classes"):
        optimizer.step(x, y[:-1])
    with optimizer._basis.recording():
        assert optimizer._basis.edges == []


def test_a_layer_of_more_than_a_thousand_inputs_is_rotated_too():
    """With only a diagonal there the steps of wide networks are very short, or diverge."""
    model = nn.Sequential(nn.Linear(1500, 4), nn.ReLU(), nn.Linear(4, 3))
    optimizer = KroneckerMLHF(model, meta_checkpoint=None)
    x, y = torch.randn(8, 1500), torch.arange(8) % 3
    optimizer.step(x, y)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    rotated = optimizer._basis.rotate(tensors)
    assert not torch.allclose(rotated[:100], torch.cat([p.reshape(-1) for p in tensors])[:100])
    for tensor, back in zip(tensors, optimizer._basis.rotate_back(rotated), strict=True):
        torch.testing.assert_close(back, tensor, rtol=1e-4, atol=1e-4)
    rows = rotated[: 4 * 1501].view(4, 1501)
    diagonal = optimizer._basis.diagonal[: 4 * 1501].view(4, 1501)
    # Eigenvectors with eigenvalues come first; what they leave has one value a row.
    assert rows.shape == diagonal.shape
    assert bool((diagonal[:, 256:] == diagonal[:, 256:257]).all())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_what_overflows_is_skipped_without_a_warning_of_torch(value, loss):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = KroneckerMLHF(model, loss)
    for k in range(12):
        x = torch.randn(8, 5)
        if k == 4:
            x[0, 0] = value
        result = optimizer.step(x, torch.arange(8) % 3 if loss == "cross_entropy" else x[:, :3])
        assert (result.skipped is not None) == (k == 4)
    assert math.isfinite(float(result.loss))
    KroneckerMLHF(model, loss).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("scale", [1e-14, 1e-18, 1e-21, 0.0])
def test_data_that_are_fitted_to_the_last_bit_are_no_error(scale):
    """Squares of such gradients are rounding, or nothing: 1e-21 squared is no float32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(16, 4), torch.zeros(16, 3)
    optimizer = MLHF(model, "mse")
    for _ in range(3):
        optimizer.step(x, torch.randn(16, 3))
    with torch.no_grad():
        for p in model[2].parameters():
            p.mul_(scale)
    optimizer._schedule.next_update = optimizer._schedule.next_refresh = 0
    for _ in range(30):
        optimizer.step(x[torch.randperm(16)[:8]], y[:8])
    assert optimizer.skipped_steps == 0
    assert optimizer._basis.diagonal.isfinite().all()
    assert float(model(x).detach().abs().max()) <= 10 * scale
