"""The optimizers and the settings each is tuned over: five for every peer. Needs no torch.

Settings stand in the order in which they are tried, from the middle of a range outward, so that
a smaller budget is the same for all too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlhf.optimizers.learned.families import UNTRAINED

Params = Mapping[str, Any]

_COSINE = {"type": "cosine", "warmup": 0.05}
_WARM = {"type": "constant", "warmup": 0.05}


@dataclass(frozen=True)
class Contender:
    """An optimizer that takes part.

    Attributes:
        name: In tables and for ``--only``.
        optimizer: Its registered name.
        settings: What it is tuned over; one: it runs as it comes.
        full_batch: Whether it only takes part where every step sees all samples.
        candidate: Whether it is ours, so that its runs count for the code they were made by.
    """

    name: str
    optimizer: str
    settings: Sequence[Params] = field(default_factory=lambda: ({},))
    full_batch: bool = False
    candidate: bool = False


def _rates(*rates: float, schedule: Params = _COSINE, **fixed: Any) -> tuple[Params, ...]:
    return tuple({"lr": lr, "schedule": schedule, **fixed} for lr in rates)


_ADAM = _rates(3e-3, 1e-2, 1e-3, 3e-2, 3e-4)

CONTENDERS: tuple[Contender, ...] = (
    Contender("mlhf", "mlhf", candidate=True),
    Contender("adamw", "adamw", _ADAM),
    Contender("sgd + momentum", "momentum", _rates(0.1, 0.3, 0.03, 1.0, 0.01)),
    Contender("rmsprop", "rmsprop", _rates(1e-3, 3e-3, 3e-4, 1e-2, 1e-4)),
    Contender(
        "schedule-free",
        "schedule_free_adamw",
        _rates(1e-2, 3e-2, 3e-3, 1e-1, 1e-3, schedule=_WARM),
    ),
    Contender("muon", "muon", _rates(1e-2, 3e-2, 3e-3, 1e-1, 1e-3)),
    Contender("normuon", "normuon", _rates(1e-2, 3e-2, 3e-3, 1e-1, 1e-3)),
    # Runs are far shorter than the slow mean's 10,000 steps, and than SPlus's average of 1,000.
    Contender("ademamix", "ademamix", _rates(3e-3, 1e-2, 1e-3, 3e-2, 3e-4, beta3=0.999)),
    Contender("soap", "soap", _ADAM),
    Contender("kl-shampoo", "kl_shampoo", _ADAM),
    Contender(
        "splus",
        "splus",
        _rates(0.1, 0.3, 0.03, 1.0, 0.01, average_decay=0.99, precondition_every=10),
    ),
    Contender("psgd-kron", "psgd_kron", _rates(1e-3, 3e-3, 3e-4, 1e-2, 1e-4)),
    Contender(
        "kfac",
        "kfac",
        tuple(
            {"damping": damping, "schedule": _COSINE} for damping in (0.03, 0.1, 0.01, 0.3, 0.003)
        ),
    ),
    Contender(
        "lbfgs",
        "lbfgs",
        tuple(
            {"iterations": n, "history": h}
            for n, h in ((4, 20), (1, 20), (20, 20), (4, 100), (1, 5))
        ),
        full_batch=True,
    ),
    Contender("mlhf untrained", "mlhf", ({"meta_checkpoint": UNTRAINED},), candidate=True),
)
CANDIDATE, CONTROL, REFERENCE = "mlhf", "mlhf untrained", "adamw"
PEERS = tuple(each.name for each in CONTENDERS if not each.candidate)


def contender(name: str) -> Contender:
    """Return a contender by its name. Raises KeyError."""
    return {each.name: each for each in CONTENDERS}[name]
