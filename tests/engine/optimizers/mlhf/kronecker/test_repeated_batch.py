"""Which batches are the same samples, and for which losses that is made use of."""

import pytest
import torch
from torch import nn

from mlhf.optimizers.mlhf.kronecker.repeated_batch import RepeatedBatch, exact_rows

CPU = torch.device("cpu")


def test_losses_that_are_squares_and_models_that_draw_nothing():
    x, y = torch.randn(30, 3), torch.randint(0, 4, (30,))
    model = nn.Linear(3, 4)
    assert exact_rows(model, "cross_entropy", x, y, CPU) is None
    assert exact_rows(model, "mse", x, torch.randn(30, 4), CPU) == 120
    before = torch.get_rng_state()
    assert exact_rows(nn.Dropout(0.5), "mse", x, x, CPU) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "batch",
    [(torch.empty(0, 3), torch.empty(0)), ("text", 1), (torch.ones(3, dtype=torch.cfloat), None)],
)
def test_what_has_no_sums_is_no_repeated_batch(batch):
    seen = RepeatedBatch()
    assert not any(seen.see(*batch) for _ in range(5))
    assert seen.over


def test_tokens_and_structures_have_sums():
    seen = RepeatedBatch()
    x = {"tokens": torch.randint(0, 9, (5, 4)), "mask": torch.ones(5, 4, dtype=torch.bool)}
    assert [seen.see(x, torch.arange(5)) for _ in range(4)] == [False, False, True, True]
