"""Read curves from their chunks: whole, fewer points of a window, or piece by piece."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
from sqlalchemy.orm import Session

from mlhf.core.metrics import higher_is_better
from mlhf_service.runs import chunks
from mlhf_service.runs.blocks import Block, Floats, Indices, decode, joined
from mlhf_service.runs.chunks import SUMMARY_POINTS, Head
from mlhf_service.runs.curves import Series
from mlhf_service.runs.decoded import Decoded
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.schemas import Position

_AT_ONCE = 64  # chunks whose heads and summaries are read by one query
_STREAMED = 4  # whole chunks that are in memory at a time
# A summary is fine enough if a bucket of the answer is no narrower than two of its own.
_FINE_ENOUGH = SUMMARY_POINTS / 2
_LOOKED_AT = 1000  # points, to find where a window begins and ends
WHOLE = 4096  # points; a longer curve may be read from its summaries
_BEYOND = 2**62  # no step comes after it
# Whoever compares looks again: by another metric, axis or target, or with one more run.
_KEPT = Decoded(most_bytes=64 * 2**20)

NeedsRows = Callable[[Head], bool]
Steps = tuple[int | None, int | None]  # from and to, both included; None: without end


def metrics_of(heads: Sequence[Head]) -> list[str]:
    """The names of what was measured, by the heads of a run's chunks."""
    return sorted({name for head in heads for name in head.extents})


def read(
    session: Session,
    run_id: str,
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    steps: Steps = (None, None),
    x: Axis | None = None,
    heads: Sequence[Head] | None = None,
) -> list[Series]:
    """Curves of a run by metric name, of those metrics that have points.

    Args:
        metrics: None: all.
        limit: The most points of a curve. Where it has many more, only summaries are read.
        steps: The window.
        x: Only points that have a place on this axis are given, and counted.
        heads: Those of all the run's chunks, from who has just read them.
    """
    first, last = steps
    if heads is None:
        heads = chunks.heads(session, run_id, first=first, last=last)
    known = [head for head in heads if _meets(head, steps)]
    counts = {
        name: sum(_count(head, name, x) for head in known)
        for name in metrics_of(known)
        if metrics is None or name in metrics
    }
    wanted = list(counts)

    def needs_rows(head: Head) -> bool:
        return any(
            limit is None or limit * _count(head, name, x) > _FINE_ENOUGH * counts[name]
            for name in wanted
            if name in head.extents and head.summarized(name)
        )

    gathered = {name: _Gathered(run_id, name, x) for name in wanted}
    for head, block, whole in _blocks(session, run_id, wanted, steps, needs_rows, known):
        for name in block.metrics:
            if name in gathered:
                gathered[name].add(head, block, whole)
    found = [one.series(limit) for one in gathered.values()]
    return [one for one in found if one.total or one.unplaced]


def steps_within(
    session: Session,
    run_id: str,
    metrics: Sequence[str],
    x: Axis,
    places: tuple[float | None, float | None],
    steps: Steps = (None, None),
) -> Steps:
    """The steps at which the points of some metrics lie between two places on an axis.

    Both places are included; None: without end. No axis goes back as steps go on, so the points
    between two places are those between two steps. Where there are none, the first step comes
    after the last.
    """
    low, high = places
    if x == "steps":
        first = None if low is None else math.ceil(low)
        last = None if high is None else math.floor(high)
    else:
        first = None if low is None else _first_at(session, run_id, metrics, x, low, "left", steps)
        last = (
            None if high is None else _first_at(session, run_id, metrics, x, high, "right", steps)
        )
        last = None if last is None else last - 1
    return _latest(first, steps[0]), _earliest(last, steps[1])


def _latest(one: int | None, other: int | None) -> int | None:
    return max((step for step in (one, other) if step is not None), default=None)


def _earliest(one: int | None, other: int | None) -> int | None:
    return min((step for step in (one, other) if step is not None), default=None)


def _first_at(
    session: Session,
    run_id: str,
    metrics: Sequence[str],
    x: Axis,
    place: float,
    side: Literal["left", "right"],
    steps: Steps,
) -> int:
    """The first step of a point at (``left``) or behind (``right``) a place; else one too far.

    Few points of the whole say between which two steps to look closer, until all are there.
    """
    found = _BEYOND
    for metric in metrics:
        window = steps
        while series := read(session, run_id, [metric], _LOOKED_AT, window, x):
            (one,) = series
            at = int(np.searchsorted(one.axis(x), place, side))
            if at < len(one):
                found = min(found, int(one.step[at]))
            if not one.downsampled:
                break
            before = int(one.step[at - 1]) + 1 if at else window[0]
            after = int(one.step[at]) if at < len(one) else window[1]
            window = before, after
    return found


def read_many(
    session: Session, run_ids: Sequence[str], metrics: Sequence[str], limit: int | None = None
) -> dict[str, dict[str, Series]]:
    """Some metrics of several runs: run id → metric → curve, where there is one.

    Args:
        limit: The most points of a curve that has more than WHOLE; those are read from their
            summaries, and say so. Shorter ones are whole.
    """
    found: dict[str, dict[str, Series]] = {run_id: {} for run_id in run_ids}
    known = chunks.heads_of(session, run_ids)
    alone = {
        run_id
        for run_id, of_run in known.items()
        if limit is not None and max(_points(of_run, metric) for metric in metrics) > WHOLE
    }
    rows: dict[str, list[Block]] = {}
    heads = {(run_id, head.first): head for run_id, of_run in known.items() for head in of_run}
    summarized = {
        run_id
        for (run_id, _), head in heads.items()
        if any(name in head.extents and head.summarized(name) for name in metrics)
    }
    for all_rows in (True, False):
        ids = known.keys() & summarized if all_rows else known.keys() - summarized
        unread = []
        for run_id in ids - alone:
            looked_up = (_KEPT.get(head.digest, all_rows, metrics) for head in known[run_id])
            kept = [block for block in looked_up if block is not None]
            if len(kept) < len(known[run_id]):
                unread.append(run_id)
                continue
            rows[run_id] = kept
            for head in known[run_id]:
                del heads[run_id, head.first]
        for run_id, first, digest, content in chunks.contents_of(session, unread, whole=all_rows):
            found_head = heads.pop((run_id, first), None)
            if found_head is None or found_head.digest != digest:  # written since
                alone.add(run_id)
            else:
                block = decode(content, metrics)
                _KEPT.put(digest, all_rows, metrics, block)
                rows.setdefault(run_id, []).append(block)
    alone |= {run_id for run_id, _ in heads}
    for run_id in alone:
        found[run_id] = {one.metric: one for one in read(session, run_id, metrics, limit)}
    for run_id in rows.keys() - alone:
        whole = joined(rows[run_id])
        found[run_id] = {
            name: series_of(run_id, whole, name) for name in whole.metrics if name in metrics
        }
    return found


def _points(heads: Sequence[Head], metric: str) -> int:
    return sum(_count(head, metric, None) for head in heads)


def stream(
    sessions: Callable[[], AbstractContextManager[Session]],
    run_id: str,
    metric: str,
    steps: Steps = (None, None),
) -> Iterator[Series]:
    """All of a curve, piece by piece. No connection is held between pieces."""

    def needs_rows(head: Head) -> bool:
        return metric in head.extents and head.summarized(metric)

    after: int | None = None
    while True:
        with sessions() as session:
            found = list(_next(session, run_id, [metric], steps, needs_rows, after, size=_STREAMED))
        if not found:
            return
        yield from (series_of(run_id, block, metric) for _, block, _ in found)
        after = found[-1][0].last


def first_reaching(
    session: Session,
    run_id: str,
    metric: str,
    target: float,
    heads: Sequence[Head] | None = None,
) -> Position | None:
    """The first point at or beyond the target. ``heads`` as in ``read``."""
    higher = higher_is_better(metric)
    for head in chunks.heads(session, run_id) if heads is None else heads:
        extent = head.extents.get(metric)
        best = None if extent is None else extent["max" if higher else "min"]
        if best is None or not (best >= target if higher else best <= target):
            continue
        found = read(session, run_id, [metric], steps=(head.first, head.last), heads=[head])
        if found and (at := found[0].first_reaching(target)) is not None:
            return found[0].position(at)
    return None


class _Gathered:
    """The points of one metric, with their places among all of them."""

    def __init__(self, run_id: str, metric: str, x: Axis | None) -> None:
        self.run_id, self.metric, self.x = run_id, metric, x
        self.parts: list[Series] = []
        self.ranks: list[Floats] = []
        self.total = 0
        self.unplaced = 0

    def add(self, head: Head, block: Block, whole: bool) -> None:
        part = series_of(self.run_id, block, self.metric)
        count = len(part) if whole else head.extents[self.metric]["count"]
        part = part if self.x is None else part.on(self.x)
        placed = len(part) if whole else _count(head, self.metric, self.x)
        if len(part):
            self.parts.append(part)
            places = np.arange(len(part), dtype=np.float64) + 0.5
            self.ranks.append(self.total + places * (placed / len(part)))
        self.total += placed
        self.unplaced += count - placed

    def series(self, limit: int | None) -> Series:
        whole = Series.joined(self.run_id, self.metric, self.parts, self.total, self.unplaced)
        if limit is None or self.total <= limit:
            return whole
        return whole.at_most(limit, np.concatenate(self.ranks))


def series_of(run_id: str, block: Block, metric: str) -> Series:
    """One metric's points of a block."""
    present = block.present.get(metric)
    rows: Indices | slice = np.arange(0)
    if present is not None:
        rows = slice(None) if present.all() else np.flatnonzero(present)
    step = block.step[rows]
    return Series(
        run_id,
        metric,
        step,
        block.samples[rows],
        block.epoch[rows],
        block.wall_seconds[rows],
        block.cpu_seconds[rows],
        block.values[metric][rows] if present is not None else np.empty(0),
        len(step),
    )


def _count(head: Head, metric: str, x: Axis | None) -> int:
    """How many points of a metric a chunk has that have a place on the axis."""
    extent = head.extents.get(metric)
    return 0 if extent is None else extent["placed" if x == "cpu_seconds" else "count"]


def _meets(head: Head, steps: Steps) -> bool:
    first, last = steps
    return (first is None or head.last >= first) and (last is None or head.first <= last)


def _blocks(
    session: Session,
    run_id: str,
    metrics: Sequence[str],
    steps: Steps,
    needs_rows: NeedsRows,
    known: Sequence[Head],
) -> Iterator[tuple[Head, Block, bool]]:
    """The chunks of a window in order, and whether all their rows of the window are given.

    That is so where the window cuts a chunk, or it has no summary, or ``needs_rows`` says so.
    Chunks that are no longer as they were known are looked up again, and so is what follows them.
    """
    after: int | None = None
    for start in range(0, len(known), _AT_ONCE):
        some = known[start : start + _AT_ONCE]
        for head, block, whole in _next(session, run_id, metrics, steps, needs_rows, after, some):
            yield head, block, whole
            after = head.last
        if after != some[-1].last:
            break
    else:
        return
    before = None
    while after != before:
        before = after
        for head, block, whole in _next(session, run_id, metrics, steps, needs_rows, after):
            yield head, block, whole
            after = head.last


def _next(
    session: Session,
    run_id: str,
    metrics: Sequence[str],
    steps: Steps,
    needs_rows: NeedsRows,
    after: int | None,
    known: Sequence[Head] = (),
    size: int = _AT_ONCE,
) -> Iterator[tuple[Head, Block, bool]]:
    """The chunks that follow step ``after``, at least one if there is any.

    A live run's chunks grow and absorb each other between the queries. One that has changed since
    its head was read ends this look; the next goes on behind what was given.

    Args:
        known: Their heads, where they were read before; else ``size`` of them are read.
    """
    first, last = steps
    given = False
    while not given:
        found = known or chunks.heads(
            session, run_id, after=after, first=first, last=last, limit=size
        )
        known = ()
        if not found:
            return
        start = found[0].first if after is None else after + 1
        start = start if first is None else max(start, first)
        whole = {
            head.first
            for head in found
            if head.first < start or (last is not None and head.last > last) or needs_rows(head)
        }
        thin = [head.first for head in found if head.first not in whole]
        read = chunks.contents(session, run_id, thin, whole=False)
        for head in found:
            if head.first in whole:
                read |= chunks.contents(session, run_id, [head.first], whole=True)
            digest, content = read.pop(head.first, ("", b""))
            if digest != head.digest:
                break
            given = True
            block = decode(content, metrics).between(start, last)
            yield head, block, head.first in whole or not head.has_summary
