"""From a claim to what its trainer starts with: configuration, files and threads filled in."""

import os

from mlhf_service.context import Context
from mlhf_service.jobs.kinds.protocol import Prepared
from mlhf_service.jobs.kinds.registry import KINDS
from mlhf_service.queue.leases import Claim
from mlhf_service.queue.trainer_process import checkpoint_name
from mlhf_service.settings import Settings


def prepare(context: Context, claim: Claim) -> Prepared:
    """The engine's configuration, and the files to copy into the trainer's folder.

    Raises SpecError where a data set or a meta-checkpoint is no longer there.
    """
    prepared = KINDS[claim.kind].prepare(context, claim.config)
    # A resumed run keeps the threads it began with: sums depend on their number.
    wanted = claim.config.get("threads")
    threads = claim.threads or (_useful(wanted) if wanted else default_threads(context.settings))
    files = dict(prepared.files)
    checkpoint = checkpoint_name(claim)
    if checkpoint is not None and claim.checkpoint is not None:
        files[checkpoint] = context.storage.local(claim.checkpoint.storage_key)
    return Prepared({**prepared.config, "threads": threads}, files)


def default_threads(settings: Settings) -> int:
    """The threads of a trainer whose job names no number."""
    return _useful(settings.trainer_threads)


def _useful(threads: int) -> int:
    return min(threads, os.cpu_count() or 1)  # more than cores only wait for each other
