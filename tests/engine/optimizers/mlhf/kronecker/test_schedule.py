"""Updates become rare, and never rarer than asked for."""

from itertools import pairwise

import pytest

from mlhf.optimizers.mlhf.kronecker.schedule import Schedule


def steps_of_updates(steps: int, *, tracked: bool) -> tuple[list[int], list[int]]:
    """The steps at which factors, and at which bases, are worked on."""
    schedule = Schedule(update_every=10, refresh_every=40)
    updates, refreshes = [], []
    for step in range(steps):
        if step >= schedule.next_update:
            updates.append(step)
            schedule.updated(step, tracked=tracked)
        if step >= schedule.next_refresh:
            refreshes.append(step)
            schedule.refreshed(step, tracked=tracked)
    return updates, refreshes


@pytest.mark.parametrize(("tracked", "every"), [(False, (40, 7)), (True, (3, 3))])
def test_the_interval_grows_by_one_over_so_many_steps(
    tracked: bool, every: tuple[int, int]
) -> None:
    for found, growth, most in zip(
        steps_of_updates(1000, tracked=tracked), every, (10, 40), strict=True
    ):
        assert found[0] == 0
        for step, following in pairwise(found):
            assert following - step == min(most, max(1, step // growth))
        assert found[-1] - found[-2] == most


def test_factors_and_bases_do_not_move_each_other() -> None:
    schedule = Schedule(update_every=10, refresh_every=40)
    schedule.updated(100, tracked=False)
    assert (schedule.next_update, schedule.next_refresh) == (102, 0)
    schedule.refreshed(100, tracked=True)
    assert (schedule.next_update, schedule.next_refresh) == (102, 133)
