"""The closed language of formulas."""

import math

import numpy as np
import pytest
import torch

from mlhf.core.expressions import ExpressionError, parse

X = {"x1": np.array([0.5, 2.0]), "x2": np.array([1.0, -3.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x1 + 2*x2 - 1", X["x1"] + 2 * X["x2"] - 1),
        ("-x1^2", -(X["x1"] ** 2)),
        ("2^-1 * x1", X["x1"] / 2),
        ("2^3^2*x1/x1", np.array([512.0, 512.0])),
        ("x1**2/(x2 - 4)", X["x1"] ** 2 / (X["x2"] - 4)),
        ("sin(pi*x1)*exp(-x2) + 1.5e-1", np.sin(np.pi * X["x1"]) * np.exp(-X["x2"]) + 0.15),
        ("sqrt(abs(x2)) - log(x1)", np.sqrt(abs(X["x2"])) - np.log(X["x1"])),
        ("tanh(.5)*x1", math.tanh(0.5) * X["x1"]),
        ("1 - 2 - 3", -4.0),
        ("8/2/2", np.array([2.0, 2.0])),
    ],
)
def test_a_formula_has_its_value(text, expected):
    assert np.allclose(parse(text, X)(X, np), expected, rtol=1e-15)
    tensors = {k: torch.tensor(v) for k, v in X.items()}
    assert np.allclose(parse(text, X)(tensors, torch), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends where a number, a variable or a function"),
        ("x1 +", "ends where"),
        ("x1 x2", "'x2' at character 4 where an operator or the end"),
        ("x3", "'x3' at character 1; known are x1, x2, pi, e"),
        ("__import__('os')", "'__import__' at character 1|\"'\" at character 12"),
        ("x1.real", r"'\.' at character 3"),
        ("sin x1", r"'x1' at character 5 where \( after sin"),
        ("(x1", r"ends where \)"),
        ("1e999", "too large"),
        ("(" * 60 + "x1" + ")" * 60, "nested more than 50"),
        ("-" * 200 + "x1", "nested more than 50"),
        ("x1+" * 1000 + "x1", "characters; at most"),
        ("x1[0]", r"'\[' at character 3"),
        ("lambda: 1", "'lambda'|':'"),
    ],
)
def test_what_is_no_formula_is_told_where(text, message):
    with pytest.raises(ExpressionError, match=message):
        parse(text, X)
