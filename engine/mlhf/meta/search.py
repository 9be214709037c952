"""A search over single weights, on common random numbers.

Evolution strategies compare each perturbation with its opposite alone. Here all candidates
train the same networks from the same initializations on the same batches. A difference between
two is then far less noisy than either, and shows whether a change of one weight helps:
docs/research.md#weight-search.
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
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import MetaLearner
from mlhf.meta.moves import Move, coordinate_moves, locate_weight
from mlhf.meta.outer_optimizer import OuterStep

Weights = dict[str, dict[str, Tensor]]


class CoordinateSearch:
    """Tries moves in turn and keeps those that lower the mean meta-loss.

    An iteration is one whole run; a candidate runs once per seed and task. A candidate that is
    not ahead after all the tasks of a seed is given up: most are, at a fraction of the cost. The
    first candidate has the weights unchanged. A move that is kept is tried again from there, and
    its opposite is skipped. After a pass that kept none, all moves are halved.

    Args:
        search: The moves, and when one is kept.
        tasks: How many tasks there are.
        seed: Of initializations, batches and draws.
        start: Returns a task's initial state, by its index and a seed.
        unroll: Does a whole run from a state, on the next batches.
        streams: The generators of batches and draws, seeded before each run.
    """

    smoothing = 0.0

    def __init__(
        self,
        search: Search,
        *,
        tasks: int,
        seed: int,
        start: Callable[[int, int], InnerState],
        unroll: Unroll,
        streams: Sequence[torch.Generator],
    ) -> None:
        self._tasks = tasks
        self._moves = search.moves or coordinate_moves(search.step)
        self._margin, self._seeds = search.margin, search.seeds
        self._seed, self._start, self._unroll, self._streams = seed, start, unroll, streams
        self._losses: list[float] = []  # of the candidate's runs so far
        self._best: list[float] = []  # of the kept weights' runs
        self._at, self._scale, self._kept_any = 0, 1.0, False
        self._tried: list[dict[str, Any]] = []

    def step(self, learner: MetaLearner, iteration: int) -> OuterStep:
        """Do the candidate's next run; if that decides, keep or discard the candidate."""
        seed, task = divmod(len(self._losses), self._tasks)
        for purpose, stream in enumerate(self._streams):
            stream.manual_seed(derive(self._seed, "search", task, seed, purpose))
        torch.manual_seed(derive(self._seed, "search dropout", task, seed))
        kept = _weights_of(learner)
        start = self._start(task, derive(self._seed, "search start", task, seed) >> 15)
        with torch.no_grad():
            _set_weights(learner, self._moved(kept))
            run = self._unroll(start)
            _set_weights(learner, kept)
        self._losses.append(float(run.error))
        steps = run.end.steps - start.steps
        if not self._decided():
            return OuterStep({}, {}, steps)
        tried = self._record_candidate()
        if tried["kept"]:
            _set_weights(learner, self._moved(kept))
        self._next(tried)
        losses = torch.tensor(mean(self._best))
        stats = {name: torch.tensor(tried[name]) for name in ("candidate", "difference")}
        return OuterStep({"step": losses}, stats, steps, math.isfinite(tried["candidate"]))

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
        """Return the candidate's move; the first has none."""
        if not self._best:
            return {}
        return {name: value * self._scale for name, value in self._moves[self._at].items()}

    def _moved(self, weights: Weights) -> Weights:
        moved = {n: {k: v.clone() for k, v in of.items()} for n, of in weights.items()}
        for name, value in self._move().items():
            network, tensor, index = locate_weight(name)
            moved[network][tensor][index] += value
        return moved

    def _differences(self) -> list[float]:
        """Return by how much the candidate's losses are above those of the kept weights."""
        best = self._best or self._losses
        return [a - b for a, b in zip(self._losses, best, strict=False)]

    def _decided(self) -> bool:
        """Return whether enough runs are done to keep or discard the candidate."""
        seeds, rest = divmod(len(self._losses), self._tasks)
        if rest:
            return False
        behind = bool(self._best) and not mean(self._differences()) < 0  # or NaN
        return behind or seeds == self._seeds

    def _record_candidate(self) -> dict[str, Any]:
        """Add the candidate, whose runs are done, to the lineage; return its entry."""
        differences = self._differences()
        error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
        whole = len(differences) == self._tasks * self._seeds
        tried = {
            "move": self._move(),
            "runs": len(differences),
            "candidate": mean(self._best or self._losses) + mean(differences),
            "difference": mean(differences),
            "error": error,
            "kept": bool(self._best) and whole and mean(differences) < -self._margin * error,
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
        # After a move that helped, its opposite is skipped.
        helped = len(self._tried) > 1 and self._tried[-2]["kept"]
        self._at += 2 if helped and _opposite(self._moves, self._at) else 1
        if self._at >= len(self._moves):
            self._scale *= 1.0 if self._kept_any else 0.5
            self._at, self._kept_any = 0, False


def _opposite(moves: Sequence[Move], at: int) -> bool:
    """Return whether the next move undoes this one."""
    if at + 1 >= len(moves):
        return False
    return {name: -value for name, value in moves[at].items()} == moves[at + 1]


def _weights_of(learner: MetaLearner) -> Weights:
    return {
        name: {k: v.detach().clone() for k, v in net.state_dict().items()}
        for name, net in learner.networks.items()
    }


def _set_weights(learner: MetaLearner, weights: Weights) -> None:
    for name, net in learner.networks.items():
        net.load_state_dict(weights[name])
