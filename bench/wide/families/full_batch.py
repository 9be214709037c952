"""Small regressions where every step sees all samples, so that L-BFGS can take part."""

from bench.wide.families.surrogate import function
from bench.wide.task import Size, Version, WideTask
from mlhf.core.config import Component


def task(version: Version, size: Size) -> WideTask:
    """Return waves in two dimensions by 2-32-32-1; judged: a bump and a ridge in three."""
    tiny = size == "tiny"
    if version == "development":
        formula, hidden, dimension, samples, seed = (
            "sin(6*x1)*cos(5*x2)+x1*x2",
            [32, 32],
            2,
            500,
            31,
        )
    else:
        formula, hidden, dimension, samples, seed = (
            "exp(-8*((x1-0.4)^2+(x2-0.6)^2))+tanh(6*(x3-x1))",
            [24, 24, 24],
            3,
            800,
            9031,
        )
    return WideTask(
        "full-batch",
        version,
        lambda: Component(name="mlp", params={"hidden": hidden, "activation": "tanh"}),
        function(formula, dimension, samples, seed),
        steps=20 if tiny else 2000,
        batch_size=samples,
        train_samples=samples,
    )
