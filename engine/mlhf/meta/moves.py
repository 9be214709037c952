"""Changes of single weights of MLHF's Kronecker form, as data. Needs no torch."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

# The shapes of its networks' weights (``kronecker/controller.py``).
SHAPES: Mapping[str, Sequence[int]] = {
    "damping.weight": (10,),
    "damping.kinds": (6,),
    "step.weight": (3, 10),
}

Move = dict[str, float]
"""What is added to which weights: ``{"step.weight.1.0": -0.8}`` for row 1, column 0."""


def weight_names() -> Iterator[str]:
    """Yield every weight's name."""
    for name, shape in SHAPES.items():
        for index in itertools.product(*map(range, shape)):
            yield ".".join([name, *map(str, index)])


def locate_weight(name: str) -> tuple[str, str, tuple[int, ...]]:
    """Return the network, the tensor and the index of a weight.

    Raises:
        ValueError: where there is no such weight.
    """
    if name not in set(weight_names()):
        known = (f"{n}{''.join(f'.<0 to {size - 1}>' for size in s)}" for n, s in SHAPES.items())
        raise ValueError(f"{name!r} is no weight of MLHF's networks, which are {', '.join(known)}")
    network, tensor, *index = name.split(".")
    return network, tensor, tuple(map(int, index))


def coordinate_moves(step: float) -> list[Move]:
    """Return moves of every single weight by ``step``, up and down."""
    return [{name: sign * step} for name in weight_names() for sign in (1.0, -1.0)]
