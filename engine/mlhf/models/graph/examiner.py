"""A process with torch imported that checks networks: ``python -m mlhf.models.graph.examiner``.

Importing torch takes far longer than a check. This process imports it once, and forks itself for
each check; the fork looks at one network and ends. So a check that crashes, hangs or takes too
much ends alone, and nothing that one network left behind is there for the next. It computes
nothing with values, so that it has no threads, which a fork would not have.

The socket that is its standard input brings a JSON object first, with ``confinement`` (as
``mlhf.core.confinement`` takes it) and ``folder``, below which the files lie. Each further
message is a check, and has one file descriptor, of a socket to answer through:

    {"graph": path, "weights": path or null, "memory_bytes": 2147483648, "seconds": 120.0}

The answer is one JSON object (``examination.answer``), sent as ``b"1"`` when the check has begun
and then the object; a socket that closes without it says that the check was ended. When the
first socket closes, this process ends, and all its checks with it.
"""

import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlhf.core import process
from mlhf.core.bounded import limit_memory
from mlhf.core.confinement import confine
from mlhf.core.imports import importing

_MESSAGE_BYTES = 65_536


def main() -> int:
    """Serve until the socket closes; returns the exit code."""
    process.set_name(process.EXAMINER)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(fileno=os.dup(0)) as requests:
        wanted = requests.recv(_MESSAGE_BYTES)
        if not wanted:
            return process.EXIT_OK
        settings = json.loads(wanted)
        # Before there are threads; files that root reads as another user's need a capability.
        confine(settings["confinement"], [Path(settings["folder"])])
        _warm()
        while True:
            message, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 1)
            if not message:
                return process.EXIT_OK
            if os.fork() == 0:
                requests.close()
                _check(json.loads(message), fds[0])
            os.close(fds[0])


def _warm() -> None:
    """Import what a check imports: torch's rules for tensors without memory come late."""
    with importing():
        import torch

        from mlhf.models.graph.checks import examine
        from mlhf.models.graph.examination import read_graph

        torch.set_num_threads(1)
        examine(read_graph(json.dumps(_SMALL).encode()))


_SMALL: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [3, 4, 4]}],
    "layers": {
        "conv": {"type": "Conv2d", "args": {"in_channels": 3, "out_channels": 4, "kernel_size": 3}},
        "norm": {"type": "BatchNorm2d", "args": {"num_features": 4}},
        "rnn": {"type": "LSTM", "args": {"input_size": 4, "hidden_size": 4, "batch_first": True}},
        "head": {"type": "Linear", "args": {"in_features": 4, "out_features": 2}},
    },
    "nodes": [
        {"name": "a", "layer": "conv", "args": ["%x"]},
        {"name": "b", "layer": "norm", "args": ["%a"]},
        {"name": "c", "op": "functional.relu", "args": ["%b"]},
        {"name": "d", "op": "tensor.flatten", "args": ["%c", 2]},
        {"name": "e", "op": "tensor.transpose", "args": ["%d", 1, 2]},
        {"name": "f", "op": "functional.scaled_dot_product_attention", "args": ["%e", "%e", "%e"]},
        {"name": "g", "layer": "rnn", "args": ["%f"]},
        {"name": "h", "op": "part", "args": ["%g", 0]},
        {"name": "i", "op": "tensor.mean", "args": ["%h", 1]},
        {"name": "y", "layer": "head", "args": ["%i"]},
    ],
    "outputs": "%y",
}


def _check(task: dict[str, Any], descriptor: int) -> None:
    """Answer within the task's bounds, and end."""
    code = process.EXIT_FAILED
    try:
        answers = socket.socket(fileno=descriptor)
        answers.sendall(b"1")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.die_with_parent()
        # By the kernel, whatever hangs: SIGALRM ends the process.
        signal.setitimer(signal.ITIMER_REAL, task["seconds"])
        limit_memory(task["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write

        from mlhf.models.graph import examination

        answers.sendall(json.dumps(examination.answer(task)).encode())
        code = process.EXIT_OK
    finally:
        os._exit(code)  # whatever it was, and nothing of it printed: it is a stranger's


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main())
