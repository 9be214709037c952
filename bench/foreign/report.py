"""The page of what the trials found."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from bench.foreign.trial import RATES

Trial = Mapping[str, Any]

_HEAD = """# Networks of timm and transformers

`python -m bench.foreign` writes this folder: `trials.json` has the loss of every step.

{count} networks that were not written for this library, small and at random weights: images are
sorted ({images} networks of timm), text is continued, unmasked, sorted or translated, and some
take images with text, sounds or series. Each trains 40 steps, on a new batch each, by `MLHF` as
it comes and by AdamW at {rates}, from the same weights, with one thread.
`start` is the loss before the first step, and the others are means over the last five steps.
`seconds` are those of a step of MLHF in steps of AdamW, by CPU time, without the first. One seed:
a difference of a few hundredths says nothing.

{verdict}

"""


def page(versions: Mapping[str, str], trials: Mapping[str, Trial]) -> str:
    """Return the page."""
    head = _HEAD.format(
        count=len(trials),
        images=sum(name.startswith("timm") for name in trials),
        rates=", ".join(f"{rate:g}" for rate in RATES),
        verdict=verdict(trials),
    )
    lines = [
        "| network | parameters | start | MLHF | AdamW, best | at rate | seconds |",
        "|---|---|---|---|---|---|---|",
        *(line(name, trial) for name, trial in trials.items()),
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
    ]
    return head + "\n".join(lines)


def line(name: str, trial: Trial) -> str:
    """Return a network's row."""
    rate, best = _best(trial)
    mlhf, start = trial["mlhf"], trial["adamw"][rate]["losses"][0]
    seconds = "–"
    if "end" in mlhf:
        seconds = f"{_ratio(trial):.1f}"
        ours = "not finite" if None in mlhf["losses"] else f"{mlhf['end']:.3f}"
        ours = f"**{ours}**" if _falls_as_far(trial) else ours
    else:
        ours = next(f"{word}: {mlhf[word]}" for word in ("refused", "failed") if word in mlhf)
    cells = [
        name,
        f"{trial['parameters']:,}",
        f"{start:.3f}",
        ours,
        f"{best:.3f}",
        f"{float(rate):g}",
    ]
    return "| " + " | ".join([*cells, seconds]) + " |"


def verdict(trials: Mapping[str, Trial]) -> str:
    """Return in how many networks MLHF falls as far as AdamW's best, and what else became of it."""
    found = list(trials.values())
    ran = [t for t in found if "end" in t["mlhf"]]
    finite = [t for t in ran if None not in t["mlhf"]["losses"]]
    as_far = [t for t in ran if _falls_as_far(t)]
    refused = sum("refused" in t["mlhf"] for t in found)
    failed = sum("failed" in t["mlhf"] for t in found)
    times = statistics.median(_ratio(t) for t in ran) if ran else math.nan
    return (
        f"Of {len(found)} networks MLHF trains {len(finite)} with finite losses throughout, and "
        f"{len(ran) - len(finite)} with others; it refuses {refused} by a message, and fails on "
        f"{failed}. In {len(as_far)} of the {len(found)} its loss falls at least as far as with "
        f"the best rate of AdamW (in bold). A step takes {times:.1f} of AdamW's (median)."
    )


def _best(trial: Trial) -> tuple[str, float]:
    """Return AdamW's best rate, and its loss at the end."""
    ends = {
        rate: math.inf if run["end"] is None else run["end"] for rate, run in trial["adamw"].items()
    }
    best = min(ends, key=ends.__getitem__)
    return best, ends[best]


def _falls_as_far(trial: Trial) -> bool:
    return None not in trial["mlhf"]["losses"] and bool(trial["mlhf"]["end"] <= _best(trial)[1])


def _ratio(trial: Trial) -> float:
    """Return a step's seconds in steps of AdamW, the mean of all rates."""
    base = statistics.mean(run["seconds"] for run in trial["adamw"].values())
    return float(trial["mlhf"]["seconds"] / base)
