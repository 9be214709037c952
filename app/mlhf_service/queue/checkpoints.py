"""The checkpoint a run resumes from: the newest that is whole, and none that is not."""

import logging
from dataclasses import replace

from sqlalchemy import delete
from sqlalchemy.orm import Session

from mlhf.core.atomic_files import size_and_sha256
from mlhf_service.database import Database
from mlhf_service.jobs.journal import add_event
from mlhf_service.queue.leases import Claim, hold, newest_checkpoint
from mlhf_service.runs.models import Artifact
from mlhf_service.storage.protocol import Storage

log = logging.getLogger(__name__)


def with_whole_checkpoint(
    database: Database, storage: Storage, claim: Claim, lease_seconds: float
) -> Claim:
    """Return the claim with the newest checkpoint whose file is as it was written.

    One that is damaged or gone is forgotten, the curve is cut back to the one before it, and
    the job's log says so. Without any whole one the run begins anew.

    Raises:
        FencedError: The claim no longer holds.
        OSError: The store cannot be read, which says nothing about the checkpoints in it.
    """
    while claim.checkpoint is not None:
        fault = _fault(storage, claim)
        if fault is None:
            return claim
        with database.write() as session:
            hold(session, claim, lease_seconds)
            claim = fall_back(session, claim, fault)
    return claim


def fall_back(session: Session, claim: Claim, fault: str) -> Claim:
    """Forget the checkpoint that the claim resumes from; returns it with the one before.

    The caller holds the claim. Raises ValueError for a claim without a checkpoint.
    """
    bad = claim.checkpoint
    if bad is None:
        raise ValueError(f"run {claim.run_id} resumes from no checkpoint")
    session.execute(
        delete(Artifact).where(Artifact.run_id == claim.run_id, Artifact.name == bad.name)
    )
    older = newest_checkpoint(session, claim.run_id)
    where = f"from that of step {older.step}" if older else "from the beginning"
    message = f"attempt {claim.attempt}: {fault} The run goes on {where}."
    log.error("run %s: %s", claim.run_id, message)
    data = {"run_id": claim.run_id, "level": "warning", "message": message}
    add_event(session, claim.job_id, "log", data)
    return replace(claim, checkpoint=older)


def _fault(storage: Storage, claim: Claim) -> str | None:
    """What is wrong with the file of the checkpoint, in a sentence."""
    checkpoint = claim.checkpoint
    assert checkpoint is not None
    try:
        size, sha256 = size_and_sha256(storage.local(checkpoint.storage_key))
    except FileNotFoundError:
        return f"The checkpoint of step {checkpoint.step} is gone."
    if (size, sha256) == (checkpoint.size, checkpoint.sha256):
        return None
    found = f"{size} bytes of {checkpoint.size}" if size != checkpoint.size else "other content"
    return f"The checkpoint of step {checkpoint.step} is damaged ({found}) and is not used."
