"""The coordinatewise network on whole vectors, in (features, n) layout: the fast implementations.

``reference.py`` has the readable one. Here coordinates are columns, so that a layer of all the
coordinates of a kind is one matrix product (torch), or the whole network one pass over memory
(kernels).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.mlhf.kernels import operators
from mlhf.optimizers.mlhf.kernels.choose import Choice, Wanted, choose
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights, Unpacked


class CoordinateNetwork:
    """softplus(RNN(tanh(inputs))) + offset for every coordinate, by its kind's weights.

    Args:
        weights: The meta-parameters; they are read at each call.
        segments: Which coordinates are of which kind.
        wanted: Which implementation to run; ``auto`` takes the fastest that can.
    """

    def __init__(
        self, weights: NetworkWeights, segments: Sequence[Segment], wanted: Wanted = "auto"
    ) -> None:
        self.weights = weights
        self.segments = list(segments)
        self._wanted = wanted
        self._edges = operators.flat(self.segments)
        self._choices: dict[tuple[torch.device, torch.dtype], Choice] = {}

    def choice(self, like: Tensor) -> Choice:
        """Return which implementation runs for such vectors, and why."""
        key = (like.device, like.dtype)
        if key not in self._choices:
            self._choices[key] = choose(self.weights, like, self._wanted)
        return self._choices[key]

    def step(self, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0) -> Tensor:
        """Return the outputs (n,); the state (4H, n) is overwritten. Without autograd.

        Where the first input is all NaN, the outputs are too, and the state stays.

        Args:
            inputs: Vectors (n,), not yet squashed.
        """
        packed = self.weights.packed().detach()
        if self.choice(state).path != "torch":
            with torch.no_grad():
                return operators.network_step(inputs, state, packed, self._edges, offset)
        with torch.no_grad():
            out, new = self._torch_forward(inputs, state, offset)
        _replace(state, new, inputs[0])
        return out

    def __call__(
        self, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs (n,) and the new state (4H, n), differentiable in everything."""
        if self.choice(state).path == "cpp":
            packed = self.weights.packed()
            return operators.network(inputs, state.contiguous(), packed, self._edges, offset)
        return self._torch_forward(inputs, state, offset)  # Triton's has no backward

    def traced(
        self, packed: Tensor, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0
    ) -> Tensor:
        """As ``step``, in operations that can be traced into a graph.

        Args:
            packed: The weights, as ``weights.packed()`` returns them.
        """
        if self.choice(state).path != "torch":
            return operators.network_step(inputs, state, packed, self._edges, offset)
        out, new = self._torch_forward(inputs, state, offset, self.weights.unpacked(packed))
        _replace(state, new, inputs[0])
        return out

    def _torch_forward(
        self,
        inputs: Sequence[Tensor],
        state: Tensor,
        offset: float,
        weights: NetworkWeights | Unpacked | None = None,
    ) -> tuple[Tensor, Tensor]:
        squashed = [torch.tanh(v) for v in inputs]
        weights = self.weights if weights is None else weights
        out, new = columns(squashed, state, weights, self.segments)
        return F.softplus(out) + offset, new


def _replace(state: Tensor, new: Tensor, first: Tensor) -> None:
    state.copy_(torch.where(first[:1].isnan(), state, new))


def columns(
    inputs: Sequence[Tensor],
    state: Tensor,
    weights: NetworkWeights | Unpacked,
    segments: Sequence[Segment],
) -> tuple[Tensor, Tensor]:
    """Return what ``reference.network`` does, computed on rows of coordinates."""
    outputs, states = [], []
    for segment in segments:
        x = torch.stack([v[segment.start : segment.end] for v in inputs])
        h1, c1, h2, c2 = state[:, segment.start : segment.end].chunk(4)
        k = segment.kind
        h1, c1 = _cell(x, h1, c1, weights.w1[k], weights.b1[k])
        h2, c2 = _cell(h1, h2, c2, weights.w2[k], weights.b2[k])
        outputs.append(weights.w3[k] @ h2 + weights.b3[k])
        states.append(torch.cat([h1, c1, h2, c2]))
    return torch.cat(outputs), torch.cat(states, 1)


def _cell(x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    gates = torch.addmm(bias.unsqueeze(1), weight, torch.cat([x, h]))
    i, f, g, o = gates.chunk(4)
    c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
    return torch.sigmoid(o) * torch.tanh(c), c
