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
from mlhf.meta.learned import Learned, Unrolled
from mlhf.meta.replay import Starts
from mlhf.meta.trajectory import Point

Weights = dict[str, list[Tensor]]


class _Pair:
    """Two trajectories from one start, and the perturbations that led them apart."""

    def __init__(self, plus: Point, minus: Point, sum_: Weights, age: int) -> None:
        self.plus, self.minus, self.sum, self.age = plus, minus, sum_, age


class PersistentEvolution:
    """The estimator over a number of pairs.

    Args:
        starts: Where trajectories begin; what they end in is given back.
        pairs: Antithetic pairs an estimate.
        sigma: Deviation of the perturbations.
        horizon: Inner steps of a trajectory. The first ones are shorter by different
            amounts, so that pairs do not restart together.
        random: Draws the perturbations.
        rewind: Called between a pair's two unrolls, so that both see the same batches and
            noise: the first call remembers, the second goes back.
    """

    def __init__(
        self, starts: Starts, *, pairs: int, sigma: float, horizon: int,
        random: torch.Generator, rewind: "Rewind",
    ) -> None:  # fmt: skip
        self.starts = starts
        self._pairs: list[_Pair | None] = [None] * pairs
        self._sigma = sigma
        self._horizon = horizon
        self._random = random
        self._rewind = rewind

    def estimate(self, learned: Learned, unroll: Unroll) -> MetaGradient:
        center = _values(learned)
        total = {name: [torch.zeros_like(w) for w in ws] for name, ws in center.items()}
        seen: list[Unrolled] = []
        steps = 0
        for i, pair in enumerate(self._pairs):
            if pair is None:
                point = self.starts.next()
                zero = {name: [torch.zeros_like(w) for w in ws] for name, ws in center.items()}
                # The first generation's ages are spread over the horizon.
                age = 0 if self._begun else self._horizon * i // len(self._pairs)
                pair = _Pair(point, point, zero, age)
            epsilon = self._draw(center)
            pair.sum = _combine(pair.sum, epsilon, 1.0)
            self._rewind.remember()
            ends = []
            with torch.no_grad():
                for sign, point in ((1.0, pair.plus), (-1.0, pair.minus)):
                    if sign < 0:
                        self._rewind.back()
                    _set(learned, _combine(center, epsilon, sign))
                    ends.append(unroll(point))
            _set(learned, center)
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
                self.starts.done(pair.plus, float(plus.error))
                self._pairs[i] = None
            else:
                self._pairs[i] = pair
        self._begun = True
        return MetaGradient(total, _mean([e.losses for e in seen]),
                            _mean([e.stats for e in seen]), steps)  # fmt: skip

    _begun = False

    def state_dict(self) -> dict[str, Any]:
        pairs = [
            None
            if p is None
            else {
                "plus": p.plus.state_dict(),
                "minus": p.minus.state_dict(),
                "sum": p.sum,
                "age": p.age,
            }
            for p in self._pairs
        ]
        return {
            "starts": self.starts.state_dict(),
            "pairs": pairs,
            "begun": self._begun,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.starts.load_state_dict(state["starts"], device)
        self._begun = bool(state["begun"])
        self._random.set_state(state["random"])
        self._pairs = [
            None
            if p is None
            else _Pair(
                Point.of_state(p["plus"], device),
                Point.of_state(p["minus"], device),
                {name: [w.to(device) for w in ws] for name, ws in p["sum"].items()},
                int(p["age"]),
            )
            for p in state["pairs"]
        ]

    def _draw(self, like: Weights) -> Weights:
        return {
            name: [(torch.randn(w.shape, generator=self._random) * self._sigma).to(w) for w in ws]
            for name, ws in like.items()
        }


class Rewind:
    """Generators that go back to where they were."""

    def __init__(self, *generators: torch.Generator) -> None:
        self._generators = generators
        self._states: list[Tensor] = []

    def remember(self) -> None:
        self._states = [g.get_state() for g in self._generators]

    def back(self) -> None:
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)


def _values(learned: Learned) -> Weights:
    return {
        n: [p.detach().clone() for p in net.parameters()] for n, net in learned.networks.items()
    }


def _set(learned: Learned, values: Weights) -> None:
    with torch.no_grad():
        for name, net in learned.networks.items():
            for p, value in zip(net.parameters(), values[name], strict=True):
                p.copy_(value)


def _combine(a: Weights, b: Weights, factor: float) -> Weights:
    return {
        name: [torch.add(x, y, alpha=factor) for x, y in zip(a[name], b[name], strict=True)]
        for name in a
    }


def _mean(values: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([v[name] for v in values]).mean() for name in values[0]}
