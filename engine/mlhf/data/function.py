"""Samples of functions given by formulas: regression surrogates, exact to rounding."""

import hashlib
from pathlib import Path

import numpy as np

from mlhf.core.errors import SpecError
from mlhf.core.expressions import parse
from mlhf.data.arrays import Array, Arrays, Split
from mlhf.data.info import DataInfo
from mlhf.data.params import FunctionParams

_TRAIN, _TEST = 1000, 1000


def describe(params: FunctionParams, root: Path | None) -> DataInfo:
    """Return the sizes that were asked for."""
    return DataInfo(
        kind="table",
        input_shape=(params.dimension,),
        outputs=len(params.expressions),
        task="regression",
        train_samples=params.train_samples or _TRAIN,
        test_samples=params.test_samples or _TEST,
    )


def validate(params: FunctionParams, root: Path | None) -> DataInfo:
    """Check that the values are finite, and return the sizes."""
    return read(params, root).info


def read(params: FunctionParams, root: Path | None) -> Arrays:
    """Return points drawn evenly from the domain, and the values there, both in float64."""
    info = describe(params, root)
    generator = np.random.RandomState(params.seed)
    train = _split(params, info.train_samples, generator)
    test = _split(params, info.test_samples, generator)
    if params.noise:
        targets = train.targets
        assert not isinstance(targets, dict)
        spread = params.noise * targets.std(0)
        noise = generator.standard_normal(targets.shape)
        train = Split(train.inputs, targets + spread * noise)
    return Arrays(info, train, test)


def digest(root: Path | None) -> str:
    """Return the sha256 of nothing: the parameters are all there is."""
    return hashlib.sha256(b"function").hexdigest()


def _split(params: FunctionParams, count: int, generator: np.random.RandomState) -> Split:
    low, high = params.domain
    points = low + (high - low) * generator.random_sample((count, params.dimension))
    return Split(
        points, np.stack([_values(params, text, points) for text in params.expressions], 1)
    )


def _values(params: FunctionParams, text: str, points: Array) -> Array:
    columns = {f"x{i + 1}": points[:, i] for i in range(params.dimension)}
    with np.errstate(all="ignore"):
        values = parse(text, columns)(columns, np)
    values = np.broadcast_to(np.asarray(values, np.float64), (len(points),))
    bad = ~np.isfinite(values)
    if bad.any():
        at = ", ".join(f"{v:.4g}" for v in points[bad.argmax()])
        raise SpecError(
            "/params/expressions",
            f"{text!r} has no finite value at ({at}): change the formula or the domain",
        )
    return values
