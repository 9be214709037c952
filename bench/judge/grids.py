"""Whom the candidate is judged against, and what each may choose from. Needs no torch.

Every peer has nine settings, so that all are tuned by the same budget. Rates are half a decade
apart. With a learning rate: five rates under cosine decay, three of them with a warm-up too,
one held constant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlhf.optimizers.learned.families import UNTRAINED

Params = Mapping[str, Any]
Rank = Literal["first order", "matrix", "hessian free", "candidate"]

COSINE = {"type": "cosine"}
WARM = {"type": "cosine", "warmup": 0.1}
CONSTANT = {"type": "constant"}


@dataclass(frozen=True)
class Entrant:
    """An optimizer that takes part.

    Attributes:
        name: What tables and ``--only`` call it.
        optimizer: Its registered name.
        rank: ``first order`` and ``matrix`` (Muon, SOAP, Shampoo, K-FAC) are the scheduled
            peers; ``candidate`` runs untuned.
        grid: What it is tuned over; empty for the candidates.
        params: What is given beside a setting.
    """

    name: str
    optimizer: str
    rank: Rank
    grid: Sequence[Params] = ()
    params: Params = field(default_factory=dict)

    @property
    def scheduled(self) -> bool:
        """Whether it may choose its horizon where seconds count."""
        return self.rank in ("first order", "matrix")


def _rates(*rates: float, **fixed: Any) -> tuple[Params, ...]:
    """Return the nine settings of five rising rates."""
    cosine = [{"lr": lr, "schedule": COSINE, **fixed} for lr in rates]
    warm = [{"lr": lr, "schedule": WARM, **fixed} for lr in rates[-3:]]
    return (*cosine, *warm, {"lr": rates[1], "schedule": CONSTANT, **fixed})


def _product(**values: Sequence[Any]) -> tuple[Params, ...]:
    """Return each combination of values."""
    found: list[dict[str, Any]] = [{}]
    for name, each in values.items():
        found = [{**params, name: value} for params in found for value in each]
    return tuple(found)


_FIXED: tuple[Params, ...] = (
    *_product(damping=[0.1, 0.3, 1.0, 3.0], schedule=[COSINE, CONSTANT]),
    {"damping": 10.0},
)
_ADAM = _rates(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_SCHEDULE_FREE: tuple[Params, ...] = (
    *({"lr": lr} for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    *({"lr": lr, "schedule": {"type": "constant", "warmup": 0.1}} for lr in (3e-3, 1e-2, 3e-2)),
    {"lr": 1e-2, "beta1": 0.95},
)
# Where its bound on a step's length binds, K-FAC's rate does nothing: the bound is tuned for it.
_KFAC: tuple[Params, ...] = (
    *_product(damping=[3e-3, 0.01, 0.03, 0.1], kl_clip=[1e-4, 3e-4], schedule=[COSINE]),
    {"damping": 0.03, "kl_clip": 3e-4, "schedule": CONSTANT},
)

ENTRANTS: tuple[Entrant, ...] = (
    Entrant("sgd + momentum", "momentum", "first order", _rates(0.01, 0.03, 0.1, 0.3, 1.0)),
    Entrant("rmsprop", "rmsprop", "first order", _rates(3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    Entrant("adam", "adam", "first order", _ADAM),
    Entrant("adamw", "adamw", "first order", _ADAM),
    Entrant("schedule-free", "schedule_free_adamw", "first order", _SCHEDULE_FREE),
    Entrant("muon", "muon", "matrix", _rates(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    Entrant("soap", "soap", "matrix", _ADAM),
    Entrant("shampoo", "shampoo", "matrix", _ADAM),
    Entrant("kfac", "kfac", "matrix", _KFAC),
    Entrant("hf fixed", "hf", "hessian free", _FIXED),
    Entrant(
        "hf lm", "hf_lm", "hessian free",
        _product(damping=[1.0, 3.0, 10.0], min_damping=[0.03, 0.1, 0.3]),
    ),
    Entrant(
        "hf growing", "hf_adam", "hessian free",
        _product(damping=[5.0, 15.0, 50.0], growth_steps=[30.0, 100.0, 300.0]),
    ),
    Entrant("mlhf", "mlhf", "candidate"),
    Entrant("mlhf untrained", "mlhf", "candidate", params={"meta_checkpoint": UNTRAINED}),
    Entrant("mlhf + decay", "mlhf", "candidate", params={"weight_decay": 5e-5}),
)  # fmt: skip

# What AdamW does untuned, to which a transferred meta-checkpoint is compared.
ADAMW_DEFAULTS = Entrant("adamw, defaults", "adamw", "candidate")
CANDIDATE, CONTROL, REFERENCE = "mlhf", "mlhf untrained", "adamw"
# What is offered where a network fits its training data too closely.
REMEDY = "mlhf + decay"


def entrant(name: str) -> Entrant:
    """Return an entrant by its name."""
    return next(e for e in (*ENTRANTS, ADAMW_DEFAULTS) if e.name == name)


def names(rank: Rank) -> list[str]:
    """Return the names of those of a rank."""
    return [e.name for e in ENTRANTS if e.rank == rank]
