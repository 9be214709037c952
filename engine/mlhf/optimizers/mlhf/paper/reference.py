"""The coordinatewise network, written to be read: faster implementations must equal it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights


def lstm_cell(
    x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM, as ``torch.nn.LSTMCell`` has it, in its (n, features) layout.

    Args:
        x: Inputs (n, I).
        h, c: State (n, H) each.
        weight: (4H, I + H), rows for the gates i, f, g, o; columns for x, then h.
        bias: (4H,).

    Returns:
        The new h and c.
    """
    i, f, g, o = (torch.cat([x, h], 1) @ weight.T + bias).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def network(
    inputs: Sequence[Tensor], state: Tensor, weights: NetworkWeights, segments: Sequence[Segment]
) -> tuple[Tensor, Tensor]:
    """Two LSTM layers and a linear map for each coordinate, by its kind's weights.

    Args:
        inputs: I vectors (n,).
        state: (4H, n): rows h, c of the first layer, then of the second.

    Returns:
        The outputs (n,) and the new state (4H, n).
    """
    outputs, states = [], []
    for segment in segments:
        x = torch.stack([v[segment.start : segment.end] for v in inputs], 1)
        h1, c1, h2, c2 = torch.split(state[:, segment.start : segment.end].T, weights.hidden, 1)
        k = segment.kind
        h1, c1 = lstm_cell(x, h1, c1, weights.w1[k], weights.b1[k])
        h2, c2 = lstm_cell(h1, h2, c2, weights.w2[k], weights.b2[k])
        outputs.append(h2 @ weights.w3[k] + weights.b3[k])
        states.append(torch.cat([h1, c1, h2, c2], 1).T)
    return torch.cat(outputs), torch.cat(states, 1)
