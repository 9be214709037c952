"""Graph networks: message passing over small random graphs.

A sample is the kinds of its nodes, then its adjacency matrix row by row, all as tokens.
"""

import numpy as np
import torch
from torch import Tensor, nn

from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced


def task(version: Version, size: Size) -> WideTask:
    """Return the number of triangles of a graph of 12 nodes, by sums of neighbours;

    judged: how far two marked nodes of 14 are from each other, by means.
    """
    tiny = size == "tiny"
    samples = 200 if tiny else 4000
    if version == "development":
        nodes, kinds, width, rounds, outputs = 12, 3, 32, 3, 1
    else:
        nodes, kinds, width, rounds, outputs = 14, 3, 40, 4, 5
    return WideTask(
        "graphs",
        version,
        lambda: traced(
            _Messages(nodes, kinds, width, rounds, outputs, mean=version == "judged"),
            torch.zeros(2, nodes + nodes * nodes, dtype=torch.int64),
        ),
        npz(
            inputs="tokens",
            task="regression" if version == "development" else "classification",
        ),
        steps=10 if tiny else 1500,
        batch_size=64,
        train_samples=samples,
        write=arrays(
            lambda _: (_triangles if version == "development" else _distances)(nodes, samples)
        ),
    )


class _Messages(nn.Module):
    """Embedded kinds, rounds of messages with residuals, a sum over nodes, and a dense head."""

    def __init__(
        self, nodes: int, kinds: int, width: int, rounds: int, outputs: int, mean: bool
    ) -> None:
        super().__init__()
        self.nodes, self.mean = nodes, mean
        self.kinds = nn.Embedding(kinds, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.others = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(rounds))
        self.dense, self.head = nn.Linear(width, width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, nodes + nodes²) to (B, outputs)."""
        h = self.kinds(x[:, : self.nodes])
        edges = x[:, self.nodes :].reshape(-1, self.nodes, self.nodes).to(h.dtype)
        if self.mean:
            edges = edges / (edges.sum(2, keepdim=True) + 1.0)
        else:
            edges = edges / self.nodes**0.5
        for own, others in zip(self.own, self.others, strict=True):
            h = h + torch.relu(own(h) + edges @ others(h))
        found: Tensor = self.head(torch.relu(self.dense(h.mean(1))))
        return found


def _random_graphs(count: int, nodes: int, seed: int, least: float, most: float) -> Array:
    """Return adjacency matrices (count, nodes, nodes) of edges with a probability of its own."""
    random = np.random.RandomState(seed)
    probability = least + (most - least) * random.random_sample((count, 1, 1))
    upper = np.triu(random.random_sample((count, nodes, nodes)) < probability, 1)
    return (upper | upper.transpose(0, 2, 1)).astype(np.int64)


def _triangles(nodes: int, samples: int) -> dict[str, Array]:
    edges = _random_graphs(samples + 1000, nodes, 801, 0.15, 0.6)
    kinds = np.random.RandomState(802).randint(3, size=(len(edges), nodes))
    kinds[0, 0] = 2
    # Those of nodes of the first two kinds only, so that kinds matter.
    seen = edges * (kinds < 2)[:, :, None] * (kinds < 2)[:, None, :]
    count = np.einsum("bij,bjk,bki->b", seen, seen, seen) / 6
    return _split(edges, kinds, np.sqrt(count), samples)


def _distances(nodes: int, samples: int) -> dict[str, Array]:
    edges = _random_graphs(samples + 1000, nodes, 9801, 0.08, 0.25)
    kinds = np.zeros((len(edges), nodes), np.int64)
    kinds[:, 0], kinds[:, 1] = 1, 2
    reached, y = np.zeros((len(edges), nodes), bool), np.full(len(edges), 4)
    reached[:, 0] = True
    for steps in range(1, 5):
        reached = reached | (np.einsum("bi,bij->bj", reached.astype(np.int64), edges) > 0)
        y = np.where(reached[:, 1] & (y == 4), steps - 1, y)
    return _split(edges, kinds, y, samples)


def _split(edges: Array, kinds: Array, y: Array, samples: int) -> dict[str, Array]:
    x = np.concatenate([kinds, edges.reshape(len(edges), -1)], 1)
    return {
        "x_train": x[:samples],
        "y_train": y[:samples],
        "x_test": x[samples:],
        "y_test": y[samples:],
    }
