"""Parts of a batch add up to the whole: for masks, class weights, sums, and no other losses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import HessianFree
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.ggn import GGN
from mlhf.curvature.microbatches import MicrobatchCurvature
from mlhf.curvature.sample_weights import part_weights
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt
from tests.engine.curvature.cases import D, assert_close, flat

WEIGHTS = torch.tensor([0.2, 3.0, 1.0], dtype=D)
LOSSES = {
    "named, masked": "cross_entropy",
    "masked": lambda z, y: F.cross_entropy(z.transpose(1, -1), y),
    "class weights": lambda z, y: F.cross_entropy(z, y, weight=WEIGHTS),
    "sum": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
    "both": lambda z, y: F.cross_entropy(z, y, weight=WEIGHTS, ignore_index=1),
    "mean": lambda z, y: F.huber_loss(z, y.double().unsqueeze(1).expand(z.shape)),
}


def _problem(masked=False, sequences=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    shape = (9, 2) if sequences else (9,)
    y = torch.randint(0, 3, shape)
    if masked:
        y[[0, 1, 4]] = -100
    return model, torch.randn(*shape, 4, dtype=D), y


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_microbatches_are_the_whole_batch(name, size, keep):
    model, x, y = _problem("masked" in name, "masked" in name)
    whole = GGN(model, LOSSES[name], x, y)
    cut = MicrobatchCurvature(model, LOSSES[name], x, y, size=size, keep=keep)
    v = [torch.randn_like(p) for p in whole.parameters]
    assert_close(cut.loss, whole.loss)
    assert_close(flat(cut.gradient), flat(whole.gradient))
    assert_close(flat(cut.product(v)), flat(whole.product(v)))
    assert_close(cut.quadratic(v), whole.quadratic(v))


@pytest.mark.parametrize("name", ["named, masked", "class weights", "sum"])
def test_the_matrix_of_some_samples_is_weighted_alike(name):
    model, x, y = _problem("masked" in name)
    cut = MicrobatchCurvature(model, LOSSES[name], x, y, size=2, curvature_samples=5)
    some, whole = GGN(model, LOSSES[name], x[:5], y[:5]), GGN(model, LOSSES[name], x, y)
    v = [torch.randn_like(p) for p in whole.parameters]
    factor = 9 / 5 if name == "sum" else 1.0  # of a sum over nine samples five are in the matrix
    if name == "sum":
        found = part_weights(LOSSES[name], whole.output, y, [slice(0, 5), slice(5, 9)])
        assert found == pytest.approx([1, 1])
    assert_close(flat(cut.product(v)), factor * flat(some.product(v)))
    assert_close(flat(cut.gradient), flat(whole.gradient))


def _contrast(z, y):
    return F.cross_entropy(z @ z.T, torch.arange(len(z)))


def _shifted(z, y):
    return F.cross_entropy(z, y) + 1 / len(z)


def _spread(z, y):
    return ((z - z.mean(0)) ** 2).mean()


@pytest.mark.parametrize("loss", [_contrast, _shifted, _spread])
def test_losses_that_compare_samples_are_refused(loss):
    model, x, y = _problem()
    with pytest.raises(
        CurvatureError, match=r"no \(weighted\) mean or sum .* leave out micro_batch"
    ):
        MicrobatchCurvature(model, loss, x, y, size=3)
    MicrobatchCurvature(model, loss, x, y, size=9)  # one microbatch is the batch


def test_a_single_number_is_no_output_of_each_sample():
    class Mean(nn.Linear):
        def forward(self, x):
            return super().forward(x).mean()

    with pytest.raises(CurvatureError, match="samples along their first dimension"):
        MicrobatchCurvature(Mean(4, 1), lambda z, y: z.square(), torch.ones(4, 4), None, size=2)


def test_all_masked_is_a_mean_over_nothing_as_for_the_whole_batch():
    model, x, y = _problem()
    y.fill_(-100)
    assert GGN(model, "cross_entropy", x, y).loss.isnan()
    assert MicrobatchCurvature(model, "cross_entropy", x, y, size=2).loss.isnan()


def test_a_levenberg_marquardt_step_measures_the_same_loss():
    models = [_problem()[0] for _ in range(2)]
    _, x, y = _problem()
    for model, size in zip(models, (None, 2), strict=True):
        optimizer = HessianFree(
            model, LOSSES["class weights"], LevenbergMarquardt(), micro_batch=size
        )
        for _ in range(4):
            optimizer.step(x, y)
    assert_close(*(flat(list(m.parameters())) for m in models))


@pytest.mark.parametrize("name", ["named, masked", "masked", "class weights", "both", "mean"])
def test_the_empirical_fisher_of_a_weighted_mean(name):
    """F = Σ w g gᵀ, with g the gradient of each sample's own mean loss."""
    model, x, y = _problem("masked" in name)
    loss = LOSSES[name]
    fisher = EmpiricalFisher(model, loss, x, y)
    per_sample = {
        "class weights": WEIGHTS[y.clamp_min(0)],
        "both": WEIGHTS[y.clamp_min(0)] * (y != 1),
        "mean": torch.ones(9, dtype=D),
    }.get(name, (y != -100).double())
    parameters = list(model.parameters())
    dense = torch.zeros(len(flat(parameters)), len(flat(parameters)), dtype=D)
    for i, w in enumerate(per_sample / per_sample.sum()):
        if w:
            g = flat(GGN(model, loss, x[i : i + 1], y[i : i + 1]).gradient)
            dense += w * torch.outer(g, g)
    v = [torch.randn_like(p) for p in parameters]
    assert_close(flat(fisher.product(v)), dense @ flat(v))


def test_the_empirical_fisher_of_a_sum_is_refused():
    model, x, y = _problem()
    fisher = EmpiricalFisher(model, LOSSES["sum"], x, y)
    with pytest.raises(CurvatureError, match="a mean over samples, not a sum"):
        fisher.product([torch.ones_like(p) for p in model.parameters()])


def test_what_is_not_finite_is_no_matter_of_weights():
    model, x, y = _problem()
    x[1, 2] = torch.nan
    assert MicrobatchCurvature(model, LOSSES["class weights"], x, y, size=2).loss.isnan()
