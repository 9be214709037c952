"""Sweeps that tune first: the best setting of each optimizer is trained on further seeds.

All runs are made with the job. Those on the further seeds are held back (``jobs.held``) until the
runs that they depend on have ended. Then they get the best setting and wait like any other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from sqlalchemy.orm import Session

from mlhf.core.config import Strict
from mlhf_service.comparisons.tuning import tuning_score
from mlhf_service.jobs.kinds.protocol import Release
from mlhf_service.jobs.kinds.requests import Seeds
from mlhf_service.runs import reading
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import TERMINAL


class Tuning(Strict):
    """Try every setting on seeds of their own, then train the best of each on ``seeds``."""

    seeds: Seeds = Field(default=[1000], description="None of them may be among `seeds`.")
    metric: Literal["train_loss", "test_loss"] = Field(
        default="train_loss",
        description="The setting is taken that has the lowest mean of the final log loss and of "
        "the log loss over all evaluations; one that diverges comes last.",
    )


@dataclass(frozen=True)
class Place:
    """What a run of such a sweep is for.

    Attributes:
        entry: The number of its optimizer in the request.
        variant: The number of its setting; of a run that is held back, of the first.
        tuning: Whether it only serves to choose.
        held: Whether it waits for those that do.
    """

    entry: int
    variant: int
    seed: int
    tuning: bool = False
    held: bool = False


def places(
    variants: Sequence[int], tuning_seeds: Sequence[int], seeds: Sequence[int]
) -> list[Place]:
    """Return what each run is for, in order: all that tune before all that are held back.

    Args:
        variants: How many settings each optimizer has; one with a single setting is not tuned.
        tuning_seeds: On which settings are tried.
        seeds: On which the best are trained.
    """
    several = [(entry, count) for entry, count in enumerate(variants) if count > 1]
    tuning = [
        Place(entry, variant, seed, tuning=True)
        for seed in tuning_seeds
        for entry, count in several
        for variant in range(count)
    ]
    judged = [
        Place(entry, 0, seed, held=count > 1)
        for seed in seeds
        for entry, count in enumerate(variants)
    ]
    return [*tuning, *judged]


def together(found: Sequence[Place], positions: set[int]) -> set[int]:
    """Return positions with all that must run again with them: their optimizer's whole tuning.

    A run that tunes brings those that depend on it too.
    """
    tuned = {found[at].entry for at in positions if found[at].tuning}
    held = {found[at].entry for at in positions if found[at].held}
    return positions | {
        at
        for at, place in enumerate(found)
        if (place.tuning and place.entry in tuned | held) or (place.held and place.entry in tuned)
    }


def released(
    session: Session, runs: Sequence[Run], held: Sequence[Run], found: Sequence[Place], metric: str
) -> list[Release]:
    """Let go each optimizer's runs once nothing that tunes it is left to end.

    Args:
        runs: All of the job.
        held: Those that are held back.
        found: What each is for, by its position.
        metric: A setting is better whose curve of it is lower.
    """
    waiting: dict[int, list[Run]] = {}
    for run in held:
        waiting.setdefault(found[run.position].entry, []).append(run)
    releases = []
    for entry, own in waiting.items():
        tried = [
            run for run in runs if found[run.position].tuning and found[run.position].entry == entry
        ]
        if any(run.status not in TERMINAL for run in tried):
            continue
        name = own[0].config["optimizer"]["name"]
        if tried:
            best = _best(session, tried, found, metric)
            settings = len({found[run.position].variant for run in tried})
            message = f"the best of {settings} settings of {name} is that of {best.name!r}"
            releases.append(Release(own, best, message))
        else:
            message = f"no run that tunes {name} is left: its first setting is trained"
            releases.append(Release(own, None, message))
    return releases


def _best(session: Session, tried: Sequence[Run], found: Sequence[Place], metric: str) -> Run:
    """Return the first run of the setting with the lowest mean score over the seeds."""
    scores: dict[int, list[float]] = {}
    first: dict[int, Run] = {}
    for run in tried:
        variant = found[run.position].variant
        first.setdefault(variant, run)
        scores.setdefault(variant, []).append(_score(session, run, metric))
    means: Mapping[int, float] = {v: sum(of) / len(of) for v, of in scores.items()}
    return first[min(means, key=lambda variant: (means[variant], variant))]


def _score(session: Session, run: Run, metric: str) -> float:
    if run.status != "succeeded":
        return math.inf
    curves = reading.read(session, run.id, [metric])
    return tuning_score(curves[0].value.tolist()) if curves else math.inf
