"""The learned part: from how training goes to corrections of the step.

Two small networks see the same features, which have no units: ratios that any step leaves
behind, averaged over the last steps, so that one set of weights serves any network and any
loss. What they return multiplies the untrained form, in bounds. With weights of zero nothing
is changed: that is where learning starts, and the control it has to beat.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.mlhf.kinds import KINDS
from engine.optimizers.protocol import State

FEATURES = 10
_DAMPING_RANGE = 2.3  # of a logarithm: from a tenth to ten times
_STEP_RANGES = (2.3, 0.7, 0.35)
_MEMORY = 0.9  # of the running means
_LONG_MEMORY = 0.99


class DampingNetwork(nn.Module):
    """From features (F,) to the logarithm of a factor of the damping for each kind, (6,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(FEATURES))
        self.kinds = nn.Parameter(torch.zeros(len(KINDS)))

    def forward(self, features: Tensor) -> Tensor:
        return _DAMPING_RANGE * torch.tanh(self.kinds + self.weight @ features)


class StepNetwork(nn.Module):
    """From features (F,) to logarithms of three factors, (3,).

    Those of G's diagonal in the preconditioner, of the whole step, and of its part along the
    step before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, FEATURES))

    def forward(self, features: Tensor) -> Tensor:
        return features.new_tensor(_STEP_RANGES) * torch.tanh(self.weight @ features)


@dataclass(frozen=True)
class Seen:
    """What a step leaves behind, scalars on the device; None where it was not measured.

    Attributes:
        loss: ℓ on the batch.
        fresh: α, the coefficient of the preconditioned gradient.
        momentum: μ, that of the last step.
        left: ⟨b, d'⟩ / ⟨d', Gd'⟩: how much further the last step d' should have gone, by a
            batch it did not see; negative where it went too far.
        damped: The damping's part of the curvature along the step.
        diagonal: log of the curvature along it over what G's diagonal in the basis says.
        predicted: How far the quadratic model says the step lowers the loss.
    """

    loss: Tensor
    fresh: Tensor
    momentum: Tensor
    left: Tensor | None = None
    damped: Tensor | None = None
    diagonal: Tensor | None = None
    predicted: Tensor | None = None

    def values(self) -> list[Tensor | None]:
        """Return what running means are kept of, within bounds; the log loss comes last."""
        tiny = 1e-12
        loss = self.loss.clamp_min(tiny)
        lowers = None if self.predicted is None else self.predicted.clamp_min(tiny) / loss
        return [
            self.fresh.clamp(1e-3, 1e3).log(),
            self.momentum.clamp(-2, 2),
            None if self.left is None else self.left.clamp(-3, 3),
            None if self.damped is None else self.damped.clamp(0, 1),
            None if self.diagonal is None else self.diagonal.clamp(-5, 5),
            None if lowers is None else lowers.log10().clamp(-6, 1),
            loss.log(),
        ]


class Memory:
    """Running means of what steps leave behind: the state of the learned part."""

    def __init__(self) -> None:
        self._steps = 0
        self._short: Tensor | None = None
        self._long: Tensor | None = None  # of the loss
        self._first: Tensor | None = None  # loss

    def add(self, seen: Seen) -> None:
        """Move each mean whose value was measured."""
        values = seen.values()
        held = seen.loss.new_zeros(len(values)) if self._short is None else self._short
        found = [old if v is None else v.to(old) for v, old in zip(values, held, strict=True)]
        new = torch.stack(found)
        self._steps += 1
        if self._short is None or self._long is None:
            self._short, self._long, self._first = new, new[-1].clone(), new[-1].clone()
            return
        self._short.lerp_(new, 1 - min(_MEMORY, 1 - 1 / self._steps))
        self._long.lerp_(new[-1], 1 - min(_LONG_MEMORY, 1 - 1 / self._steps))

    def fallen(self) -> float:
        """Return by what factor the loss, in the mean of the last steps, is below the first.

        Waits for the device.
        """
        if self._short is None or self._first is None:
            return 1.0
        return float((self._first - self._short[-1]).exp())

    def features(self, like: Tensor) -> Tensor:
        """Return the features, (10,), each of about unit size; zeros but the first at first.

        1; how many steps, twice (log, squashed at 30 and at 1000); and of the running means:
        the loss since the beginning, and its trend; log α; μ; what is left; the damping's
        part; the log of the diagonal's error, of the predicted decrease over the loss.
        """
        if self._short is None or self._long is None or self._first is None:
            return torch.cat([like.new_ones(1), like.new_zeros(FEATURES - 1)])
        fresh, momentum, left, damped, diagonal, predicted, loss = self._short.unbind()
        age = torch.tensor(float(self._steps)).to(like)
        return torch.stack(
            [
                torch.ones_like(loss),
                torch.tanh((age / 100).log1p()),
                torch.tanh((loss - self._first) / 3),
                torch.tanh(5 * (loss - self._long)),
                torch.tanh(fresh),
                torch.tanh(2 * momentum - 1),
                torch.tanh(left),
                2 * damped - 1,
                torch.tanh(diagonal / 2),
                torch.tanh((predicted + 2) / 1.5),
            ]
        )

    def state_dict(self) -> State:
        return {"steps": self._steps, "short": self._short, "long": self._long,
                "first": self._first}  # fmt: skip

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._steps = int(state["steps"])
        self._short, self._long, self._first = (
            None if state[name] is None else state[name].to(like, copy=True)
            for name in ("short", "long", "first")
        )
