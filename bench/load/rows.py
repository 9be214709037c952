"""Jobs and runs as a busy year leaves them: all kinds and states, sweeps, tags, names."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]

SWEEP_RUNS = 100
_OPTIMIZERS = ("adam", "adamw", "sgd", "momentum", "hf_adam", "mlhf", "kfac", "shampoo", "soap")
_MODELS = (("mlp", 40), ("cnn", 25), ("resnet", 15), ("transformer", 12), ("lstm", 8))
_DATASETS = (("digits", 50), ("fashion_mnist", 25), ("cifar10", 20), ("ds_" + 26 * "0", 5))
_ENDED = (("succeeded", 89), ("failed", 7), ("cancelled", 4))
_STATUSES = (*_ENDED, ("queued", 30), ("paused", 5))
_KINDS = (("train", 96), ("meta_train", 2), ("ablation", 2))
_TEAMS = ("vision", "text", "theory", "robots", "speech")
_WORDS = ("warmup", "baseline", "ablation", "final", "retry", "depth", "width", "decay", "noise")
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Batch:
    """Rows of some jobs, by table, in an order that foreign keys allow."""

    jobs: list[Row] = field(default_factory=list)
    job_tags: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    job_events: list[Row] = field(default_factory=list)


def batches(runs: int, seed: int = 0, jobs_a_batch: int = 200) -> Iterator[Batch]:
    """About ``runs`` runs: half of them in sweeps of 100, the others one a job."""
    chance = random.Random(seed)
    batch, made, number = Batch(), 0, 0
    while made < runs:
        sweep = chance.random() < 1 / (SWEEP_RUNS + 1)
        made += _job(batch, chance, number, SWEEP_RUNS if sweep else 1)
        number += 1
        if len(batch.jobs) >= jobs_a_batch:
            yield batch
            batch = Batch()
    yield batch


def identity(prefix: str, at: datetime, chance: random.Random) -> str:
    """An id as the service makes them, of a given moment."""
    stamp, digits = int(at.timestamp() * 1000), ""
    for _ in range(10):
        stamp, digit = divmod(stamp, 32)
        digits = _CROCKFORD[digit] + digits
    return f"{prefix}_{digits}" + "".join(chance.choices(_CROCKFORD, k=16))


def _pick(chance: random.Random, choices: tuple[tuple[str, int], ...]) -> str:
    return chance.choices([c for c, _ in choices], [w for _, w in choices])[0]


def _job(batch: Batch, chance: random.Random, number: int, count: int) -> int:
    created = _BEGIN + timedelta(minutes=5 * number, seconds=chance.random() * 60)
    job_id = identity("job", created, chance)
    kind = "sweep" if count > 1 else _pick(chance, _KINDS)
    model, dataset = _pick(chance, _MODELS), _pick(chance, _DATASETS)
    team, word = chance.choice(_TEAMS), chance.choice(_WORDS)
    name = f"{team} {word} {model} on {dataset} #{number}"
    spec = _config(model, dataset, chance.choice(_OPTIMIZERS), 0) | {"kind": kind, "name": name}
    choices = _STATUSES if chance.random() < 0.05 else _ENDED  # few jobs are under way
    statuses = [_pick(chance, choices) for _ in range(count)]
    for position, status in enumerate(statuses):
        optimizer = _OPTIMIZERS[position % 9] if count > 1 else spec["optimizer"]["name"]
        batch.runs.append(_run(chance, job_id, position, status, created, optimizer, spec))
    ended = all(s in ("succeeded", "failed", "cancelled") for s in statuses)
    status = statuses[0] if count == 1 else ("succeeded" if ended else "running")
    batch.jobs.append(
        {
            "id": job_id,
            "kind": kind,
            "name": name,
            "status": status,
            "desired": None,
            "spec": spec,
            "error": None,
            "event_seq": 2,
            "created_at": created,
            "started_at": created if status not in ("queued", "paused") else None,
            "finished_at": created + timedelta(minutes=3) if ended else None,
        }
    )
    batch.job_tags += [
        {"job_id": job_id, "key": "team", "value": team},
        {"job_id": job_id, "key": "paper", "value": f"p{chance.randrange(500)}"},
    ]
    batch.job_events += [
        {"job_id": job_id, "seq": seq, "type": "status", "data": {"status": s}, "at": created}
        for seq, s in ((1, "queued"), (2, status))
    ]
    return count


def _config(model: str, dataset: str, optimizer: str, seed: int) -> Row:
    return {
        "model": {"name": model, "params": {"hidden": [256, 128, 64], "activation": "tanh"}},
        "dataset": {"name": dataset, "params": {"split": "compare"}},
        "optimizer": {"name": optimizer, "params": {"lr": 0.003, "betas": [0.9, 0.999]}},
        "budget": {"epochs": 20.0},
        "batch_size": 64,
        "seed": seed,
        "target": {"metric": "train_loss", "value": 0.1},
        "evaluation": {"every": {"epochs": 1.0}, "max_samples": 10_000},
        "device": "cpu",
    }


def _run(
    chance: random.Random,
    job_id: str,
    position: int,
    status: str,
    created: datetime,
    optimizer: str,
    spec: Row,
) -> Row:
    done = 1.0 if status == "succeeded" else chance.random()
    measured = status not in ("queued", "paused")
    steps = round(1000 * done)
    place = {"samples": 64 * steps, "epoch": steps / 50, "wall_seconds": steps / 100}
    totals = {"steps": steps, "samples": 64 * steps, "epochs": steps / 50}
    totals["wall_seconds"] = steps / 100
    progress = {"step": steps, "total_steps": 1000, "fraction": done, **place}
    environment = {"device": "cpu", "threads": 1, "versions": {"torch": "2.13"}}
    of = {"last": chance.random(), "best": chance.random(), "best_step": steps}
    measures = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    kind, name = spec["kind"], spec["name"]
    return {
        "id": identity("run", created, chance),
        "job_id": job_id,
        "position": position,
        "name": f"{name}: {optimizer} seed {position}" if kind == "sweep" else name,
        "kind": "train" if kind == "sweep" else kind,
        "status": status,
        "config": {**spec, "optimizer": {"name": optimizer, "params": {"lr": 0.003}}},
        "model": spec["model"]["name"],
        "dataset": spec["dataset"]["name"],
        "optimizer": optimizer,
        "seed": position,
        "queue": "cpu",
        "attempt": int(measured),
        "failures": 0,
        "available_at": 4e9 if status == "queued" else 0.0,  # workers leave them alone
        "spool_offset": 0,
        "progress": progress if measured else None,
        "environment": environment if measured else None,
        "data_info": {"family": "digits", "train_samples": 1400, "test_samples": 397},
        "summary": dict.fromkeys(measures, of) if measured else None,
        "totals": totals if measured else None,
        "error": {"type": "/problems/lost", "title": "The run was lost", "status": 500}
        if status == "failed"
        else None,
        "created_at": created,
        "started_at": created if measured else None,
        "finished_at": created + timedelta(minutes=3) if measured else None,
    }
