"""The damping and the preconditioner are their formulas."""

import pytest
import torch

from mlhf.optimizers.mlhf.kronecker.damping import Damping, Scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decays", [None, torch.rand(40)])
def test_they_are_their_formulas(decays, dtype):
    """s = factor (√v̂ + 1e-5 g) + decay, P = 1 / (s + 2D), by the mean v of two squares."""
    torch.manual_seed(0)
    gradients, diagonal = torch.randn(2, 40).to(dtype), torch.rand(40).to(dtype)
    decays = None if decays is None else decays.to(dtype)
    factors = torch.cat([torch.full((11,), 3.0), torch.full((29,), 5.0)]).to(dtype)
    v = 0.01 * (0.99 * gradients[0] ** 2 + 0.5 * gradients[1] ** 2)
    s = factors * ((v / (1 - 0.99**2)).sqrt() + 1e-5 * 4) + 0.1
    inverse = 1 / (s + 2 * diagonal + (0 if decays is None else decays))
    damping = Damping()
    for steps, (b, fraction) in enumerate(zip(gradients, (1.0, 0.5), strict=True)):
        before = damping.second_moment
        kept = None if before is None else before.clone()
        found = damping.step(
            *(b, diagonal, [(11, 3.0), (29, 5.0)]),
            Scales(steps, torch.tensor(4.0).to(dtype), fraction, on_diagonal=2.0, decay=0.1),
            decays,
        )
        assert kept is None or torch.equal(before, kept)  # a skipped step goes back to it
    torch.testing.assert_close(damping.second_moment, v)
    torch.testing.assert_close(found.damping, s)
    torch.testing.assert_close(1 / found.diagonal, inverse)
    torch.testing.assert_close(found.direction, inverse * gradients[1])
    b = gradients[1]
    expected = torch.stack([(inverse * b * b).sum(), (b * b).sum()])
    torch.testing.assert_close(found.products.to(dtype), expected)
