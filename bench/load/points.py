"""Curves for runs that are there: one of a million steps, and as many of a thousand as it takes."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import insert

from mlhf_service.database import Database
from mlhf_service.runs import chunks
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.models import CurveChunk

METRICS = ("batch_loss", "learning_rate", "train_loss", "train_accuracy")
LONG_STEPS, STEPS = 1_000_000, 1000
_RUNS_A_TRANSACTION = 100


def add(database: Database, run_ids: Sequence[str], points: int) -> int:
    """Give runs about ``points`` points, at most one curve each; returns how many there are."""
    chance = np.random.default_rng(0)
    longest, *others = run_ids[::-1]  # the newest: lists show it
    done = 0
    with database.write() as session:
        for first in range(1, LONG_STEPS, chunks.ROWS):
            block = _block(chance, first, min(chunks.ROWS, LONG_STEPS - first + 1))
            session.execute(insert(CurveChunk), [chunks.row(longest, 1, block)])
            done += len(block) * len(METRICS)
    for start in range(0, len(others), _RUNS_A_TRANSACTION):
        if done >= points:
            break
        some = others[start : start + _RUNS_A_TRANSACTION]
        rows = [chunks.row(run_id, 1, _block(chance, 1, STEPS)) for run_id in some]
        with database.write() as session:
            session.execute(insert(CurveChunk), rows)
        done += len(rows) * STEPS * len(METRICS)
    return done


def _block(chance: np.random.Generator, first: int, count: int) -> Block:
    step = np.arange(first, first + count, dtype=np.int64)
    loss = 2.0 / np.sqrt(step) + 0.05 * chance.standard_normal(count)
    columns = (loss, np.full(count, 1e-3), np.abs(loss), 1.0 - np.abs(loss) / 3)
    return Block(
        step=step,
        samples=64 * step,
        epoch=step / 50.0,
        wall_seconds=step / 100.0,
        cpu_seconds=step / 100.0,
        values=dict(zip(METRICS, columns, strict=True)),
        present=dict.fromkeys(METRICS, np.ones(count, dtype=np.bool_)),
    )
