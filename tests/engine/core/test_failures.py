"""Why a run failed is told with cause and remedy; no path, no stack trace."""

import errno
import os

import pytest
import torch

from mlhf.core.errors import CheckpointError, DataError, DivergedError, SpecError
from mlhf.core.failures import explain
from mlhf.core.optional import MissingPackageError
from mlhf.curvature.errors import CurvatureError

CPU = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
)
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 78 GiB"


def _os_error(code: int, name: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), name)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (SpecError("/model", "it does not fit"), "spec", ["it does not fit", "/model"]),
        (DataError("row 7 holds NaN"), "data", ["row 7 holds NaN"]),
        (DivergedError("ten steps: lower lr"), "diverged", ["lower lr"]),
        (CurvatureError("no rule for sort"), "spec", ["no rule for sort"]),
        (MissingPackageError("sklearn", "data"), "package", ["sklearn", "mlhf[data]", "retry"]),
        (
            ModuleNotFoundError("No module named 'x'", name="x"),
            "installation",
            ["x cannot", "anew"],
        ),
        (ImportError("libgomp.so.1: cannot open"), "installation", ["libgomp.so.1", "anew"]),
        (CheckpointError("it has no optimizer"), "checkpoint", ["no optimizer"]),
        (MemoryError(), "memory", ["batch_size"]),
        (RuntimeError(CPU), "memory", ["4000000000 bytes", "batch_size"]),
        (torch.OutOfMemoryError(CUDA), "memory", ["20.00 MiB", "batch_size"]),
        (_os_error(errno.ENOMEM), "memory", ["batch_size"]),
        (torch.linalg.LinAlgError("linalg.eigh: failed"), "numerical", ["eigh", "lower lr"]),
        (RuntimeError("CUDA error: an illegal memory access"), "device", ["illegal", "cpu"]),
        (_os_error(errno.ENOSPC, "/srv/x/step-1"), "disk", ["step-1", "Make room"]),
        (_os_error(errno.EROFS, "/srv/x/step-1"), "disk", ["Read-only", "step-1"]),
        (_os_error(errno.ENOENT, "/srv/x/a.png"), "data", ["a.png", "deleted"]),
        (ValueError("seven is odd"), "internal", ["ValueError: seven is odd.", "report"]),
        (KeyError("weight"), "internal", ["KeyError: 'weight'."]),
        (AssertionError(), "internal", ["AssertionError: no message."]),
        (RuntimeError("x" * 10_000), "internal", ["RuntimeError: xxx", "…"]),
        (RuntimeError("in /home/anna/secret/run.json: no"), "internal", ["in <path>: no."]),
    ],
)
def test_causes(error, kind, told):
    found = explain(error)
    assert found.type == kind
    for text in told:
        assert text in found.detail
    assert len(found.detail) < 900
    for hidden in ("/srv", "/home", "secret", "Traceback", "\n"):
        assert hidden not in found.detail


def test_a_decomposition_that_does_not_converge_is_numerical():
    with pytest.raises(RuntimeError) as caught:
        torch.linalg.cholesky(-torch.eye(2))
    assert explain(caught.value).type == "numerical"
