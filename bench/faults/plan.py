"""What is left of a round: lanes take from it, the quick ones more."""

import random
import threading
from collections import Counter
from collections.abc import Collection, Iterable

from bench.faults.matrix import Scenario

SERVERS = ("broker", "database", "store")


class Plan:
    """Single faults and kills at random that are still to be made.

    Args:
        scenarios: The single faults.
        kills: How often each kind is to be killed at random.
        rng: Decides the order.
    """

    def __init__(
        self, scenarios: Iterable[Scenario], kills: Counter[str], rng: random.Random
    ) -> None:
        self._lock = threading.Lock()
        self.scenarios = list(scenarios)
        rng.shuffle(self.scenarios)
        self.kills = +kills

    def next_scenario(self, kinds: Collection[str]) -> Scenario | None:
        """Take one that a deployment of these kinds can have; those of servers go first.

        Only some lanes have servers, and these would be left with them at the end.
        """
        with self._lock:
            fitting = [each for each in self.scenarios if each.kind in kinds]
            fitting.sort(key=lambda each: each.kind not in SERVERS)
            if fitting:
                self.scenarios.remove(fitting[0])
            return fitting[0] if fitting else None

    def next_kill(self, kinds: Collection[str], rng: random.Random) -> str | None:
        """Take one of these kinds, the more likely the more is left of it."""
        with self._lock:
            left = {kind: count for kind, count in self.kills.items() if kind in kinds}
            if not left:
                return None
            (kind,) = rng.choices(list(left), list(left.values()))
            self.kills -= Counter([kind])
            return kind

    def put_back(self, kind: str) -> None:
        """A kill that was taken was not made."""
        with self._lock:
            self.kills[kind] += 1

    def left(self, kinds: Collection[str]) -> int:
        """How many kills of these kinds there are to make."""
        with self._lock:
            return sum(count for kind, count in self.kills.items() if kind in kinds)
