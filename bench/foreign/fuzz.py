"""Mutated graphs and ONNX files: refused, or sized and run; never a crash, a hang, too much memory.

    python -m bench.foreign.fuzz [--graphs 4000] [--onnx 1000] [--sent 0] [--seed 0]

Each graph is a small one with one to three of its values changed, removed, swapped or made
extreme, and goes through the check that an upload goes through. What is accepted is built and
run on a batch of two where its estimate is small. ONNX files go through ``from_onnx``
(``fuzz_onnx.py``). With ``--sent`` so many graphs are sent to a service, and those that it takes
are trained two steps (``fuzz_http.py``); of ten, one is an ONNX file. Prints how many were
refused, sized and run, the slowest, and the most memory; ends with status 1 where one ended in
any other error, took longer than ten seconds, or more memory than its estimate may be.
"""

import argparse
import copy
import json
import random
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from bench.foreign import fuzz_http, fuzz_onnx
from mlhf.core.errors import DataError, SpecError
from mlhf.models.graph.checks import examine
from mlhf.models.graph.examination import read_graph
from mlhf.models.graph.module import GraphModule
from mlhf.models.graph.table import OPERATIONS
from mlhf.models.graph.trace import trace
from mlhf.models.graph.values import dtype_of

_SLOW = 10.0  # CPU seconds
_SLOW_SENT, _HANGS = 10.0, 300.0  # of what is sent, CPU seconds here; and of any, seconds
_SMALL = 10**7  # values that are run
_MEMORY = 16 * _SMALL  # bytes that one may take: what is run is estimated at no more
_EXTREMES: tuple[Any, ...] = (
    0, -1, 1, 2, 10**9, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, None, True, "", "%x", "%",
    "%nowhere", "os.system", [], [10**9, 10**9], {}, {"batch": 10**12}, {"float": "nan"},
    {"dtype": "Tensor"}, {"slice": [0, 10**12, 0]}, {"tuple": ["%x"] * 50}, {"ellipsis": True},
    {"training": "%x", "evaluation": 10**9}, "i" * 500, [[[[[[]]]]]],
)  # fmt: skip


class _Small(nn.Module):
    """Layers, functions, cuts and joins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.rnn, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.1)
        self.scale = nn.Parameter(torch.ones(1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        y = torch.relu(self.bn(self.conv(x))).flatten(2).transpose(1, 2) * self.scale
        a, b = torch.split(y, [y.shape[1] // 2, y.shape[1] - y.shape[1] // 2], dim=1)
        z = torch.cat([a, torch.zeros(len(x), 1, 4), b[:, 1:]], dim=1)
        z = z + nn.functional.scaled_dot_product_attention(z, z, z)
        last = self.rnn(self.drop(z))[0][:, -1]
        return torch.as_tensor(self.head(torch.cat([last, torch.einsum("btc->bc", z)], dim=-1)))


class _Plain(nn.Sequential):
    """A convolution and a layer."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3))
        )


def main() -> None:
    """Try so many, and say what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=4000)
    parser.add_argument("--onnx", type=int, default=1000)
    parser.add_argument("--sent", type=int, default=0, help="so many of the graphs by HTTP")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--wait", type=float, default=600.0, help="seconds for the last jobs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chance = random.Random(given.seed)
    file = fuzz_onnx.network_file() if given.onnx or given.sent else None
    sender = fuzz_http.Sender(given.url) if given.sent else None
    found = Outcomes()
    for number in range(given.sent):
        assert sender is not None
        if number % 10 == 9:
            send = partial(sender.onnx_outcome, file, chance)
        else:
            graph = json.dumps(_mutated(copy.deepcopy(chance.choice(_seeds())), chance))
            send = partial(sender.outcome, graph)
        found.add(f"sent {number}", send, limit=_SLOW_SENT)
    add_graphs(found, given.graphs, chance)
    for number in range(given.onnx):
        found.add(f"onnx {number}", partial(fuzz_onnx.outcome, file, chance))
    print(
        dict(found.counts),
        f"slowest {found.slowest:.2f} s, most memory taken {found.most / 2**20:.0f} MiB",
    )
    for each in found.wrong[:20]:
        print(each)
    if sender is not None:
        print(f"slowest answer {sender.slowest:.1f} s by the clock")
        print(f"jobs: {dict(sender.statuses(given.wait))}")
    sys.exit(bool(found.wrong))


class Outcomes:
    """How often each outcome came, and what went wrong.

    Attributes:
        counts: By what the outcome is called.
        slowest: The longest one's CPU seconds.
        most: By how many bytes the process grew at once, at most.
        wrong: What ended in another error, took too long, or too much memory.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.slowest, self.most = 0.0, 0
        self.wrong: list[str] = []

    def add(self, name: str, run: Callable[[], str], limit: float = _SLOW) -> None:
        """Carry one out."""
        began, before = time.process_time(), _peak()
        started = time.monotonic()
        try:
            self.counts[run()] += 1
        except (SpecError, DataError):
            self.counts["refused"] += 1
        except Exception as error:  # what is looked for
            self.wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        took, grown = time.process_time() - began, _peak() - before
        self.slowest, self.most = max(self.slowest, took), max(self.most, grown)
        if took > limit or time.monotonic() - started > _HANGS:
            self.wrong.append(f"{name}: {took:.1f} s")
        if grown > _MEMORY:
            self.wrong.append(f"{name}: {grown / 2**20:.0f} MiB more")


def add_graphs(found: Outcomes, count: int, chance: random.Random) -> None:
    """Examine so many mutated graphs in this process, and run those of bearable size."""
    for number in range(count):
        content = json.dumps(_mutated(copy.deepcopy(chance.choice(_seeds())), chance)).encode()
        found.add(f"graph {number}", partial(_outcome, content))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@cache
def _seeds() -> tuple[Any, ...]:
    torch.manual_seed(0)
    return (
        trace(_Small(), torch.randn(2, 1, 4, 4)).to_json(),
        trace(_Plain(), torch.randn(2, 1, 4, 4)).to_json(),
    )


def _outcome(content: bytes) -> str:
    graph = read_graph(content)
    sizes = examine(graph)
    if sizes.parameters + sizes.frozen + 2 * sizes.activations + sizes.constants > _SMALL:
        return "sized"
    inputs = {i.name: torch.zeros((2, *i.shape), dtype=dtype_of(i.dtype)) for i in graph.inputs}
    try:
        GraphModule(graph)(**inputs)
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
        return "a run that fails"  # on values, as an index out of range
    return "run"


def _mutated(graph: Any, chance: random.Random) -> Any:
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        owner, key = chance.choice(list(_places(graph)))
        what = chance.random()
        if isinstance(owner[key], int | float) and what < 0.6:
            owner[key] += chance.choice((-1, 1, 2))
        elif what < 0.15:
            del owner[key]
        elif what < 0.3:
            other, place = chance.choice(list(_places(graph)))
            owner[key] = copy.deepcopy(other[place])
        elif key == "op" and what < 0.8:
            owner[key] = chance.choice(sorted(OPERATIONS))
        else:
            owner[key] = copy.deepcopy(chance.choice(_EXTREMES))
    return graph


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)


if __name__ == "__main__":
    main()
