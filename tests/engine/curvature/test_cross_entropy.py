"""Cross-entropy's value, gradient and Hessian against the mean written out, in float64."""

import pytest
import torch
from torch import Tensor

from mlhf.curvature.losses import cross_entropy

_TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def _reference(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the value, the gradient (n,) and the Hessian (n, n) of logits with n elements."""
    classes = y.reshape(-1).tolist()

    def value(flat: Tensor) -> Tensor:
        rows = flat.reshape(-1, z.shape[-1])
        log_p = rows - rows.logsumexp(-1, keepdim=True)
        return -torch.stack([log_p[i, c] for i, c in enumerate(classes) if c != -100]).mean()

    flat = z.double().flatten()
    return value(flat), torch.func.grad(value)(flat), torch.func.hessian(value)(flat)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4)])
@pytest.mark.parametrize("ignored", [False, True])
def test_of_any_shape_and_precision(shape, dtype, ignored):
    generator = torch.Generator().manual_seed(0)
    z = (3 * torch.randn(shape, generator=generator)).to(dtype)
    y = torch.randint(4, shape[:-1], generator=generator, dtype=torch.int32)
    if ignored and y.ndim:
        y[0] = -100 if y.ndim == 1 else torch.tensor([1, -100, 2])
    u = torch.randn(shape, generator=generator).to(dtype)
    at = cross_entropy(z, y)
    value, gradient, hessian = _reference(z, y)
    tolerance = _TOLERANCES.get(dtype, 2e-2)
    for found, expected in (
        (at.value, value),
        (at.gradient.flatten(), gradient),
        (at.hessian_product(u).flatten(), hessian @ u.double().flatten()),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_of_nothing_is_zero():
    z = torch.zeros(0, 4)
    at = cross_entropy(z, torch.zeros(0, dtype=torch.long))
    assert at.value == 0
    assert at.gradient.shape == at.hessian_product(z).shape == z.shape


def test_where_all_is_ignored_there_is_no_mean_and_no_gradient():
    at = cross_entropy(torch.randn(3, 4), torch.full((3,), -100))
    assert at.value.isnan()
    assert not at.gradient.any()
    assert not at.hessian_product(torch.randn(3, 4)).any()
