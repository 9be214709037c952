"""What sets a network's parts apart: where each lies, and how its own steps go."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.mlhf.kronecker.basis import Part
from engine.optimizers.protocol import State

PART_FEATURES = 3
_MEMORY = 0.9  # of the running means


class PartMemory:
    """Running means, for each part, of what steps leave behind: state of the learned part.

    Args:
        parts: Of a vector in the basis, in order.
        like: A tensor of the type and on the device of the vectors.
    """

    def __init__(self, parts: Sequence[Part], like: Tensor) -> None:
        self._sizes = [part.size for part in parts]
        self._count = like.new_tensor(self._sizes)
        self._positions = like.new_tensor([part.position for part in parts])
        self.kinds = torch.tensor([part.kind for part in parts], device=like.device)
        self._steps = 0
        self._means = like.new_zeros(2, len(parts))

    def add(self, fresh: Tensor, last: Tensor) -> None:
        """Take in a step's preconditioned gradient Pb and the step before, (n,) each."""
        if not self._sizes:
            return
        each = zip(torch.split(fresh, self._sizes), torch.split(last, self._sizes), strict=True)
        products = [(torch.dot(q, d), torch.dot(q, q), torch.dot(d, d)) for q, d in each]
        inner, new, old = torch.stack([t for row in products for t in row]).view(-1, 3).unbind(1)
        tiny = torch.finfo(fresh.dtype).tiny
        cosine = inner / (new * old).sqrt().clamp_min(tiny)
        mean_square = old / self._count
        all_of_it = old.sum() / self._count.sum()
        length = 0.5 * (mean_square.clamp_min(tiny) / all_of_it.clamp_min(tiny)).log()
        self._steps += 1
        values = torch.stack([cosine, length.clamp(-5, 5)]).nan_to_num(0.0, 0.0, 0.0)
        self._means.lerp_(values, 1 - min(_MEMORY, 1 - 1 / self._steps))

    def features(self) -> Tensor:
        """Return each part's features, (P, 3), of about unit size; the last two zeros at first.

        Where it lies, from -1 at the input to 1 at the output; how far its preconditioned
        gradient still goes along the step before (the cosine); how long its steps are, by
        their root mean square against the network's.
        """
        cosine, length = self._means.unbind()
        return torch.stack([self._positions, torch.tanh(5 * cosine), torch.tanh(length / 2)], 1)

    def state_dict(self) -> State:
        return {"steps": self._steps, "means": self._means}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._steps = int(state["steps"])
        self._means = state["means"].to(like, copy=True)
