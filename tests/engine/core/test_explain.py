"""Errors about values name the field, the value and what is allowed."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.explain import explain
from mlhf.models.specs import MODELS
from mlhf.optimizers.specs import OPTIMIZERS


class Inner(Strict):
    type: Literal["inner"]
    depth: int = 1


class Outer(Strict):
    type: Literal["outer"]
    children: list[Annotated["Inner | Outer", Field(discriminator="type")]] = Field(default=[])


class Whole(Strict):
    form: Annotated[Inner | Outer, Field(discriminator="type")]
    rate: float | None = 0.1
    level: Literal["low", "high"] = "low"


def message(value: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(value)
    return explain(caught.value.errors()[0], Whole.model_json_schema())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "missing, and there is no default"),
        (
            {"form": {"type": "inner"}, "rat": 1},
            "unknown field 'rat'; did you mean 'rate'? known: form, rate, level",
        ),
        ({"form": {}}, "'type' is missing: it must be one of inner, outer"),
        (
            {"form": {"name": "outer"}},
            '\'type\' is missing: it must be one of inner, outer; write {"type": "outer"}',
        ),
        ({"form": "outer"}, 'must be an object; given: "outer"'),
        (
            {"form": {"type": "iner"}},
            "'type' is 'iner'; did you mean 'inner'? it must be one of inner, outer",
        ),
        (
            {"form": {"type": "outer", "children": [{"type": "inner", "deep": 2}]}},
            "unknown field 'deep'; did you mean 'depth'? known: type, depth",
        ),
        ({"form": {"type": "inner"}, "rate": "0.1"}, 'must be a number, not text; given: "0.1"'),
        ({"form": {"type": "inner"}, "rate": [1]}, "must be a number; given: [1]"),
        (
            {"form": {"type": "inner"}, "level": "hihg"},
            "must be 'low' or 'high'; given: \"hihg\"; did you mean 'high'?",
        ),
    ],
)
def test_the_message_names_field_value_and_what_is_allowed(
    value: dict[str, Any], said: str
) -> None:
    assert message(value) == said


def test_registries_explain_themselves() -> None:
    for registry, name, params, pointer, said in (
        (OPTIMIZERS, "admaw", {}, "/name", "did you mean 'adamw'?"),
        (OPTIMIZERS, "adam", {"learning_rate": 1}, "/params/learning_rate", "did you mean 'lr'?"),
        (
            OPTIMIZERS,
            "adam",
            {"schedule": {"name": "cosine"}},
            "/params/schedule/type",
            'write {"type": "cosine"}',
        ),
        (
            MODELS,
            "sequential",
            {"layers": [{"type": "linera"}]},
            "/params/layers/0/type",
            "did you mean 'linear'?",
        ),
    ):
        with pytest.raises(SpecError) as caught:
            registry.parse(name, params)
        assert caught.value.pointer == pointer
        assert said in caught.value.message


def test_a_character_that_a_pattern_does_not_take_is_named():
    error = {
        "type": "string_pattern_mismatch",
        "loc": ("name",),
        "msg": "String should match pattern",
        "ctx": {"pattern": "^[^\u202a-\u202e]+$"},
        "input": "log\u202eboj",
    }
    assert explain(error, {}) == "has a character that cannot stand here, U+202E"
    tag = {**error, "loc": ("query", "tag"), "ctx": {"pattern": "^x:y$"}, "input": "a=b"}
    assert explain(tag, {}) == 'must be key or key:value; given: "a=b"'
    other = {**error, "ctx": {"pattern": "^prj_[0-9]+$"}, "input": "prj"}
    assert explain(other, {}).startswith("String must match pattern")
