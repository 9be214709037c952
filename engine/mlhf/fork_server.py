"""A process with torch imported that forks trainers: ``python -m mlhf.fork_server PARENT_PID``.

Importing torch takes longer than all else that a short run does. This process imports it ahead,
and forks itself for each run; the fork serves that run alone. It never computes, so that it has
neither threads nor a CUDA context, which a fork would not have.

Requests come through the socket that is its standard input, each one JSON object and two file
descriptors: a socket to answer through, and the log. The trainer is orphaned on purpose. The
parent adopts it (``process.adopt_orphans``), and has it as one that it started itself: it dies
with the parent and not with this process. It answers with its id and this version, and begins
when it is answered; a closed socket ends it, so that who gave up waiting has no trainer.
"""

import json
import os
import signal
import socket
import sys
import time
from importlib import import_module
from typing import Any

from mlhf import runner
from mlhf.core import process
from mlhf.core.imports import importing
from mlhf.core.version import __version__

_MESSAGE_BYTES = 65_536
_ADOPTION_SECONDS = 10.0

# What the first step of every run imports, and the families that most runs use.
MODULES = (
    "torch._dynamo",  # torch.optim imports it at the first step
    "mlhf.training.run",
    "mlhf.optimizers.first_order.first_order",
    "mlhf.optimizers.hessian_free",
    "mlhf.optimizers.mlhf.variants",
    "mlhf.models.mlp",
    "mlhf.models.sequential",
    "mlhf.data.digits",
)


def main(arguments: list[str]) -> int:
    """Serve requests until the parent closes the socket; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m mlhf.fork_server PARENT_PID, a socket as stdin\n")
        return 2
    parent = int(arguments[0])
    process.set_name(process.SPARE)
    process.die_with_parent(expected_parent_pid=parent)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    with importing():
        for module in MODULES:
            import_module(module)
        import_module("mlhf.optimizers.mlhf.kernels.steps").load()
    with socket.socket(fileno=os.dup(0)) as requests:
        while True:
            message, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 2)
            if not message:
                return process.EXIT_OK
            answers, log = fds
            if _forked():
                break
            os.close(answers)
            os.close(log)
    return _train(json.loads(message), answers, log, parent)


def _forked() -> bool:
    """Fork twice; returns whether this is the grandchild, which has no parent here."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return False
    if os.fork():
        os._exit(0)
    return True


def _train(request: dict[str, Any], answers: int, log: int, parent: int) -> int:
    """Become the trainer of one run; returns its exit code."""
    os.setsid()
    _use_as_output(log)
    os.chdir(request["folder"])
    deadline = time.monotonic() + _ADOPTION_SECONDS
    while os.getppid() != parent and time.monotonic() < deadline:
        time.sleep(0.0005)  # until the process between has ended
    process.die_with_parent(expected_parent_pid=parent)
    process.set_name(process.TRAINER)
    with socket.socket(fileno=answers) as channel:
        try:
            channel.send(json.dumps({"pid": os.getpid(), "version": __version__}).encode())
            begins = channel.recv(1)
        except OSError:
            begins = b""
    if not begins:
        return process.EXIT_INTERRUPTED
    arguments = [request["folder"]]
    if _cuda_is_lost():
        os.execv(sys.executable, [sys.executable, "-m", "mlhf.runner", *arguments])
    sys.argv = [runner.__file__, *arguments]
    return runner.main(arguments)


def _use_as_output(log: int) -> None:
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(empty)
    os.close(log)


def _cuda_is_lost() -> bool:
    """Whether an import has started CUDA before the fork, which then cannot use it."""
    import torch

    return bool(torch.cuda._is_in_bad_fork())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
