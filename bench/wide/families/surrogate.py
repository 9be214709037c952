"""Regression surrogates in float32: the borehole function, and the weight of a wing."""

from bench.wide.task import Size, Version, WideTask
from mlhf.core.config import Component

# Of inputs in [0, 1], scaled to the ranges of Surjanovic and Bingham's library of test functions.
_BOREHOLE = (
    "2*pi*(63070+52530*x3)*(120*x4-80*x6+290)"
    "/(log((100+49900*x2)/(0.05+0.1*x1))*(1+2*(1120+560*x7)*(63070+52530*x3)"
    "/(log((100+49900*x2)/(0.05+0.1*x1))*(0.05+0.1*x1)^2*(9855+2190*x8))"
    "+(63070+52530*x3)/(63.1+52.9*x5)))"
)
_WING = (
    "0.036*(150+50*x1)^0.758*(220+80*x2)^0.0035*((6+4*x3)/cos((20*x4-10)*pi/180)^2)^0.6"
    "*(16+29*x5)^0.006*(0.5+0.5*x6)^0.04"
    "*(100*(0.08+0.1*x7)/cos((20*x4-10)*pi/180))^(-0.3)"
    "*((2.5+3.5*x8)*(1700+800*x9))^0.49+(150+50*x1)*(0.025+0.055*x10)"
)


def task(version: Version, size: Size) -> WideTask:
    """Return the borehole function by 8-64-64-1; judged: the wing's weight by 10-48-48-48-1."""
    tiny = size == "tiny"
    if version == "development":
        samples = 256 if tiny else 4000
        return WideTask(
            "surrogate",
            version,
            lambda: Component(name="mlp", params={"hidden": [64, 64], "activation": "tanh"}),
            function(_BOREHOLE, 8, samples, 11),
            steps=40 if tiny else 4000,
            batch_size=128,
            train_samples=samples,
        )
    samples = 256 if tiny else 3000
    return WideTask(
        "surrogate",
        version,
        lambda: Component(name="mlp", params={"hidden": [48, 48, 48], "activation": "silu"}),
        function(_WING, 10, samples, 9011),
        steps=40 if tiny else 3000,
        batch_size=100,
        train_samples=samples,
    )


def function(formula: str, dimension: int, samples: int, seed: int) -> Component:
    """Return so many values of a formula in x1, x2, … from [0, 1]."""
    return Component(
        name="function",
        params={
            "expressions": [formula],
            "dimension": dimension,
            "train_samples": samples,
            "test_samples": 1000,
            "seed": seed,
        },
    )
