"""A search over single weights, on common random numbers.

Evolution strategies compare each perturbation with its opposite alone. Here all candidates
train the same networks from the same initialisations on the same batches, so that a difference
between two is far less noisy than either, and a change of one weight can be told to help or
not: docs/research.md, section 22.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from mlhf.core.seeds import derive
from mlhf.meta.config import Search
from mlhf.meta.estimators import Unroll
from mlhf.meta.learned import Learned
from mlhf.meta.method import Advance
from mlhf.meta.moves import Move, each_by, place
from mlhf.meta.trajectory import Point

Weights = dict[str, dict[str, Tensor]]


class CoordinateSearch:
    """Tries moves in turn and keeps those that lower the mean meta-loss.

    An iteration is one whole run; a candidate runs once for each seed and task. One that is not
    ahead after all the tasks of a seed is given up there: most are, at a part of their price.
    The first candidate is the start. A move that is kept is tried again from where it led, and
    its opposite left out; after a pass in which none was kept all are halved.

    Args:
        search: The moves, and when one is kept.
        tasks: How many tasks there are.
        seed: Of initialisations, batches and draws.
        start: Returns a task's point of departure, by its index and a seed.
        unroll: A whole run from a point, on the next batches.
        streams: What batches and draws come from: set anew before each run.
    """

    smoothing = 0.0

    def __init__(
        self, search: Search, *, tasks: int, seed: int,
        start: Callable[[int, int], Point], unroll: Unroll, streams: Sequence[torch.Generator],
    ) -> None:  # fmt: skip
        self._tasks = tasks
        self._moves = search.moves or each_by(search.step)
        self._margin, self._seeds = search.margin, search.seeds
        self._seed, self._start, self._unroll, self._streams = seed, start, unroll, streams
        self._losses: list[float] = []  # of the candidate's runs so far
        self._best: list[float] = []  # of those of what is kept
        self._at, self._scale, self._kept_any = 0, 1.0, False
        self._tried: list[dict[str, Any]] = []

    def advance(self, learned: Learned, iteration: int) -> Advance:
        """Take the candidate's next run and, when that decides, keep the candidate or leave it."""
        seed, task = divmod(len(self._losses), self._tasks)
        for purpose, stream in enumerate(self._streams):
            stream.manual_seed(derive(self._seed, "search", task, seed, purpose))
        torch.manual_seed(derive(self._seed, "search dropout", task, seed))
        kept = _values(learned)
        start = self._start(task, derive(self._seed, "search start", task, seed) >> 15)
        with torch.no_grad():
            _put(learned, self._moved(kept))
            run = self._unroll(start)
            _put(learned, kept)
        self._losses.append(float(run.error))
        steps = run.end.steps - start.steps
        if not self._decided():
            return Advance({}, {}, steps)
        tried = self._judge()
        if tried["kept"]:
            _put(learned, self._moved(kept))
        self._next(tried)
        losses = torch.tensor(mean(self._best))
        stats = {name: torch.tensor(tried[name]) for name in ("candidate", "difference")}
        return Advance({"step": losses}, stats, steps, math.isfinite(tried["candidate"]))

    def lineage(self) -> dict[str, Any]:
        return {"tried": [dict(tried) for tried in self._tried]}

    def state_dict(self) -> dict[str, Any]:
        state = {
            "losses": list(self._losses),
            "best": list(self._best),
            "at": self._at,
            "scale": self._scale,
            "kept_any": self._kept_any,
            **self.lineage(),
        }
        return {"search": state}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        state = state["search"]
        self._losses = [float(v) for v in state["losses"]]
        self._best = [float(v) for v in state["best"]]
        self._at, self._scale = int(state["at"]), float(state["scale"])
        self._kept_any = bool(state["kept_any"])
        self._tried = [dict(tried) for tried in state["tried"]]

    def _move(self) -> Move:
        """Return the candidate's move; nothing for the start."""
        if not self._best:
            return {}
        return {name: value * self._scale for name, value in self._moves[self._at].items()}

    def _moved(self, weights: Weights) -> Weights:
        moved = {n: {k: v.clone() for k, v in of.items()} for n, of in weights.items()}
        for name, value in self._move().items():
            network, tensor, index = place(name)
            moved[network][tensor][index] += value
        return moved

    def _apart(self) -> list[float]:
        """Return by how much the candidate's runs are above those of what is kept."""
        best = self._best or self._losses
        return [a - b for a, b in zip(self._losses, best, strict=False)]

    def _decided(self) -> bool:
        """Return whether enough runs are done to keep the candidate or leave it."""
        seeds, rest = divmod(len(self._losses), self._tasks)
        if rest:
            return False
        behind = bool(self._best) and not mean(self._apart()) < 0  # or not a number
        return behind or seeds == self._seeds

    def _judge(self) -> dict[str, Any]:
        """Return what the lineage says of the candidate, whose runs are done."""
        apart = self._apart()
        error = stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        whole = len(apart) == self._tasks * self._seeds
        tried = {
            "move": self._move(),
            "runs": len(apart),
            "candidate": mean(self._best or self._losses) + mean(apart),
            "difference": mean(apart),
            "error": error,
            "kept": bool(self._best) and whole and mean(apart) < -self._margin * error,
        }
        self._tried.append(tried)
        return tried

    def _next(self, tried: Mapping[str, Any]) -> None:
        """Choose the next candidate's move."""
        losses, self._losses = self._losses, []
        if not self._best:
            self._best = losses
            return
        if tried["kept"]:
            self._best, self._kept_any = losses, True
            return
        # After a move that helped, its opposite need not be tried.
        helped = len(self._tried) > 1 and self._tried[-2]["kept"]
        self._at += 2 if helped and _opposite(self._moves, self._at) else 1
        if self._at >= len(self._moves):
            self._scale *= 1.0 if self._kept_any else 0.5
            self._at, self._kept_any = 0, False


def _opposite(moves: Sequence[Move], at: int) -> bool:
    """Return whether the move after this one takes it back."""
    if at + 1 >= len(moves):
        return False
    return {name: -value for name, value in moves[at].items()} == moves[at + 1]


def _values(learned: Learned) -> Weights:
    return {
        name: {k: v.detach().clone() for k, v in net.state_dict().items()}
        for name, net in learned.networks.items()
    }


def _put(learned: Learned, weights: Weights) -> None:
    for name, net in learned.networks.items():
        net.load_state_dict(weights[name])
