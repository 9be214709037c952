"""Why a run failed, in words for whoever started it: cause and remedy, never a stack trace.

Needs no torch, which may be what cannot be imported: torch's errors are known by their names.
"""

import errno
import re
from dataclasses import asdict, dataclass
from typing import Literal

from mlhf.core.confinement import ConfinementError
from mlhf.core.errors import CheckpointError, DataError, DivergedError, SpecError
from mlhf.core.optional import MissingPackageError

FailureType = Literal[
    "spec",
    "data",
    "checkpoint",
    "memory",
    "numerical",
    "diverged",
    "package",
    "installation",
    "isolation",
    "device",
    "disk",
    "internal",
]

_MOST_LETTERS = 500
_ALLOCATION = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
# A path says where things are on the worker, which is nobody's business.
_PATH = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+[^\s:'\",)]*")


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        type: What kind of cause it has.
        title: The kind, in words.
        detail: What happened and what to do, in one to three sentences.
    """

    type: FailureType
    title: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON values."""
        return asdict(self)


def explain(error: BaseException) -> Failure:
    """Return what to tell of an error that ended a run."""
    if isinstance(error, SpecError):
        where = f" (at {error.pointer})" if error.pointer else ""
        return Failure("spec", "The configuration cannot be run", f"{error.message}{where}")
    if isinstance(error, CheckpointError):
        return Failure("checkpoint", "The checkpoint cannot be used", _message(error))
    if isinstance(error, DataError):
        return Failure("data", "The data cannot be read", _message(error))
    if isinstance(error, ConfinementError):
        return Failure(
            "isolation",
            "The worker cannot confine trainers",
            f"Its system refused: {_message(error)} Allow user namespaces there, or set "
            "MLHF_TRAINER_CONFINEMENT=auto.",
        )
    if isinstance(error, DivergedError):
        return Failure("diverged", "The run diverged", _message(error))
    if isinstance(error, ImportError):
        return _import(error)
    if _is_a(error, "CurvatureError"):
        return Failure("spec", "The optimizer cannot step on this network", _message(error))
    if _is_memory(error):
        return _memory(error)
    if _is_a(error, "LinAlgError", "_LinAlgError"):
        return Failure(
            "numerical",
            "A matrix could not be decomposed",
            f"{_message(error)} The matrices of a step had values that are too large or too far "
            "apart in size: lower lr, raise the damping or eps where there is one, or scale the "
            "data.",
        )
    if _is_a(error, "AcceleratorError") or str(error).startswith(("CUDA error", "NCCL", "cuDNN")):
        return Failure(
            "device",
            "The GPU failed",
            f"{_message(error)} Run it again, or on the CPU (device: cpu). If it happens again, "
            "the worker's GPU or its driver needs a look.",
        )
    if isinstance(error, OSError):
        return _system(error)
    return Failure(
        "internal",
        "A fault of MLHF",
        f"The engine stopped with {type(error).__name__}: {_message(error)} The job was accepted "
        "and should have run. Please report this with the job's specification and the log.",
    )


def _import(error: ImportError) -> Failure:
    if isinstance(error, MissingPackageError):
        detail = f"{_message(error)} Then restart the workers and retry the job."
        return Failure("package", "A package is missing", detail)
    return Failure(
        "installation",
        "The worker's installation is broken",
        f"{error.name or 'A package'} cannot be imported where the run was trained: "
        f"{_message(error)} Install MLHF there anew.",
    )


def _memory(error: BaseException) -> Failure:
    found = _ALLOCATION.search(str(error))
    what = f" It asked for {found[1]} at once." if found else ""
    return Failure(
        "memory",
        "Not enough memory",
        f"The run needs more memory than there is.{what} A smaller network or batch_size may fit, "
        "or fewer runs at a time on this machine.",
    )


def _system(error: OSError) -> Failure:
    name = str(error.filename or "").rpartition("/")[2]
    where = f" ({name})" if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(
            "disk",
            "The worker's disk is full",
            f"A file of the run could not be written{where}. Make room in the worker's data "
            "folder, then retry the job.",
        )
    if isinstance(error, FileNotFoundError):
        return Failure(
            "data",
            "A file is missing",
            f"A file that the run needs is no longer there{where}. Was the data set, or the "
            "run's folder, deleted meanwhile?",
        )
    reason = error.strerror or _message(error)
    return Failure(
        "disk",
        "The worker cannot read or write",
        f"The operating system says: {reason}{where}. The worker's data folder needs a look.",
    )


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or _is_a(error, "OutOfMemoryError"):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in told or "not enough memory" in told or "bad_alloc" in told
    )


def _is_a(error: BaseException, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _message(error: BaseException) -> str:
    """Return an error's message as one sentence of bounded length, without paths."""
    text = " ".join(_PATH.sub("<path>", str(error)).split()) or "no message"
    if len(text) > _MOST_LETTERS:
        text = text[:_MOST_LETTERS].rstrip() + " …"
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
