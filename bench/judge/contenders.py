"""The contenders: the candidate and its peers, and the grid each is tuned over. Needs no torch.

Every peer has nine settings, so that all are tuned by the same budget. Learning rates are half
a decade apart: five of them under cosine decay, three of those with a warm-up too, and one held
constant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlhf.optimizers.learned.families import UNTRAINED

Params = Mapping[str, Any]
Category = Literal["first order", "matrix", "hessian free", "candidate"]

COSINE = {"type": "cosine"}
WARM = {"type": "cosine", "warmup": 0.1}
CONSTANT = {"type": "constant"}


@dataclass(frozen=True)
class Contender:
    """An optimizer that takes part.

    Attributes:
        name: Its name in tables and for ``--only``.
        optimizer: Its registered name.
        category: ``first order`` and ``matrix`` (Muon, SOAP, Shampoo, K-FAC) are the scheduled
            peers; ``candidate`` runs untuned.
        grid: The settings it is tuned over; empty for the candidates.
        params: Parameters beside those of a setting.
    """

    name: str
    optimizer: str
    category: Category
    grid: Sequence[Params] = ()
    params: Params = field(default_factory=dict)

    @property
    def scheduled(self) -> bool:
        """Whether it may choose its horizon for the criteria about seconds."""
        return self.category in ("first order", "matrix")


def _rates(*rates: float, **fixed: Any) -> tuple[Params, ...]:
    """Return nine settings of five rising learning rates."""
    cosine = [{"lr": lr, "schedule": COSINE, **fixed} for lr in rates]
    warm = [{"lr": lr, "schedule": WARM, **fixed} for lr in rates[-3:]]
    return (*cosine, *warm, {"lr": rates[1], "schedule": CONSTANT, **fixed})


def _product(**values: Sequence[Any]) -> tuple[Params, ...]:
    """Return all combinations of values."""
    found: list[dict[str, Any]] = [{}]
    for name, each in values.items():
        found = [{**params, name: value} for params in found for value in each]
    return tuple(found)


_FIXED: tuple[Params, ...] = (
    *_product(damping=[0.1, 0.3, 1.0, 3.0], schedule=[COSINE, CONSTANT]),
    {"damping": 10.0},
)
_LEVENBERG_MARQUARDT = _product(damping=[1.0, 3.0, 10.0], min_damping=[0.03, 0.1, 0.3])
_GROWING = _product(damping=[5.0, 15.0, 50.0], growth_steps=[30.0, 100.0, 300.0])
_ADAM = _rates(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_SCHEDULE_FREE: tuple[Params, ...] = (
    *({"lr": lr} for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    *({"lr": lr, "schedule": {"type": "constant", "warmup": 0.1}} for lr in (3e-3, 1e-2, 3e-2)),
    {"lr": 1e-2, "beta1": 0.95},
)
# Where the bound on a step's length is active, K-FAC's rate has no effect: tune the bound.
_KFAC: tuple[Params, ...] = (
    *_product(damping=[3e-3, 0.01, 0.03, 0.1], kl_clip=[1e-4, 3e-4], schedule=[COSINE]),
    {"damping": 0.03, "kl_clip": 3e-4, "schedule": CONSTANT},
)

CONTENDERS: tuple[Contender, ...] = (
    Contender("sgd + momentum", "momentum", "first order", _rates(0.01, 0.03, 0.1, 0.3, 1.0)),
    Contender("rmsprop", "rmsprop", "first order", _rates(3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    Contender("adam", "adam", "first order", _ADAM),
    Contender("adamw", "adamw", "first order", _ADAM),
    Contender("schedule-free", "schedule_free_adamw", "first order", _SCHEDULE_FREE),
    Contender("muon", "muon", "matrix", _rates(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    Contender("soap", "soap", "matrix", _ADAM),
    Contender("shampoo", "shampoo", "matrix", _ADAM),
    Contender("kfac", "kfac", "matrix", _KFAC),
    Contender("hf fixed", "hf", "hessian free", _FIXED),
    Contender("hf lm", "hf_lm", "hessian free", _LEVENBERG_MARQUARDT),
    Contender("hf growing", "hf_adam", "hessian free", _GROWING),
    Contender("mlhf", "mlhf", "candidate"),
    Contender("mlhf untrained", "mlhf", "candidate", params={"meta_checkpoint": UNTRAINED}),
    Contender("mlhf + decay", "mlhf", "candidate", params={"weight_decay": 5e-5}),
)

# AdamW untuned, which a transferred meta-checkpoint is compared with.
ADAMW_DEFAULTS = Contender("adamw, defaults", "adamw", "candidate")
CANDIDATE, CONTROL, REFERENCE = "mlhf", "mlhf untrained", "adamw"
# The candidate for networks that overfit.
WITH_DECAY = "mlhf + decay"


def contender(name: str) -> Contender:
    """Return a contender by its name."""
    return next(e for e in (*CONTENDERS, ADAMW_DEFAULTS) if e.name == name)


def names(category: Category) -> list[str]:
    """Return the names of the contenders of a category."""
    return [e.name for e in CONTENDERS if e.category == category]
