"""Losses and what evaluation adds up."""

import pytest
import torch
from torch.nn import functional

from mlhf.data.info import DataInfo
from mlhf.models.loss import (
    flat,
    loss_and_correct,
    loss_name,
)


def test_the_task_decides_the_loss():
    names = {
        task: loss_name(DataInfo("table", (2,), 2, task, 1, 1))
        for task in ("classification", "multilabel", "regression", "language")
    }
    assert names == {
        "classification": "cross_entropy",
        "multilabel": "binary_cross_entropy",
        "regression": "mse",
        "language": "cross_entropy",
    }


def test_several_labels_a_sample_by_hand():
    outputs, targets = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1.0, 0], [0, 1]])
    sums = loss_and_correct("binary_cross_entropy", outputs, targets)
    p = outputs.double().sigmoid()
    chosen = torch.where(targets == 1, p, 1 - p)
    torch.testing.assert_close(sums.loss / sums.count, -chosen.log().mean())
    assert sums.correct / sums.count == 0.75, "three of four labels are right"


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("cross_entropy", torch.randn(8, 5), torch.randint(5, (8,))),
        ("cross_entropy", torch.randn(4, 6, 5), torch.randint(5, (4, 6))),
        ("mse", torch.randn(8, 3), torch.randn(8, 3)),
    ],
)
def test_sums_over_batches_give_the_mean_over_all(name, outputs, targets):
    parts = [
        loss_and_correct(name, o, t)
        for o, t in zip(outputs.split(3), targets.split(3), strict=True)
    ]
    count = sum(part.count for part in parts)
    total = sum(part.loss for part in parts) / count
    whole = loss_and_correct(name, outputs, targets)
    torch.testing.assert_close(total, whole.loss / whole.count)
    if name == "mse":
        assert all(part.correct is None for part in parts)
    else:
        right = outputs.argmax(-1) == targets
        assert sum(part.correct for part in parts) / count == right.float().mean()


def test_every_token_counts_the_same():
    outputs, targets = torch.randn(3, 4, 7), torch.randint(7, (3, 4))
    by_hand = functional.cross_entropy(outputs.transpose(1, 2), targets)
    sums = loss_and_correct("cross_entropy", outputs, targets)
    torch.testing.assert_close((sums.loss / sums.count).float(), by_hand)
    assert [tuple(t.shape) for t in flat(outputs, targets)] == [(12, 7), (12,)]


def test_squared_error_is_the_mean_over_samples_and_outputs():
    outputs, targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    assert loss_and_correct("mse", outputs, targets).loss == 30 / 2


def test_evaluation_keeps_no_graph():
    outputs = torch.randn(2, 3, requires_grad=True)
    assert not loss_and_correct("cross_entropy", outputs, torch.tensor([0, 1])).loss.requires_grad
