"""What was done and found, gathered from all lanes, and kept in a file from which to go on."""

import json
import statistics
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

_SEVERAL = "several"  # a burst of faults of different kinds


class Report:
    """Counts of faults made, seconds to recover from them, and what was wrong after them.

    Args:
        journal: A file with a line for all that happens. What an earlier part of the same round
            wrote there counts.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._journal = journal
        self.kills: Counter[str] = Counter()
        self.at_random: Counter[str] = Counter()  # of the kills
        self.stops: Counter[str] = Counter()
        self.jobs = 0
        self.attempts: list[int] = []
        self.seconds = 0.0  # of earlier parts
        self.made: set[str] = set()  # single and special faults
        self.wrong: list[str] = []
        self.misses: list[str] = []
        self.specials: list[str] = []
        self.recovery: dict[tuple[str, str], list[float]] = defaultdict(list)
        for line in _lines(journal):
            self._count(line)

    def killed(self, kind: str, *, at_random: bool = True) -> None:
        self._add({"what": "kill", "kind": kind, "at_random": at_random})

    def stopped(self, kind: str) -> None:
        self._add({"what": "stop", "kind": kind})

    def job(self, attempts: int) -> None:
        """A disturbed job has ended, at its n-th attempt."""
        self._add({"what": "job", "attempts": attempts})

    def recovered(self, scenario: Any, seconds: float) -> None:
        """One scenario was made; the job got on so many seconds after its end."""
        self._add({"what": "made", "name": str(scenario)})
        self.got_on([(scenario.kind, scenario.action)], seconds)
        self._say(f"{scenario}: {seconds:.1f} s")

    def got_on(self, faults: list[tuple[str, str]], seconds: float) -> None:
        """So many seconds after these faults, each a kind and an action, a job had got on."""
        kinds = {kind for kind, _ in faults}
        kind, action = faults[0] if len(kinds) == 1 else (_SEVERAL, "kill")
        self._add({"what": "recovered", "kind": kind, "action": action, "seconds": seconds})

    def special(self, name: str, found: list[str]) -> None:
        """A fault that is no signal was made."""
        self._add({"what": "special", "name": name})
        self._say(name)
        self.faults(found)

    def skipped(self, reason: str) -> list[str]:
        """A fault could not be made here."""
        self._say(f"skipped: {reason}")
        return []

    def missed(self, scenario: Any) -> None:
        """The moment, or the process, was not met."""
        self._add({"what": "missed", "name": str(scenario)})

    def faults(self, found: list[str]) -> None:
        """Something is wrong after a fault."""
        for fault in found:
            self._add({"what": "wrong", "text": fault})
            self._say(f"WRONG: {fault}")

    def close(self) -> None:
        """Note how long this part took."""
        self._add({"what": "seconds", "seconds": time.monotonic() - self._began})
        self._began = time.monotonic()

    def text(self) -> str:
        """The report."""
        total = self.seconds + time.monotonic() - self._began
        attempts = sum(self.attempts)
        lines = [
            f"{self.jobs} jobs disturbed, {attempts} attempts, in {total:.0f} s",
            _ROW.format("", "kills", "at random", "stops", "got on after a kill", "after a stop"),
        ]
        kinds = sorted(self.kills | self.stops)
        for kind in [*kinds, _SEVERAL]:
            after = [_spread(self.recovery.get((kind, action), [])) for action in ("kill", "stop")]
            counts = (self.kills[kind], self.at_random[kind], self.stops[kind])
            lines.append(_ROW.format(kind, *(counts if kind in kinds else ("",) * 3), *after))
        if self.specials:
            lines.append(f"also: {'; '.join(self.specials)}")
        if self.misses:
            lines.append(f"moments not met: {len(self.misses)}: {', '.join(self.misses[:5])}")
        lines += self.wrong or ["no job lost or ended twice, each step once, weights bit for bit"]
        return "\n".join(lines)

    def _add(self, line: dict[str, Any]) -> None:
        with self._lock:
            line["at"] = round(time.monotonic() - self._began, 1)
            self._count(line)
            if self._journal is not None:
                with self._journal.open("a") as file:
                    file.write(json.dumps(line) + "\n")

    def _count(self, line: dict[str, Any]) -> None:
        match line:
            case {"what": "kill", "kind": kind, "at_random": at_random}:
                self.kills[kind] += 1
                self.at_random[kind] += at_random
            case {"what": "stop", "kind": kind}:
                self.stops[kind] += 1
            case {"what": "job", "attempts": attempts}:
                self.jobs += 1
                self.attempts.append(attempts)
            case {"what": "made", "name": name}:
                self.made.add(name)
            case {"what": "special", "name": name}:
                self.made.add(name)
                self.specials.append(name)
            case {"what": "missed", "name": name}:
                self.misses.append(name)
            case {"what": "recovered", "kind": kind, "action": action, "seconds": seconds}:
                self.recovery[kind, action].append(seconds)
            case {"what": "wrong", "text": text}:
                self.wrong.append(text)
            case {"what": "seconds", "seconds": seconds}:
                self.seconds += seconds

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.0f} s] {text}", flush=True)


_ROW = "{:10} {:>6} {:>10} {:>6}  {:32} {:32}"


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return ""
    late = statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    late = min(late, max(seconds))
    median = statistics.median(seconds)
    return f"{len(seconds)}: p50 {median:.1f}, p95 {late:.1f}, max {max(seconds):.1f} s"


def _lines(journal: Path | None) -> list[dict[str, Any]]:
    if journal is None or not journal.exists():
        return []
    found = []
    for line in journal.read_text().splitlines():
        with suppress(ValueError):  # cut off by a kill
            found.append(json.loads(line))
    return found
