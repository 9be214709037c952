"""Persistent evolution strategies (Vicol, Metz & Sohl-Dickstein, arXiv 2112.13835).

Short unrolls of long trajectories, without bias: each pair of trajectories runs under weights
w ± ε, ε fresh for every unroll, and what is correlated with an unroll's loss is the sum ξ of
all ε since the trajectory began, since all of them led there:

    ∇ ≈ ξ (L(w + ε) − L(w − ε)) / (2σ²).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlhf.meta.estimators import MetaGradient, Unroll
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import MetaLearner, UnrollResult
from mlhf.meta.replay import ExperienceReplay

Weights = dict[str, list[Tensor]]


class _AntitheticPair:
    """Two trajectories from one start, and the sum of the first one's perturbations."""

    def __init__(self, plus: InnerState, minus: InnerState, sum_: Weights, age: int) -> None:
        self.plus, self.minus, self.sum, self.age = plus, minus, sum_, age

    def state_dict(self) -> dict[str, Any]:
        return {
            "plus": self.plus.state_dict(),
            "minus": self.minus.state_dict(),
            "sum": self.sum,
            "age": self.age,
        }

    @staticmethod
    def of_state(state: Mapping[str, Any], device: torch.device) -> "_AntitheticPair":
        plus, minus = (InnerState.of_state(state[name], device) for name in ("plus", "minus"))
        sum_ = {name: [w.to(device) for w in ws] for name, ws in state["sum"].items()}
        return _AntitheticPair(plus, minus, sum_, int(state["age"]))


class TruncatedPES:
    """Estimates the meta-gradient from antithetic pairs of trajectories.

    Args:
        replay: Where trajectories start; what they end in is given back.
        pairs: Antithetic pairs per estimate.
        sigma: Standard deviation of the perturbations.
        horizon: Inner steps of a trajectory. The first ones are shorter by different
            amounts, so that pairs do not restart together.
        random: Draws the perturbations.
        snapshot: Of the generators that unrolls draw from, so that both unrolls of a pair see
            the same batches and noise.
    """

    def __init__(
        self,
        replay: ExperienceReplay,
        *,
        pairs: int,
        sigma: float,
        horizon: int,
        random: torch.Generator,
        snapshot: "GeneratorSnapshot",
    ) -> None:
        self.replay = replay
        self._pairs: list[_AntitheticPair | None] = [None] * pairs
        self._sigma = sigma
        self._horizon = horizon
        self._random = random
        self._snapshot = snapshot
        self._begun = False

    def estimate(self, learner: MetaLearner, unroll: Unroll) -> MetaGradient:
        center = _values(learner)
        total = {name: [torch.zeros_like(w) for w in ws] for name, ws in center.items()}
        seen: list[UnrollResult] = []
        steps = 0
        for i, pair in enumerate(self._pairs):
            if pair is None:
                state = self.replay.next()
                zero = {name: [torch.zeros_like(w) for w in ws] for name, ws in center.items()}
                # The first generation's ages are spread over the horizon.
                age = 0 if self._begun else self._horizon * i // len(self._pairs)
                pair = _AntitheticPair(state, state, zero, age)
            epsilon = self._draw(center)
            pair.sum = _combine(pair.sum, epsilon, 1.0)
            self._snapshot.save()
            ends = []
            with torch.no_grad():
                for sign, state in ((1.0, pair.plus), (-1.0, pair.minus)):
                    if sign < 0:
                        self._snapshot.restore()
                    _set(learner, _combine(center, epsilon, sign))
                    ends.append(unroll(state))
            _set(learner, center)
            plus, minus = ends
            seen += ends
            steps += 2 * (plus.end.steps - pair.plus.steps)
            pair.age += plus.end.steps - pair.plus.steps
            for name, sums in pair.sum.items():
                difference = (plus.losses[name] - minus.losses[name]) / (2 * self._sigma**2)
                for t, s in zip(total[name], sums, strict=True):
                    t.add_(s * difference, alpha=1 / len(self._pairs))
            pair.plus, pair.minus = plus.end, minus.end
            finite = all(bool(torch.isfinite(e.error)) for e in ends)
            if pair.age >= self._horizon or not finite:
                self.replay.done(pair.plus, float(plus.error))
                self._pairs[i] = None
            else:
                self._pairs[i] = pair
        self._begun = True
        losses, stats = _mean([e.losses for e in seen]), _mean([e.stats for e in seen])
        return MetaGradient(total, losses, stats, steps)

    def state_dict(self) -> dict[str, Any]:
        pairs = [None if pair is None else pair.state_dict() for pair in self._pairs]
        return {
            "starts": self.replay.state_dict(),
            "pairs": pairs,
            "begun": self._begun,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.replay.load_state_dict(state["starts"], device)
        self._begun = bool(state["begun"])
        self._random.set_state(state["random"])
        self._pairs = [
            None if pair is None else _AntitheticPair.of_state(pair, device)
            for pair in state["pairs"]
        ]

    def _draw(self, like: Weights) -> Weights:
        return {
            name: [(torch.randn(w.shape, generator=self._random) * self._sigma).to(w) for w in ws]
            for name, ws in like.items()
        }


class GeneratorSnapshot:
    """Saves the states of generators, and restores them."""

    def __init__(self, *generators: torch.Generator) -> None:
        self._generators = generators
        self._states: list[Tensor] = []

    def save(self) -> None:
        self._states = [g.get_state() for g in self._generators]

    def restore(self) -> None:
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)


def _values(learner: MetaLearner) -> Weights:
    return {
        n: [p.detach().clone() for p in net.parameters()] for n, net in learner.networks.items()
    }


def _set(learner: MetaLearner, values: Weights) -> None:
    with torch.no_grad():
        for name, net in learner.networks.items():
            for p, value in zip(net.parameters(), values[name], strict=True):
                p.copy_(value)


def _combine(a: Weights, b: Weights, factor: float) -> Weights:
    return {
        name: [torch.add(x, y, alpha=factor) for x, y in zip(a[name], b[name], strict=True)]
        for name in a
    }


def _mean(values: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([v[name] for v in values]).mean() for name in values[0]}
