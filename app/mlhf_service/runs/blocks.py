"""Rows of a run's curves as columns: what a chunk holds, in memory and as bytes.

A row is a place on all the axes, with the values of the metrics that were measured there. In
bytes it is an Arrow IPC stream, compressed with zstd, with a column for each axis and each
metric; a null is a metric that was not measured in this row, and NaN and infinities are values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mlhf.core.metrics import higher_is_better, json_number, summarize
from mlhf_service.runs.downsample import select

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_AXES = ("step", "samples", "epoch", "wall_seconds", "cpu_seconds")
_FORMAT = {b"format": b"mlhf-curve-1"}


class Extent(TypedDict):
    """What is known of a metric in a block without reading it.

    ``count`` points, of which ``placed`` have CPU seconds; the smallest and the largest finite
    value, None where there is none.
    """

    count: int
    placed: int
    min: float | None
    max: float | None


@dataclass(frozen=True)
class Block:
    """Rows of the curves of one run; ``values`` and ``present`` have a column for each metric.

    Attributes:
        cpu_seconds: NaN where they were not counted.
        present: Where the metric was measured; its value elsewhere is NaN.
    """

    step: Ints
    samples: Ints
    epoch: Floats
    wall_seconds: Floats
    cpu_seconds: Floats
    values: Mapping[str, Floats]
    present: Mapping[str, Flags]

    @classmethod
    def of_points(cls, points: Sequence[dict[str, Any]]) -> "Block":
        """Build it from points as a trainer reports them, in their order."""
        names = sorted({name for point in points for name in point["values"]})
        values, present = {}, {}
        for name in names:
            column = [point["values"].get(name) for point in points]
            # What is not finite comes as a string, which NumPy parses.
            values[name] = np.array(column, dtype=np.float64)
            present[name] = np.array([value is not None for value in column], dtype=np.bool_)
        return cls(
            np.array([point["step"] for point in points], dtype=np.int64),
            np.array([point["samples"] for point in points], dtype=np.int64),
            np.array([point["epoch"] for point in points], dtype=np.float64),
            np.array([point["wall_seconds"] for point in points], dtype=np.float64),
            np.array([point.get("cpu_seconds") for point in points], dtype=np.float64),
            values,
            present,
        )

    def __len__(self) -> int:
        return len(self.step)

    @cached_property
    def metrics(self) -> list[str]:
        return sorted(self.values)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.nbytes for column in self._columns())

    def read_only(self) -> "Block":
        """The same block, into whose columns nobody can write any more."""
        for column in self._columns():
            column.flags.writeable = False
        return self

    def _columns(self) -> list[npt.NDArray[Any]]:
        axes = (self.step, self.samples, self.epoch, self.wall_seconds, self.cpu_seconds)
        return [*axes, *self.values.values(), *self.present.values()]

    def take(self, rows: Indices | Flags | slice) -> "Block":
        """Some rows; metrics that none of them has are left out."""
        present = {name: flags[rows] for name, flags in self.present.items()}
        kept = [name for name, flags in present.items() if flags.any()]
        return Block(
            self.step[rows],
            self.samples[rows],
            self.epoch[rows],
            self.wall_seconds[rows],
            self.cpu_seconds[rows],
            {name: self.values[name][rows] for name in kept},
            {name: present[name] for name in kept},
        )

    def between(self, first: int | None, last: int | None) -> "Block":
        """The rows of steps from ``first`` to ``last``, both included. Steps ascend."""
        start = 0 if first is None else int(np.searchsorted(self.step, first, "left"))
        end = len(self) if last is None else int(np.searchsorted(self.step, last, "right"))
        return self if end - start == len(self) else self.take(slice(start, max(start, end)))

    def ordered(self) -> "Block":
        """By ascending step, with one value of a metric a step: the one that was added last."""
        ascending = bool((np.diff(self.step) >= 0).all())
        block = self if ascending else self.take(np.argsort(self.step, kind="stable"))
        if not (block.step[1:] == block.step[:-1]).any():
            return block
        present = {}
        for name, flags in block.present.items():
            rows = np.flatnonzero(flags)
            replaced = rows[:-1][block.step[rows[:-1]] == block.step[rows[1:]]]
            present[name] = flags.copy()
            present[name][replaced] = False
        return block._with(present)

    def thinned(self, limit: int) -> "Block":
        """Rows with at most ``limit`` points of each metric: its ends and its extremes."""
        present = {}
        for name, flags in self.present.items():
            rows = np.flatnonzero(flags)
            kept = rows[select(self.values[name][rows], limit)]
            present[name] = np.zeros(len(self), dtype=np.bool_)
            present[name][kept] = True
        return self._with(present)

    def _with(self, present: Mapping[str, Flags]) -> "Block":
        values = {name: np.where(present[name], self.values[name], np.nan) for name in present}
        block = Block(
            self.step,
            self.samples,
            self.epoch,
            self.wall_seconds,
            self.cpu_seconds,
            values,
            present,
        )
        return block.take(np.logical_or.reduce(list(present.values())))

    def pieces(self, rows: int) -> Iterator["Block"]:
        """Cut it into blocks of about ``rows`` rows, never between rows of one step."""
        count = max(1, round(len(self) / rows))
        starts = [0]
        for number in range(1, count):
            step = self.step[number * len(self) // count]
            start = int(np.searchsorted(self.step, step, "left"))
            if start > starts[-1]:
                starts.append(start)
        for start, end in zip(starts, [*starts[1:], len(self)], strict=True):
            yield self.take(slice(start, end))

    def extents(self) -> dict[str, Extent]:
        """What a reader needs to know of each metric to leave the block unread."""
        placed = np.isfinite(self.cpu_seconds)
        found: dict[str, Extent] = {}
        for name, flags in self.present.items():
            values = self.values[name][flags]
            values = values[np.isfinite(values)]
            found[name] = Extent(
                count=int(flags.sum()),
                placed=int((flags & placed).sum()),
                min=float(values.min()) if len(values) else None,
                max=float(values.max()) if len(values) else None,
            )
        return found

    def summarize(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's summary of each metric, as JSON, with these rows' values in it."""
        result = dict(summary)
        for name, flags in self.present.items():
            rows = np.flatnonzero(flags)
            values = self.values[name][rows]
            score = np.where(np.isfinite(values), values, np.nan)
            known = result.get(name)
            if np.isfinite(score).any():
                best = np.nanargmax(score) if higher_is_better(name) else np.nanargmin(score)
                known = summarize(known, name, float(score[best]), int(self.step[rows[best]]))
            known = summarize(known, name, float(values[-1]), int(self.step[rows[-1]]))
            result[name] = {**known, "last": json_number(float(values[-1]))}
        return result


def joined(blocks: Sequence[Block]) -> Block:
    """Put blocks one behind the other; of equal points ``ordered`` keeps the later block's."""
    if len(blocks) == 1:
        return blocks[0]
    names = sorted({name for block in blocks for name in block.values})
    axes: dict[str, Any] = {
        axis: np.concatenate([getattr(block, axis) for block in blocks]) for axis in _AXES
    }
    values = {
        name: np.concatenate(
            [b.values[name] if name in b.values else np.full(len(b), np.nan) for b in blocks]
        )
        for name in names
    }
    present = {
        name: np.concatenate(
            [b.present[name] if name in b.present else np.zeros(len(b), bool) for b in blocks]
        )
        for name in names
    }
    return Block(**axes, values=values, present=present)


def encode(block: Block) -> bytes:
    """The block as bytes."""
    import pyarrow as pa  # here: importing it takes a while, and commands need it rarely

    cpu = pa.array(block.cpu_seconds, mask=np.isnan(block.cpu_seconds))
    axes = [pa.array(getattr(block, axis)) for axis in _AXES[:-1]]
    metrics = [pa.array(block.values[name], mask=~block.present[name]) for name in block.metrics]
    # A metric may be called like an axis: its column has a prefix.
    names = [*_AXES, *(f"value:{name}" for name in block.metrics)]
    batch = pa.record_batch([*axes, cpu, *metrics], names, metadata=_FORMAT)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode(content: bytes, metrics: Sequence[str] | None = None) -> Block:
    """The block of these bytes; of the metrics only those named are decompressed.

    Raises ValueError for bytes of a format of a later version.
    """
    import pyarrow as pa  # here: as above

    schema = pa.ipc.open_stream(content).schema
    if schema.metadata not in (None, _FORMAT):  # None: the same, from before it was named
        raise ValueError(f"a curve of a format that is not known here: {schema.metadata}")
    names = schema.names
    wanted = None if metrics is None else {f"value:{name}" for name in metrics}
    fields = [
        index
        for index, name in enumerate(names)
        if index < len(_AXES) or wanted is None or name in wanted
    ]
    options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    batch = pa.ipc.open_stream(content, options=options).read_next_batch()
    columns = {name: batch.column(at) for at, name in enumerate(batch.schema.names)}
    axes: dict[str, Any] = {
        axis: columns.pop(axis).to_numpy(zero_copy_only=False) for axis in _AXES
    }
    values, present = {}, {}
    for column_name, column in columns.items():
        name = column_name.removeprefix("value:")
        values[name] = column.to_numpy(zero_copy_only=False)
        present[name] = column.is_valid().to_numpy(zero_copy_only=False)
    return Block(**axes, values=values, present=present)
