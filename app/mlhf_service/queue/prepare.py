"""From a claim to what its trainer starts with: configuration, files and threads filled in."""

import os

from mlhf_service.context import Context
from mlhf_service.jobs.kinds.protocol import Prepared
from mlhf_service.jobs.kinds.registry import KINDS
from mlhf_service.queue.leases import Claim
from mlhf_service.queue.trainer_process import checkpoint_name


def prepare(context: Context, claim: Claim) -> Prepared:
    """The engine's configuration, and the files to copy into the trainer's folder.

    Raises SpecError where a data set or a meta-checkpoint is no longer there.
    """
    prepared = KINDS[claim.kind].prepare(context, claim.config)
    # A resumed run keeps the threads it began with: sums depend on their number.
    wanted = claim.config.get("threads") or context.settings.trainer_threads
    # More threads than cores only wait for each other.
    threads = claim.threads or min(wanted, os.cpu_count() or 1)
    files = dict(prepared.files)
    checkpoint = checkpoint_name(claim)
    if checkpoint is not None and claim.checkpoint is not None:
        files[checkpoint] = context.storage.path(claim.checkpoint.storage_key)
    return Prepared({**prepared.config, "threads": threads}, files)
