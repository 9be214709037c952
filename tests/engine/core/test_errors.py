"""Errors say where in a specification they are."""

import pytest

from mlhf.core.errors import SpecError, under


def test_prefixes_are_put_in_front_from_the_inside_out() -> None:
    with pytest.raises(SpecError, match="too small") as caught, under("/tasks/0"), under("/model"):
        raise SpecError("/params/hidden/0", "too small")
    assert caught.value.pointer == "/tasks/0/model/params/hidden/0"


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), under("/model"):
        raise KeyError("name")
