"""The stored chunks of curves: append, cut back, and read a few.

A run's chunks cover steps that do not overlap. Points come in small batches: a new one absorbs
the chunks before it while these are no larger than what it has gathered. So each row is written
again about log2(ROWS / batch) times, and a run has few chunks besides whole ones.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, bindparam, delete, func, insert, select
from sqlalchemy.orm import Session

from mlhf_service.database import BINARY_RESULTS
from mlhf_service.kit.among import among
from mlhf_service.runs.blocks import Block, Extent, decode, encode, joined
from mlhf_service.runs.models import CurveChunk

ROWS = 16_384  # of a whole chunk: about half a megabyte of four metrics
SUMMARY_POINTS = 128  # of each metric in a chunk's summary; a metric with no more is all there
_SUMMARIZED = 1024  # rows from which on a chunk has a summary
_SMALL = 256  # rows that are always absorbed: writing them again costs no more than a row
_TAIL = 48  # more chunks than ever wait to be absorbed

_FIRST = CurveChunk.first_step


@dataclass(frozen=True)
class Head:
    """What is known of a chunk before its rows are read."""

    first: int
    last: int
    rows: int
    digest: str
    extents: dict[str, Extent]

    @property
    def has_summary(self) -> bool:
        return self.rows > _SUMMARIZED

    def summarized(self, metric: str) -> bool:
        """Whether the chunk's summary leaves out points of this metric."""
        return self.has_summary and self.extents[metric]["count"] > SUMMARY_POINTS


def append(session: Session, run_id: str, attempt: int, block: Block) -> None:
    """Write rows of a run; a point that is there already is replaced. The caller holds the run.

    Args:
        block: Rows in any order. As many as there are: bulk writes make whole chunks at once.
    """
    block = block.ordered()
    if not len(block):
        return
    tail = _tail(session, run_id)
    if tail and block.step[0] <= tail[0].last:
        end = tail[0].last
        _merge(session, run_id, attempt, block.between(None, end))
        block = block.between(end + 1, None)
        if not len(block):
            return
        tail = _tail(session, run_id)
    gathered, absorbed, rows = [block], [], len(block)
    for head in tail:
        if rows + head.rows > ROWS or head.rows > max(rows, _SMALL):
            break
        absorbed.append(head.first)
        gathered.append(load(session, run_id, head.first))
        rows += head.rows
    _replace(session, run_id, attempt, absorbed, joined(gathered[::-1]))


def cut_back(session: Session, run_id: str, after: int) -> None:
    """Forget all steps after ``after``: they will be trained, and written, again."""
    of_run = CurveChunk.run_id == run_id
    session.execute(
        delete(CurveChunk)
        .where(of_run, CurveChunk.first_step > after)
        .execution_options(synchronize_session=False)
    )
    columns = _bytes(CurveChunk.first_step, CurveChunk.attempt, CurveChunk.data)
    for first, attempt, data in session.execute(
        columns.where(of_run, CurveChunk.last_step > after)
    ):
        _replace(session, run_id, attempt, [first], decode(data).between(None, after))


def heads(
    session: Session,
    run_id: str,
    *,
    after: int | None = None,
    first: int | None = None,
    last: int | None = None,
    limit: int | None = None,
) -> list[Head]:
    """The run's chunks in order; only those that end after ``after`` and meet [first, last]."""
    statement = _heads().where(CurveChunk.run_id == run_id)
    if after is not None:
        statement = statement.where(CurveChunk.last_step > after)
    if first is not None:
        statement = statement.where(CurveChunk.last_step >= first)
    if last is not None:
        statement = statement.where(CurveChunk.first_step <= last)
    statement = statement.order_by(CurveChunk.first_step).limit(limit)
    return [Head(*row) for row in session.execute(statement)]


def load(session: Session, run_id: str, first: int) -> Block:
    """All rows of the chunk that begins at this step."""
    statement = _bytes(CurveChunk.data).where(*_of(run_id, [first]))
    return decode(session.scalars(statement).one())


def contents(
    session: Session, run_id: str, firsts: Sequence[int], *, whole: bool
) -> dict[int, tuple[str, bytes]]:
    """The digest and the bytes of chunks, by first step: all rows, or the summary if there is one.

    Chunks that were absorbed since their heads were read are absent, or have another digest.
    """
    if not firsts:
        return {}
    data = CurveChunk.data if whole else func.coalesce(CurveChunk.summary, CurveChunk.data)
    statement = _bytes(CurveChunk.first_step, CurveChunk.digest, data)
    rows = session.execute(statement.where(*_of(run_id, firsts)))
    return {first: (digest, content) for first, digest, content in rows}


def version(session: Session, run_id: str) -> str:
    """Changes with every change of the run's curves."""
    digests = select(CurveChunk.digest).where(CurveChunk.run_id == run_id)
    found = "".join(session.scalars(digests.order_by(CurveChunk.first_step)))
    return hashlib.blake2b(found.encode(), digest_size=16).hexdigest()


def digests(session: Session, run_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Each run's id with the digest of a chunk of it, in order: all that their curves hold."""
    statement = select(CurveChunk.run_id, CurveChunk.digest)
    statement = statement.where(among(session, CurveChunk.run_id, run_ids))
    found = session.execute(statement.order_by(CurveChunk.run_id, _FIRST))
    return [(run_id, digest) for run_id, digest in found]


def heads_of(session: Session, run_ids: Sequence[str]) -> dict[str, list[Head]]:
    """The chunks of several runs in order, by run; of those that have any."""
    statement = _heads().add_columns(CurveChunk.run_id)
    statement = statement.where(among(session, CurveChunk.run_id, run_ids))
    found: dict[str, list[Head]] = {}
    for *head, run_id in session.execute(statement.order_by(CurveChunk.run_id, _FIRST)):
        found.setdefault(run_id, []).append(Head(*head))
    return found


def contents_of(
    session: Session, run_ids: Sequence[str], *, whole: bool = False
) -> Iterator[tuple[str, int, str, bytes]]:
    """Run, first step, digest and summary of the chunks of several runs; all rows of short ones.

    Args:
        whole: All rows of every chunk.
    """
    data = CurveChunk.data if whole else func.coalesce(CurveChunk.summary, CurveChunk.data)
    statement = _bytes(CurveChunk.run_id, _FIRST, CurveChunk.digest, data)
    wanted = statement.where(among(session, CurveChunk.run_id, run_ids))
    yield from session.execute(wanted.order_by(CurveChunk.run_id, _FIRST))


def _of(run_id: str, firsts: Sequence[int]) -> tuple[ColumnElement[bool], ...]:
    return CurveChunk.run_id == run_id, CurveChunk.first_step.in_(firsts)


def _bytes(*columns: Any) -> Select[Any]:
    return select(*columns).execution_options(**BINARY_RESULTS)


def _heads() -> Select[Any]:
    return select(
        CurveChunk.first_step,
        CurveChunk.last_step,
        CurveChunk.rows,
        CurveChunk.digest,
        CurveChunk.extents,
    )


def _tail(session: Session, run_id: str) -> list[Head]:
    """The run's last chunks, the last one first."""
    return [Head(*row) for row in session.execute(_LAST, {"of_run": run_id})]


_LAST = (  # made once: making a statement takes as long as sending it
    _heads()
    .where(CurveChunk.run_id == bindparam("of_run"))
    .order_by(CurveChunk.first_step.desc())
    .limit(_TAIL)
)


def _merge(session: Session, run_id: str, attempt: int, block: Block) -> None:
    """Put rows that belong before the run's last step into the chunks that cover their steps."""
    starts = np.array([head.first for head in heads(session, run_id)], dtype=np.int64)
    chunk_of = np.maximum(np.searchsorted(starts, block.step, "right") - 1, 0)
    for number in np.unique(chunk_of):
        first = int(starts[number])
        rows = joined([load(session, run_id, first), block.take(chunk_of == number)])
        _replace(session, run_id, attempt, [first], rows.ordered())


def _replace(
    session: Session, run_id: str, attempt: int, firsts: Sequence[int], block: Block
) -> None:
    if firsts:
        session.execute(
            delete(CurveChunk)
            .where(*_of(run_id, firsts))
            .execution_options(synchronize_session=False)
        )
    if len(block):
        rows = [row(run_id, attempt, piece) for piece in block.pieces(ROWS)]
        session.execute(insert(CurveChunk), rows)


def row(run_id: str, attempt: int, block: Block) -> dict[str, Any]:
    """A chunk as the table's columns."""
    data = encode(block)
    summary = encode(block.thinned(SUMMARY_POINTS)) if len(block) > _SUMMARIZED else None
    return {
        "run_id": run_id,
        "first_step": int(block.step[0]),
        "last_step": int(block.step[-1]),
        "attempt": attempt,
        "rows": len(block),
        "digest": hashlib.blake2b(data, digest_size=16).hexdigest(),
        "extents": block.extents(),
        "summary": summary,
        "data": data,
    }
