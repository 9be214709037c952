"""The same data give the same figure; lines can be told apart."""

from typing import Any, Literal

import pytest

from mlhf_service.kit.drawing import (
    COLOURS,
    DASHES,
    log_ticks,
    new_figure,
    plain,
    render,
    short_ticks,
    style_of,
)
from mlhf_service.kit.panels import panels_png


def _figure() -> Any:
    figure = new_figure(2, 1)
    figure.subplots().plot([0, 1], [1, 2])
    return figure


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert render(_figure()) == render(_figure())
    assert render(_figure(), "svg") == render(_figure(), "svg")
    row = [("a task", "a measure", [("a line", [0.0, 1.0], [1.0, 2.0])])]
    assert panels_png([row]) == panels_png([row])


def test_the_first_lines_differ_in_colour_or_dashes() -> None:
    count = len(COLOURS) * len(DASHES)
    assert len({style_of(index) for index in range(count)}) == count


def test_text_is_cut_and_is_no_mathematics() -> None:
    assert plain("a$b$", 10) == r"a\$b\$"
    assert plain("abcdef", 4) == "abc…"


@pytest.mark.parametrize("form", ["png", "svg"])
@pytest.mark.parametrize(
    ("scale", "values"),
    [
        ("linear", (1.5e308, 1.7e308)),
        ("linear", (1.0, 1.7e308)),
        ("linear", (-1.6e308, 1.7e308)),
        ("log", (1.5e308, 1.7e308)),
        ("log", (1.0, 1.7e308)),
    ],
)
def test_numbers_near_the_largest_are_drawn(
    scale: str, values: tuple[float, float], form: Literal["png", "svg"]
) -> None:
    figure = new_figure(3, 2)
    panel = figure.subplots()
    panel.plot([0, 1], values)
    if scale == "log":
        log_ticks(panel, values[1])
    else:
        short_ticks(panel)
    assert len(render(figure, form)) > 500
