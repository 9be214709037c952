"""The penalty and its gradient, against autograd in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kronecker.penalty import add_gradient, penalty


class Turned:
    """Stands for a basis: any linear map will do."""

    def rotate(self, vectors: Sequence[Tensor]) -> Tensor:
        return torch.cat([2 * v.detach().flatten() for v in vectors])


@pytest.mark.parametrize("decay", [0.0, 0.1, [0.1, 0.0]])
def test_penalty_and_gradient_are_those_of_autograd(decay: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 2), (4,))
    ]
    each = decay if isinstance(decay, list) else [decay, decay]
    expected = sum(0.5 * d * (p**2).sum() for d, p in zip(each, parameters, strict=True))
    assert isinstance(expected, Tensor)
    with torch.no_grad():
        found = penalty(decay, parameters)
    if decay:
        torch.testing.assert_close(found, expected.detach())
    else:
        assert found is None

    gradients = torch.autograd.grad(expected, parameters)
    b = torch.ones(10, dtype=torch.float64)
    with torch.no_grad():
        decays = add_gradient(b, decay, parameters, Turned())  # type: ignore[arg-type]
    torch.testing.assert_close(b, 1 + Turned().rotate(gradients))
    if isinstance(decay, list):
        assert decays is not None
        assert decays.tolist() == [0.1] * 6 + [0.0] * 4
    else:
        assert decays is None
