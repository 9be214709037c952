"""How many steps a budget is, against taking the batches one by one."""

from fractions import Fraction

import pytest

from mlhf.core.budget import Budget, total_steps
from mlhf.core.errors import DataError
from mlhf.training.order import BatchOrder

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies

_SIZES = st.integers(min_value=1, max_value=40)


def _counted(budget, train_samples, batch_size):
    """Iterate until a limit is reached."""
    order = BatchOrder(train_samples, batch_size, seed=0)
    steps = samples = 0
    while True:
        samples += len(order.next())
        steps += 1
        if (
            steps == budget.steps
            or (budget.samples is not None and samples >= budget.samples)
            or (
                budget.epochs is not None
                and Fraction(steps, order.steps_per_epoch)
                >= Fraction(budget.epochs).limit_denominator(1000)
            )
        ):
            return steps


@given(
    train_samples=_SIZES,
    batch_size=_SIZES,
    epochs=st.none() | st.integers(1, 500).map(lambda n: n / 100),
    steps=st.none() | st.integers(1, 120),
    samples=st.none() | st.integers(1, 150),
)
def test_a_budget_is_as_many_steps_as_its_batches_are_counted(
    train_samples, batch_size, epochs, steps, samples
):
    if epochs is steps is samples is None:
        steps = 1
    budget = Budget(epochs=epochs, steps=steps, samples=samples, wall_seconds=1.0)
    expected = _counted(budget, train_samples, batch_size)
    assert total_steps(budget, train_samples, batch_size) == expected


def test_time_alone_tells_no_steps():
    assert total_steps(Budget(wall_seconds=1.0), 10, 2) is None


def test_no_steps_without_samples():
    with pytest.raises(DataError, match="empty"):
        total_steps(Budget(samples=1), 0, 8)
