"""What columns and tags of other tools are called here."""

import re

# Columns that are places on an axis.
PLACES = {
    "step": "step",
    "steps": "step",
    "_step": "step",
    "global_step": "step",
    "trainer_global_step": "step",
    "iteration": "step",
    "samples": "samples",
    "epoch": "epoch",
    "epochs": "epoch",
    "wall_seconds": "wall_seconds",
    "seconds": "wall_seconds",
    "_runtime": "wall_seconds",
    "cpu_seconds": "cpu_seconds",
}
_TRAIN = {"train", "training"}
_TEST = {"test", "val", "valid", "validation", "eval", "evaluation"}
_LOSS, _ACCURACY = {"loss"}, {"acc", "accuracy"}


def plain(name: str) -> str:
    """A name in the letters that ours have."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:64]


def metric_of(name: str) -> str:
    """The metric that a column is: a loss or an accuracy of a split by ours, else its own name."""
    text = plain(name)
    words = set(text.split("_"))
    split = "train" if words & _TRAIN else "test" if words & _TEST else None
    what = "loss" if words & _LOSS else "accuracy" if words & _ACCURACY else None
    known = _TRAIN | _TEST | _LOSS | _ACCURACY | {"epoch"}
    if what is None or words - known:
        return text
    if split is None:
        split = "train" if what == "loss" else None
    return f"{split}_{what}" if split else text


def place_of(name: str) -> str | None:
    """The axis that a column is; None for a metric."""
    return PLACES.get(name.strip().lower()) or PLACES.get(plain(name))
