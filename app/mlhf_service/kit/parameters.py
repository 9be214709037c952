"""JSON Schemas as tables that people read: of a model, an optimizer, a layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_EXAMPLE_SIZE = 16


@dataclass(frozen=True)
class Parameter:
    """One parameter of a schema, in words.

    Attributes:
        default: As JSON would have it; absent where the parameter must be given.
    """

    name: str
    type: str
    required: bool
    default: Any
    allowed: str
    description: str


@dataclass(frozen=True)
class Part:
    """A schema that others refer to, such as a layer: what it is, and an example of it."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    example: dict[str, Any]


def parameters(schema: Schema) -> tuple[Parameter, ...]:
    """The parameters of an object's schema."""
    required = schema.get("required", ())
    return tuple(
        Parameter(
            name=name,
            type=_type(one),
            required=name in required,
            default=one.get("default"),
            allowed=", ".join(_allowed(one)),
            description=one.get("description", ""),
        )
        for name, one in schema.get("properties", {}).items()
        if "const" not in one
    )


def parts(schema: Schema) -> list[Part]:
    """The objects that a schema's parameters consist of, by the name that a job gives them."""
    return [
        Part(
            name=_constant(one) or name,
            description=one.get("description", ""),
            parameters=parameters(one),
            example=example(one, schema),
        )
        for name, one in schema.get("$defs", {}).items()
        if one.get("type") == "object"
    ]


def example(schema: Schema, root: Schema) -> dict[str, Any]:
    """An object that fits a schema: its constants, what must be given, and the defaults."""
    required = schema.get("required", ())
    found = {}
    for name, one in schema.get("properties", {}).items():
        if "const" in one:
            found[name] = one["const"]
        elif one.get("default") is not None:
            found[name] = one["default"]
        elif name in required:
            found[name] = _value(one, root)
    return found


def _constant(schema: Schema) -> str | None:
    constants = (one["const"] for one in schema.get("properties", {}).values() if "const" in one)
    return next(constants, None)


def _value(schema: Schema, root: Schema) -> Any:
    """A value that fits."""
    if "$ref" in schema:
        return example(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if choices := schema.get("enum") or schema.get("oneOf") or schema.get("anyOf"):
        first = choices[0]
        return _value(first, root) if isinstance(first, Mapping) else first
    if schema.get("type") == "array":
        return [_value(schema["items"], root)]
    if schema.get("type") in ("integer", "number"):
        return min(_EXAMPLE_SIZE, schema.get("maximum", _EXAMPLE_SIZE))
    return "…"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if choices := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(one) for one in choices))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return "one of"
    return str(schema.get("type", "any")).replace("null", "none")


def _allowed(schema: Schema) -> Iterator[str]:
    for choice in schema.get("anyOf", ()):
        yield from _allowed(choice)
    yield from map(str, schema.get("enum", ()))
    for name, sign in _BOUNDS.items():
        if name in schema:
            yield f"{sign} {schema[name]:,}"
