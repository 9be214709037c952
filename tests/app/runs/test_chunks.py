"""Chunks of curves: what is written is what is read, however it came, on both databases."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, func, select

from mlhf_service.database import Database
from mlhf_service.runs import chunks, reading
from mlhf_service.runs.blocks import Block, decode, encode, joined
from mlhf_service.runs.models import CurveChunk
from tests.app.conftest import Rows
from tests.app.stored_points import stored_points

ROWS = 256


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a few hundred steps have many, with summaries."""
    monkeypatch.setattr(chunks, "ROWS", ROWS)
    monkeypatch.setattr(chunks, "_SUMMARIZED", 32)
    monkeypatch.setattr(chunks, "_SMALL", 4)
    monkeypatch.setattr(chunks, "SUMMARY_POINTS", 16)
    monkeypatch.setattr(reading, "_FINE_ENOUGH", 8)


def point(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "samples": 64 * step,
        "epoch": step / 22,
        "wall_seconds": 0.1 * step,
        "cpu_seconds": 0.2 * step if step % 2 else None,
        "values": values or {"batch_loss": 1.0 / (1 + step * step)},
    }


def append(database: Database, run_id: str, *points: dict[str, Any]) -> None:
    with database.write() as session:
        chunks.append(session, run_id, 1, Block.of_points(points))


def curve(database: Database, run_id: str, metric: str = "batch_loss") -> dict[int, float]:
    found = [p for p in stored_points(database, run_id) if p.metric == metric]
    assert len(found) == len({p.step for p in found})
    return {p.step: p.value for p in found}


def test_bytes_keep_every_bit_and_tell_nan_from_absent() -> None:
    odd = [0.1 + 0.2, 5e-324, math.nan, math.inf, -math.inf, -0.0]
    points = [point(step, loss=value) for step, value in enumerate(odd)]
    points.append(point(6, **{"samples": 2.0, "other": "Infinity"}))
    found = decode(encode(Block.of_points(points)))
    assert found.values["loss"][:6].tobytes() == np.array(odd).tobytes()
    assert found.present["loss"].tolist() == [True] * 6 + [False]
    assert found.present["samples"].tolist() == [False] * 6 + [True]
    assert found.values["other"][6] == math.inf
    assert found.cpu_seconds[1] == 0.2
    assert np.isnan(found.cpu_seconds[0])
    assert decode(encode(found), ["other"]).metrics == ["other"]


def test_a_chunk_from_before_formats_were_named_is_read() -> None:
    import pyarrow as pa

    block = Block.of_points([point(1), point(2)])
    with pa.ipc.open_stream(encode(block)) as reader:
        batch = reader.read_next_batch().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    read = decode(sink.getvalue().to_pybytes())
    assert read.step.tolist() == block.step.tolist()
    assert read.metrics == block.metrics


def test_a_later_format_is_refused() -> None:
    content = encode(Block.of_points([point(1)]))
    with pytest.raises(ValueError, match="curve-9"):
        decode(content.replace(b"mlhf-curve-1", b"mlhf-curve-9"))


@pytest.mark.parametrize(("batch", "steps"), [(1, 270), (3, 700), (40, 700), (700, 700)])
def test_batches_of_any_size_make_few_chunks(
    database: Database, rows: Rows, small: None, batch: int, steps: int
) -> None:
    run = rows.run()
    for start in range(0, steps, batch):
        append(database, run, *(point(step) for step in range(start, min(start + batch, steps))))
    assert curve(database, run) == {step: 1.0 / (1 + step * step) for step in range(steps)}
    with database.read() as session:
        sizes = list(session.scalars(select(CurveChunk.rows).order_by(CurveChunk.first_step)))
    assert max(sizes) <= ROWS * 1.5
    assert len(sizes) <= steps / (ROWS / 2) + math.log2(ROWS) + 2


def test_rows_are_not_written_again_and_again(
    database: Database, rows: Rows, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    row = chunks.row

    def counted(run_id: str, attempt: int, block: Block) -> dict[str, Any]:
        written.append(len(block))
        return row(run_id, attempt, block)

    monkeypatch.setattr(chunks, "row", counted)
    run = rows.run()
    for step in range(400):
        append(database, run, point(step))
    assert sum(written) < 400 * (math.log2(ROWS) + 4)


def test_late_and_repeated_points_find_their_place(
    database: Database, rows: Rows, small: None
) -> None:
    run = rows.run()
    for start in range(0, 600, 50):
        append(database, run, *(point(step) for step in range(start, start + 50)))
    late = [point(3, test_loss=0.5), point(300, batch_loss=7.0), point(599, test_loss=0.25)]
    append(database, run, *late, point(-5), point(600), point(600, batch_loss=9.0))
    found = curve(database, run)
    assert sorted(found) == [-5, *range(601)]
    assert (found[300], found[600]) == (7.0, 9.0)
    assert curve(database, run, "test_loss") == {3: 0.5, 599: 0.25}
    with database.read() as session:
        spans = [(head.first, head.last) for head in chunks.heads(session, run)]
    assert all(a[1] < b[0] for a, b in pairwise(spans)), "chunks overlap"


@pytest.mark.parametrize("after", [-1, 0, 255, 256, 399, 2000])
def test_a_curve_is_cut_back(database: Database, rows: Rows, small: None, after: int) -> None:
    run, other = rows.run(), rows.run()
    append(database, run, *(point(step) for step in range(1000)))
    append(database, other, point(1000))
    with database.write() as session:
        chunks.cut_back(session, run, after)
    assert sorted(curve(database, run)) == list(range(min(after + 1, 1000)))
    append(database, run, point(after + 1), point(after + 2))
    assert len(curve(database, run)) == min(after + 1, 1000) + 2
    assert len(curve(database, other)) == 1


@pytest.fixture
def long(database: Database, rows: Rows, small: None) -> str:
    """3,000 steps with spikes, NaN, and sparse evaluations."""
    run = rows.run()
    points = [point(step, batch_loss=math.sin(step / 100)) for step in range(3000)]
    points[1234]["values"]["batch_loss"] = 50.0
    points[77]["values"]["batch_loss"] = "NaN"
    points[2999]["values"]["batch_loss"] = -70.0
    points += [point(step, test_loss=float(step)) for step in range(0, 3000, 500)]
    append(database, run, *points)
    return run


@pytest.mark.parametrize("limit", [4, 20, 200, 2000])
def test_fewer_points_are_those_of_the_curve_with_its_extremes(
    database: Database, long: str, limit: int
) -> None:
    with database.read() as session:
        whole = {one.metric: one for one in reading.read(session, long)}
        thin = {one.metric: one for one in reading.read(session, long, limit=limit)}
    some, every = thin["batch_loss"], whole["batch_loss"]
    assert (some.total, every.total, len(every)) == (3000, 3000, 3000)
    assert limit / 4 <= len(some) <= limit
    of_step = dict(zip(every.step.tolist(), every.value.tolist(), strict=True))
    for step, value in zip(some.step.tolist(), some.value.tolist(), strict=True):
        assert of_step[step] == value or (step == 77 and math.isnan(value))
    assert np.diff(some.step).min() > 0
    assert (some.step[0], some.step[-1]) == (0, 2999)
    if limit >= 20:
        assert {1234, 77} <= set(some.step.tolist())
        # No stretch is left out: each bucket has points of its own.
        assert np.diff(some.step).max() < 3000 / (limit / 2) * 4
        assert thin["test_loss"].step.tolist() == list(range(0, 3000, 500))


@pytest.mark.parametrize("steps", [(None, 10), (100, 131), (250, 1300), (2500, None), (5000, None)])
@pytest.mark.parametrize("limit", [None, 16])
def test_a_window_is_cut_to_the_step(
    database: Database, long: str, steps: reading.Steps, limit: int | None
) -> None:
    first, last = steps
    expected = [
        step for step in range(first or 0, 3000 if last is None else last + 1) if step < 3000
    ]
    with database.read() as session:
        found = reading.read(session, long, ["batch_loss"], limit, steps)
    if not expected:
        assert found == []
        return
    (one,) = found
    assert one.total == len(expected)
    assert (one.step[0], one.step[-1]) == (expected[0], expected[-1])
    assert len(one) == len(expected) if limit is None else len(one) <= limit


def test_points_without_a_place_are_counted(database: Database, long: str) -> None:
    with database.read() as session:
        for limit in (None, 40):
            (one,) = reading.read(session, long, ["batch_loss"], limit, x="cpu_seconds")
            assert (one.total, one.unplaced) == (1500, 1500)
            assert np.isfinite(one.cpu_seconds).all()


def test_few_points_are_read_from_summaries_alone(
    database: Database, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    contents = chunks.contents

    def watched(session: Any, run_id: str, firsts: Any, *, whole: bool) -> Any:
        asked.extend([whole] * len(firsts))
        return contents(session, run_id, firsts, whole=whole)

    monkeypatch.setattr(chunks, "contents", watched)
    with database.read() as session:
        reading.read(session, long, limit=40)
        assert asked
        assert not any(asked)
        reading.read(session, long, ["test_loss"])
        assert not any(asked), "a sparse metric is all in the summaries"
        asked.clear()
        reading.read(session, long, ["batch_loss"], 40, (100, 2900))
        assert sum(asked) == 2, "the chunks that the window cuts"


def test_bytes_are_not_sent_as_text(database: Database, long: str) -> None:
    formats: list[int] = []

    def look(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "curve_chunks.data" in statement:
            formats.append(getattr(cursor, "format", 1))  # SQLite's have none

    event.listen(database.engine, "after_cursor_execute", look)
    with database.read() as session:
        reading.read(session, long, limit=40)
        reading.read(session, long)
        reading.read_many(session, [long], ["batch_loss"])
        assert formats
        assert set(formats) == {1}
    with database.write() as session:
        formats.clear()
        chunks.append(session, long, 1, Block.of_points([point(3001)]))
        chunks.cut_back(session, long, 100)
    assert formats
    assert set(formats) == {1}


def test_the_target_is_found_without_reading_all(database: Database, long: str) -> None:
    with database.read() as session:
        found = reading.first_reaching(session, long, "batch_loss", -60.0)
        assert found is not None
        assert found.step == 2999
        assert reading.first_reaching(session, long, "batch_loss", -71.0) is None
        assert reading.first_reaching(session, long, "absent", 0.0) is None


def test_a_curve_read_while_it_is_compacted_is_whole(
    database: Database, long: str, small: None
) -> None:
    """Between two pieces of a stream the chunks before and behind are written anew."""
    pieces = reading.stream(database.read, long, "batch_loss")
    steps = next(pieces).step.tolist()
    with database.write() as session:
        heads = chunks.heads(session, long)
        block = chunks.load(session, long, heads[0].first)
        for head in heads:
            block = joined([block, chunks.load(session, long, head.first)])
        chunks._replace(session, long, 2, [head.first for head in heads], block.ordered())
    steps += [step for piece in pieces for step in piece.step.tolist()]
    assert steps == list(range(3000))


@pytest.mark.parametrize("at_once", [3, 64])
@pytest.mark.parametrize("written", [slice(0, 5), slice(4, 9), slice(0, None), slice(0, 0)])
def test_a_curve_whose_heads_are_no_longer_true_is_whole(
    database: Database,
    long: str,
    small: None,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    written: slice,
) -> None:
    """Chunks absorb each other between the reading of their heads and of their rows."""
    monkeypatch.setattr(reading, "_AT_ONCE", at_once)
    with database.read() as session:
        heads = chunks.heads(session, long)
        of_steps = (600, 2900)
        before = reading.read(session, long, ["batch_loss"])
        window = reading.read(session, long, ["batch_loss"], steps=of_steps)
    assert len(heads) > 9
    firsts = [head.first for head in heads[written]]
    with database.write() as session:
        if firsts:
            block = joined([chunks.load(session, long, first) for first in firsts])
            monkeypatch.setattr(chunks, "ROWS", 10_000)
            chunks._replace(session, long, 2, firsts, block)
    with database.read() as session:
        found = reading.read(session, long, ["batch_loss"], heads=heads)
        cut = reading.read(session, long, ["batch_loss"], steps=of_steps, heads=heads)
    for one, wanted in ((found, before), (cut, window)):
        assert one[0].step.tolist() == wanted[0].step.tolist()
        assert one[0].value.tobytes() == wanted[0].value.tobytes()


def test_heads_are_read_once(
    database: Database, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    heads = chunks.heads

    def watched(session: Any, run_id: str, **window: Any) -> Any:
        asked.append(run_id)
        return heads(session, run_id, **window)

    monkeypatch.setattr(chunks, "heads", watched)
    with database.read() as session:
        reading.read(session, long, ["batch_loss"])
        assert len(asked) == 1
        known = heads(session, long)
        reading.read(session, long, ["batch_loss"], heads=known)
        assert reading.first_reaching(session, long, "batch_loss", -60.0, known) is not None
    assert len(asked) == 1, "none where they are known"


def test_deleting_a_run_deletes_its_chunks(database: Database, long: str) -> None:
    from mlhf_service.runs.models import Run

    with database.write() as session:
        session.delete(session.get_one(Run, long))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(CurveChunk)) == 0
