"""Running means that start as plain means."""

import pytest
import torch

from mlhf.optimizers.running_mean import RunningMean


def test_a_running_mean_is_plain_until_it_decays():
    """With decay 0.7 the third value still counts a third, the fourth 0.3."""
    mean, found = RunningMean(0.7), []
    for value in (1.0, 4.0, 10.0, 25.0):
        mean.add([torch.tensor([value]), torch.tensor([-value])])
        assert float(mean.values[1]) == -float(mean.values[0])
        found.append(float(mean.values[0]))
    assert found == pytest.approx([1.0, 2.5, 5.0, 0.7 * 5.0 + 0.3 * 25.0])


def test_it_continues_from_its_state():
    mean, other = RunningMean(0.7), RunningMean(0.7)
    for value in (1.0, 4.0):
        mean.add([torch.tensor([value])])
    other.load_state_dict(mean.state_dict(), torch.zeros(1, dtype=torch.float64))
    for each in (mean, other):
        each.add([torch.tensor([10.0], dtype=each.values[0].dtype)])
    assert other.count == 3
    assert other.values[0].dtype == torch.float64
    assert float(other.values[0]) == pytest.approx(5.0)
    assert float(mean.values[0]) == pytest.approx(5.0)


def test_a_mean_of_nothing_only_counts():
    mean = RunningMean(0.9)
    for _ in range(3):
        mean.add([])
    assert (mean.values, mean.count) == ([], 3)
