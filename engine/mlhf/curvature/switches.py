"""Torch's process-wide switches, held at other values while forward passes run.

Several threads may train at once. The first pass to begin saves what it finds, and the last to
end puts that back; a save and restore by each pass alone would leave the switches changed
wherever passes overlap.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

_C = torch._C


class Switch(NamedTuple):
    """One switch, by the functions that torch.backends itself uses.

    Those of the context managers there warn, and cost more than a small training step.
    """

    get: Callable[[], bool]
    put: Callable[[bool], None]
    wanted: bool


NOTHING = nullcontext()


@contextmanager
def together(*managers: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter several, the first one first."""
    with ExitStack() as stack:
        for each in managers:
            stack.enter_context(each)
        yield


class _Shared:
    """A change to process-wide state that lasts while anyone is within it, also several times.

    A class, and one object for all: generators with ``contextmanager`` took two to four percent of
    a small network's step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def _begin(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._begin()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._end()


class _Switches(_Shared):
    def __init__(self, switches: Sequence[Switch]) -> None:
        super().__init__()
        self._switches = switches
        self._before: list[bool] = []

    def _begin(self) -> None:
        self._before = [switch.get() for switch in self._switches]
        for switch in self._switches:
            switch.put(switch.wanted)

    def _end(self) -> None:
        for switch, value in zip(self._switches, self._before, strict=True):
            switch.put(value)


class _Eager(_Shared):
    """What ``torch.compile`` has compiled runs as it was written."""

    def __init__(self) -> None:
        super().__init__()
        self._stance: Any = None

    def _begin(self) -> None:
        self._stance = torch.compiler.set_stance("force_eager")

    def _end(self) -> None:
        self._stance.__exit__(None, None, None)


_attention = _Switches(
    [
        Switch(_C._get_flash_sdp_enabled, _C._set_sdp_use_flash, False),
        Switch(_C._get_mem_efficient_sdp_enabled, _C._set_sdp_use_mem_efficient, False),
        Switch(_C._get_cudnn_sdp_enabled, _C._set_sdp_use_cudnn, False),
        Switch(_C._get_math_sdp_enabled, _C._set_sdp_use_math, True),
    ]
)
_recurrent = _Switches(
    [
        Switch(_C._get_mkldnn_enabled, _C._set_mkldnn_enabled, False),
        Switch(_C._get_cudnn_enabled, _C._set_cudnn_enabled, False),
    ]
)
_eager = _Eager()


class _Fused:
    """Both switches at once, each with its own count of users."""

    def __enter__(self) -> None:
        _attention.__enter__()
        _recurrent.__enter__()

    def __exit__(self, *_: object) -> None:
        _recurrent.__exit__()
        _attention.__exit__()


_both = _Fused()


def differentiable_twice(*, recurrent: bool) -> AbstractContextManager[None]:
    """Turn off fused kernels whose backward cannot be differentiated.

    These are fused attention and, where there are such layers, fused recurrent layers (oneDNN,
    cuDNN). Torch itself turns off the fast path of encoder layers in eval mode wherever a
    gradient is needed.
    """
    return _both if recurrent else _attention


def eager() -> AbstractContextManager[None]:
    """Run compiled modules and functions as they were written.

    The graph of a compiled one is a single node, whose backward cannot be differentiated, and
    hooks on modules within it would not run.
    """
    return _eager if "torch._dynamo" in sys.modules else NOTHING  # nothing was compiled


def within_compiled_function() -> bool:
    """Whether this runs in a function that ``torch.compile`` compiles, or tries to."""
    if "torch._dynamo" not in sys.modules:
        return False
    callback = _C._dynamo.eval_frame.get_eval_frame_callback()
    return callback is not None and callback is not False
