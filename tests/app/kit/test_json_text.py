"""What the database's JSON columns hold is read as Python's own parser reads it."""

import json
import math
from typing import Any

import pytest

from mlhf_service.kit.json_text import parsed


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, -0.0, 1e-320, 1e308, True, None, "ä\n\\"], "": {}},
        2**70,
        -(10**30),
        0.1 + 0.2,
        float("inf"),
        "a lone surrogate: \udcff",
        {"\ud800": ["\udfff"]},
        [[[[]]]],
    ],
)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value).encode()):
        found = parsed(text)
        assert found == value
        assert repr(found) == repr(value)


def test_not_a_number_comes_back() -> None:
    assert math.isnan(parsed('{"loss": NaN}')["loss"])


def test_a_deep_value_comes_back() -> None:
    deep = 300 * "[" + 300 * "]"  # deeper than Pydantic's parser goes
    assert parsed(deep) == json.loads(deep)


def test_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        parsed("{'a': 1}")
