"""The migrations make exactly the tables of the code, on both databases, and keep what was."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from mlhf_service.database import Database
from mlhf_service.datasets.models import Dataset
from mlhf_service.jobs import tally
from mlhf_service.jobs.models import Job
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.meta_checkpoints.service import resolve
from mlhf_service.migrate import _alone as migrating
from mlhf_service.migrate import differences, migrate
from mlhf_service.runs.models import Run
from tests.waiting import until


def test_migrated_databases_match_the_code(database: Database) -> None:
    with database.engine.connect() as connection:
        assert differences(connection) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database)
    with database.engine.connect() as connection:
        assert differences(connection) == []


def test_one_process_waits_for_anothers_migration(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than a request waits for a lock, or for an answer."""
    limits = " ".join(
        f"-c {name}=300ms"
        for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    )
    monkeypatch.setattr("mlhf_service.database._LIMITS", limits)
    monkeypatch.setattr("mlhf_service.database._BUSY_SECONDS", 0.1)
    other = Database(database.url.render_as_string(hide_password=False))
    with ThreadPoolExecutor() as pool:
        with migrating(database):
            waiting = pool.submit(migrate, other)
            until(lambda: "Waiting for it" in caplog.text or waiting.done(), "it said nothing")
            time.sleep(1.0)
            assert not waiting.done()
        waiting.result()
    with migrating(other) as connection:
        assert connection.scalar(text("select 1")) == 1
        if not other.is_sqlite:
            assert connection.scalar(text("show lock_timeout")) == "300ms"  # of tables in use
            assert connection.scalar(text("show statement_timeout")) == "0"
    other.dispose()


def insert(connection: Connection, table: str, **fields: object) -> None:
    """Add a row as the first schema has it: without the code's present tables."""
    names = ", ".join(fields)
    values = ", ".join(f":{name}" for name in fields)
    connection.execute(text(f"insert into {table} ({names}) values ({values})"), fields)


@pytest.fixture(params=["sqlite", "postgresql"])
def at_first(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database that has only seen the first migration."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/first.sqlite3")
        migrate(database, "0001")
        yield database
        database.dispose()
        return
    url = request.getfixturevalue("postgresql_url")
    name = f"mlhf_test_{uuid4().hex[:12]}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"create database {name}"))
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    database = Database(own)
    try:
        migrate(database, "0001")
        yield database
    finally:
        database.dispose()
        with server.connect() as connection:
            connection.execute(text(f"drop database {name} with (force)"))
        server.dispose()


SHIPPED, PAPER = "mc_shipped_mlhf", "mc_shipped_mlhf_paper"
TASKS = [{"model": {"name": "mlp", "params": {}}, "dataset": {"name": "digits", "params": {}}}]
TIME = "2026-01-01 00:00:00"


def train_config(optimizer: str, **params: object) -> dict[str, object]:
    return {"model": {"name": "mlp"}, "optimizer": {"name": optimizer, "params": params}}


# The run's kind, the job's specification, the run's configuration and its meta-checkpoint.
JOBS: dict[str, tuple[str, dict[str, object], dict[str, object], str | None]] = {
    "default": (
        "train",
        {"kind": "train", "optimizer": {"name": "mlhf", "params": {}}},
        train_config("mlhf", iterations=4, meta_checkpoint=SHIPPED),
        SHIPPED,
    ),
    "untrained": (
        "train",
        {"kind": "train", "optimizer": {"name": "mlhf", "params": {"meta_checkpoint": "none"}}},
        train_config("mlhf", meta_checkpoint="none", variant="paper"),
        None,
    ),
    "sweep": (
        "train",
        {
            "kind": "sweep",
            "optimizers": [
                {"name": "adam", "params": {}, "grid": {"lr": [0.1]}},
                {"name": "mlhf", "params": {}, "grid": {"meta_checkpoint": ["none", SHIPPED]}},
            ],
        },
        train_config("mlhf", meta_checkpoint="mc_own"),
        "mc_own",
    ),
    "meta": (
        "meta_train",
        {"kind": "meta_train", "optimizer": "mlhf", "start": SHIPPED, "tasks": TASKS},
        {"optimizer": "mlhf", "start": SHIPPED, "tasks": TASKS},
        SHIPPED,
    ),
    "others": (
        "train",
        {"kind": "train", "name": "mlhf", "optimizer": {"name": "l2l", "params": {}}},
        train_config("l2l", meta_checkpoint="mc_shipped_l2l"),
        "mc_shipped_l2l",
    ),
}
EXPECTED: dict[str, tuple[dict[str, object], dict[str, object], str | None]] = {
    "default": (
        {"kind": "train", "optimizer": {"name": "mlhf", "params": {"variant": "paper"}}},
        train_config("mlhf", iterations=4, meta_checkpoint=PAPER, variant="paper"),
        PAPER,
    ),
    "untrained": (
        {
            "kind": "train",
            "optimizer": {
                "name": "mlhf",
                "params": {"meta_checkpoint": "none", "variant": "paper"},
            },
        },
        train_config("mlhf", meta_checkpoint="none", variant="paper"),
        None,
    ),
    "sweep": (
        {
            "kind": "sweep",
            "optimizers": [
                {"name": "adam", "params": {}, "grid": {"lr": [0.1]}},
                {
                    "name": "mlhf",
                    "params": {"variant": "paper"},
                    "grid": {"meta_checkpoint": ["none", PAPER]},
                },
            ],
        },
        train_config("mlhf", meta_checkpoint="mc_own", variant="paper"),
        "mc_own",
    ),
    "meta": (
        {
            "kind": "meta_train",
            "optimizer": "mlhf",
            "variant": "paper",
            "start": PAPER,
            "tasks": TASKS,
        },
        {"optimizer": "mlhf", "variant": "paper", "start": PAPER, "tasks": TASKS},
        PAPER,
    ),
    "others": (JOBS["others"][1], JOBS["others"][2], "mc_shipped_l2l"),
}


def test_what_was_mlhf_before_is_its_variant_paper(at_first: Database) -> None:
    with at_first.engine.begin() as connection:
        for name, (kind, spec, config, used) in JOBS.items():
            insert(
                connection,
                "jobs",
                id=name,
                kind=spec["kind"],
                name=name,
                status="failed",
                spec=json.dumps(spec),
                event_seq=0,
                created_at=TIME,
            )
            insert(
                connection,
                "runs",
                id=name,
                job_id=name,
                position=0,
                name=name,
                kind=kind,
                status="failed",
                config=json.dumps(config),
                model="mlp",
                dataset="digits",
                optimizer="l2l" if name == "others" else "mlhf",
                seed=0,
                meta_checkpoint_id=used,
                queue="cpu",
                attempt=1,
                failures=0,
                available_at=0.0,
                spool_offset=0,
                created_at=TIME,
            )
        for identity, optimizer in (("mc_own", "mlhf"), ("mc_other", "l2l")):
            insert(
                connection,
                "meta_checkpoints",
                id=identity,
                name="mine",
                optimizer=optimizer,
                source="meta_train",
                parent_id=f"mc_shipped_{optimizer}",
                lineage="{}",
                size=1,
                sha256="0",
                storage_key="k",
                created_at=TIME,
            )
            insert(
                connection,
                "meta_checkpoint_aliases",
                optimizer=optimizer,
                alias="default",
                meta_checkpoint_id=identity,
            )

    migrate(at_first)

    with at_first.read() as session:
        for name, (spec, config, used) in EXPECTED.items():
            run = session.get_one(Run, name)
            assert session.get_one(Job, name).spec == spec, name
            assert (run.config, run.meta_checkpoint_id) == (config, used), name
        made = {row.id: (row.optimizer, row.parent_id) for row in session.query(MetaCheckpoint)}
        assert made == {"mc_own": ("mlhf_paper", PAPER), "mc_other": ("l2l", "mc_shipped_l2l")}
        aliases = {a.optimizer: a.meta_checkpoint_id for a in session.query(MetaCheckpointAlias)}
        assert aliases == {"mlhf_paper": "mc_own", "l2l": "mc_other"}
        assert resolve(session, "mlhf_paper", "default") == "mc_own"
        assert resolve(session, "mlhf", "default") == SHIPPED


def test_earlier_uploads_keep_the_rules_they_were_read_by(at_first: Database) -> None:
    given = {
        "images": ("image_folder", {"size": 8}),
        "table": ("table", {"target": "y"}),
        "text": ("text", {}),
    }
    with at_first.engine.begin() as connection:
        for name, (form, params) in given.items():
            insert(
                connection,
                "datasets",
                id=name,
                name=name,
                format=form,
                params=json.dumps(params),
                info="{}",
                sha256="0",
                size=1,
                storage_key="k",
                created_at=TIME,
            )

    migrate(at_first)

    with at_first.read() as session:
        found = {row.id: row for row in session.query(Dataset)}
        assert found["images"].params == {"size": 8, "rules": 1}
        assert found["table"].params == {"target": "y", "rules": 1}
        assert found["text"].params == {}
        assert {row.report for row in found.values()} == {None}


def test_jobs_that_had_ended_get_the_tally_of_their_runs(at_first: Database) -> None:
    progress = {"step": 5, "total_steps": 9, "epoch": 0.5, "samples": 2**40, "fraction": 0.5}
    with at_first.engine.begin() as connection:
        for job, status in (("job_ended", "failed"), ("job_running", "running")):
            fields = {"kind": "sweep", "name": "n", "spec": "{}", "event_seq": 0}
            insert(connection, "jobs", id=job, status=status, created_at=TIME, **fields)
            for position, of_run in enumerate(("succeeded", "failed", "cancelled")):
                fields = {"name": "n", "kind": "train", "config": "{}", "model": "mlp"}
                fields |= {"dataset": "digits", "optimizer": "adam", "seed": 0, "queue": "cpu"}
                fields |= {"attempt": position, "failures": 0, "available_at": 0.0}
                fields |= {"spool_offset": 0, "created_at": TIME, "job_id": job}
                fields |= {"id": f"{job}{position}", "position": position, "status": of_run}
                insert(connection, "runs", progress=json.dumps(progress), **fields)

    migrate(at_first)

    with at_first.read() as session:
        ended, running = (session.get_one(Job, key) for key in ("job_ended", "job_running"))
        assert running.tally is None
        counted = tally.count(session, ["job_ended"])["job_ended"]
        assert tally.of(session, ended) == counted
        assert (counted.total_steps, counted.spent, counted.fraction) == (27, 3.0, 2.0)
