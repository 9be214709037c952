"""Options are checked when an optimizer is made: the error names option, value and what may be."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mlhf import GGN, MLHF, HessianFree
from mlhf.optimizers.damping import AdamDamping, FixedDamping
from mlhf.optimizers.first_order.shampoo import Shampoo
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt


def _paper(model, *args, **options):
    return MLHF(model, *args, variant="paper", **options)


CLASSES = [MLHF, _paper, HessianFree, Kfac, L2L]
EVERYWHERE = [
    *(("lr", value) for value in (-1, math.nan, math.inf, "0.1", None)),
    *(("weight_decay", value) for value in (-1, math.nan, True)),
    *(("max_skipped_steps", value) for value in (-1, 1.5)),
    *(("loss", value) for value in ("cross_entropi", 3, None)),
]
FURTHER = [
    *((c, "iterations", v) for c in (MLHF, _paper, HessianFree) for v in (0, -1, 2.0)),
    *((c, "autocast", v) for c in (MLHF, _paper, HessianFree) for v in ("bfloat16", torch.int8)),
    *((c, "meta_checkpoint", v) for c in (MLHF, _paper, L2L) for v in (3, 0.5, {})),
    *((c, "tolerance", v) for c in (_paper, HessianFree) for v in (-1e-6, math.nan)),
    *((c, "micro_batch", v) for c in (_paper, HessianFree) for v in (0, 2.5)),
    *((c, "curvature_batch", v) for c in (_paper, HessianFree) for v in (0, -3)),
    *((c, "max_dimension", v) for c in (MLHF, Kfac) for v in (0, 1.5)),
    *((c, "decay", v) for c in (MLHF, Kfac) for v in (2, 1, -0.1)),
    *((c, "damping", v) for c in (MLHF, Kfac) for v in (-1, math.inf, "adam")),
    *((HessianFree, "damping", v) for v in (-1, 0.5, "adem", None)),
    *((HessianFree, "warm_start", v) for v in (-0.1, 1.5)),
    *((MLHF, name, 0) for name in ("solve_every", "update_every", "refresh_every", "samples")),
    *((MLHF, "growth_steps", v) for v in (0, -1)),
    *((MLHF, "average", v) for v in (-0.1, 1.1)),
    *((MLHF, "seed", v) for v in (0.5, None)),
    (_paper, "kernel", "cuda"),
    (_paper, "compile", "yes"),
    *((Kfac, "momentum", v) for v in (1.0, -0.5)),
    *((Kfac, name, 0) for name in ("factors_every", "inverse_every", "kl_clip", "norm_clip")),
    (Kfac, "fisher", "exakt"),
]


def _model():
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("kind", "name", "value"), [*((c, n, v) for c in CLASSES for n, v in EVERYWHERE), *FURTHER]
)
def test_what_is_not_allowed_is_named(kind, name, value):
    with pytest.raises(ValueError, match=name) as error:
        kind(_model(), **{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (FixedDamping, "damping", -1),
        *((AdamDamping, "damping", v) for v in (-1, math.nan)),
        *((AdamDamping, "growth_steps", v) for v in (0, -1)),
        *((AdamDamping, "beta2", v) for v in (1, 2)),
        (AdamDamping, "eps", -1e-5),
        *((LevenbergMarquardt, "bounds", v) for v in ((2, 1), (-1, 1))),
        (LevenbergMarquardt, "decrease", 1.5),
        (LevenbergMarquardt, "increase", 0.5),
    ],
)
def test_dampings_are_checked(kind, name, value):
    with pytest.raises(ValueError, match=name) as error:
        kind(**{name: value})
    assert str(value) in str(error.value)


def test_shampoo_is_checked():
    with pytest.raises(ValueError, match="precondition_every=0"):
        Shampoo(_model().parameters(), precondition_every=0)


def test_the_treatment_of_indefinite_losses_is_checked():
    with pytest.raises(ValueError, match=r"'positive' .* 'positive_part', 'magnitude', 'exact'"):
        GGN(_model(), "mse", torch.ones(4, 3), torch.ones(4, 2), indefinite="positive")


def test_what_is_allowed_is_said():
    with pytest.raises(
        ValueError, match="lr=-1 is not allowed: it should be greater than or equal to 0"
    ):
        MLHF(_model(), lr=-1)
    with pytest.raises(ValueError, match="known: binary_cross_entropy, cross_entropy, mse"):
        MLHF(_model(), "mze")


def test_numbers_of_numpy_are_numbers():
    MLHF(_model(), lr=np.float32(0.5), samples=np.int64(3))


@pytest.mark.parametrize("kind", CLASSES)
def test_parameters_in_place_of_the_model_are_refused(kind):
    with pytest.raises(TypeError, match=r"the model itself, an nn.Module, not a generator"):
        kind(_model().parameters())
