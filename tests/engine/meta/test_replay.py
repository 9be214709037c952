"""Experience replay: how deep it reaches, what it forgets, and its state."""

import itertools
import random

import torch

from mlhf.meta.config import Replay
from mlhf.meta.inner_state import InnerState
from mlhf.meta.replay import ExperienceReplay


def _fresh(source):
    return InnerState(0, torch.tensor([source.random()]), {})


def _walk(replay, unrolls, error=lambda steps: 0.0):
    begun = []
    for _ in range(unrolls):
        start = replay.next()
        begun.append(start)
        end = InnerState(0, start.theta + 1, {}, start.steps + 10, {"d": torch.ones(1)})
        replay.done(end, error(end.steps))
    return begun


def test_starts_lie_along_the_whole_training():
    # Whether the error falls or rises along training, or says nothing.
    for error in (lambda s: 1 / (1 + s), lambda s: s / (10 + s), lambda s: 0.0):
        replay = ExperienceReplay(Replay(), _fresh, seed=0)
        depths = [p.steps for p in _walk(replay, 3000, error)[1000:]]
        assert min(depths) == 0
        assert max(depths) >= 120
        assert sum(d >= 50 for d in depths) > 0.1 * len(depths)
        assert sum(d <= 100 for d in depths) > 0.1 * len(depths)


def test_trained_by_its_own_error_replay_reaches_late_places():
    """With progress as what is good, the places where little is left to gain come back."""
    replay = ExperienceReplay(Replay(), _fresh, seed=0)
    depths = [p.steps for p in _walk(replay, 3000, error=lambda s: -1 / (1 + s))[1000:]]
    assert max(depths) >= 500


def test_what_does_badly_comes_back_more_often():
    replay = ExperienceReplay(Replay(keep=0.0, fresh=0.0, exponent=1.0), _fresh, seed=0)
    for depth, error in ((10, 0.1), (20, 5.0), (30, 1.0)):
        replay.done(InnerState(0, torch.zeros(1), {}, depth), error)
    counts = dict.fromkeys((10, 20, 30), 0)
    for _ in range(3000):
        counts[replay._sample().steps] += 1
    shares = [counts[d] / 3000 for d in (20, 30, 10)]  # 1 : 1/2 : 1/3
    assert all(abs(s - e) < 0.04 for s, e in zip(shares, (6 / 11, 3 / 11, 2 / 11), strict=True))


def test_nothing_is_remembered_at_a_restart_but_all_where_it_goes_on():
    replay = ExperienceReplay(Replay(keep=0.5), _fresh, seed=0)
    begun = _walk(replay, 200)
    went_on = [p for p in begun if p.memory]
    assert 60 < len(went_on) < 140
    for before, after in itertools.pairwise(begun):
        if after.memory:
            assert after.steps == before.steps + 10


def test_places_that_are_not_finite_are_not_kept():
    replay = ExperienceReplay(Replay(keep=0.5, fresh=0.0), _fresh, seed=0)
    for _ in range(20):
        start = replay.next()
        assert bool(torch.isfinite(start.theta).all())
        replay.done(InnerState(0, torch.tensor([float("nan")]), {}, start.steps + 1), 0.0)
    assert [entry.state.steps for entry in replay._stored] == [0]


def test_it_goes_on_as_if_nothing_had_happened():
    one = ExperienceReplay(Replay(capacity=5), _fresh, seed=0)
    _walk(one, 40)
    other = ExperienceReplay(Replay(capacity=5), _fresh, seed=99)
    other.load_state_dict(one.state_dict(), torch.device("cpu"))
    random.seed(1)
    a, b = _walk(one, 40), _walk(other, 40)
    assert [(p.steps, float(p.theta)) for p in a] == [(p.steps, float(p.theta)) for p in b]
