"""What is wrong with a value, in words that name it and what is allowed. Needs no torch.

Pydantic's errors do not say which fields or forms there are; the JSON Schema does.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlhf.core.errors import error_message

Schema = Mapping[str, Any]
Location = Sequence[int | str]

_LONGEST = 60  # characters of a given value that are repeated
_MOST = 24  # names that are listed


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` where a known name is close to ``name``, else nothing."""
    names = list(known)
    found = difflib.get_close_matches(name, names, 1, 0.6)
    # `learning_rate` is not spelt like `lr`, but stands for it.
    initials = "".join(word[:1] for word in name.lower().split("_"))
    if not found and len(initials) > 1 and initials in names:
        found = [initials]
    return f"; did you mean {found[0]!r}?" if found else ""


def known_names(names: Iterable[str]) -> str:
    """The names in one line, the first of many."""
    listed = list(names)
    more = ", …" if len(listed) > _MOST else ""
    return ", ".join(listed[:_MOST]) + more


def unknown(noun: str, name: str, known: Sequence[str]) -> str:
    """The message about a name that there is not: what it may have meant, and what there is."""
    guess = suggestion(name, known) or ";"
    return f"unknown {noun} {name!r}{guess} known: {known_names(known) or 'none'}"


def explain(error: Mapping[str, Any], schema: Schema, root: Schema | None = None) -> str:
    """Say what one of pydantic's errors is about.

    Args:
        error: An item of ``ValidationError.errors()``.
        schema: The JSON Schema of what was validated; ``error["loc"]`` is a place in it.
        root: The document that the schema's references are into, where it is not the schema.
    """
    root = root or schema
    loc, given = error["loc"], error.get("input")
    match error["type"]:
        case "extra_forbidden":
            names = [name for node in _at(schema, root, loc[:-1]) for name in _fields(node)]
            return unknown("field", str(loc[-1]), list(dict.fromkeys(names)))
        case "missing":
            return "missing, and there is no default"
        case "union_tag_not_found" | "union_tag_invalid":
            return _form(error, _at(schema, root, loc))
        case "literal_error" | "enum":
            allowed = [p.strip("'") for p in _words(error["ctx"]["expected"])]
            guess = suggestion(given, allowed) if isinstance(given, str) else ""
            return f"{_lowered(error)}{_given(given)}{guess}"
        case "string_pattern_mismatch" if "tag" in error["loc"][-2:]:
            return f"must be key or key:value{_given(given)}"
        case "string_pattern_mismatch" if wrong := _misfit(error["ctx"]["pattern"], given):
            return f"has a character that cannot stand here, {wrong}"
        case "value_error" | "assertion_error":
            return error_message(error)
    return f"{_lowered(error)}{_given(given)}"


def telling_field(error: Mapping[str, Any]) -> str:
    """Return what follows the pointer to an object, where its field is wrong which tells its form.

    Pydantic's location of that error is the object.
    """
    wrong = error["type"] in ("union_tag_not_found", "union_tag_invalid")
    if not wrong or not isinstance(error.get("input"), Mapping):
        return ""
    return "/" + str(error["ctx"]["discriminator"]).strip("'")


def _misfit(pattern: str, given: Any) -> str:
    """The first character that a pattern of one class of characters does not take; else nothing."""
    if not (isinstance(given, str) and given and re.fullmatch(r"\^\[\^?[^\[]*\]\+\$", pattern)):
        return ""
    found = next((c for c in given if not re.fullmatch(pattern, c)), None)
    return "" if found is None else f"U+{ord(found):04X}"


def _form(error: Mapping[str, Any], nodes: Iterable[Schema]) -> str:
    """Of a union whose members are told apart by one field: which values it has."""
    field = str(error["ctx"]["discriminator"]).strip("'")
    tags = [
        tag for node in nodes for tag in node.get("discriminator", {}).get("mapping", {})
    ] or _words(error["ctx"].get("expected_tags", ""))
    tags = [tag.strip("'") for tag in tags]
    one_of = f"one of {known_names(tags)}"
    if error["type"] == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return f"{field!r} is {tag!r}{suggestion(tag, tags) or ';'} it must be {one_of}"
    given = error.get("input")
    if not isinstance(given, Mapping):
        return f"must be an object with {field!r}, {one_of}"
    named = next((k for k, v in given.items() if isinstance(v, str) and v in tags), None)
    hint = f"; write {{{json.dumps(field)}: {json.dumps(given[named])}}}" if named else ""
    return f"{field!r} is missing: it must be {one_of}{hint}"


def _lowered(error: Mapping[str, Any]) -> str:
    message = error_message(error).removeprefix("Input ")
    for found, better in (
        ("should be ", "must be "),
        ("should ", "must "),
        (", unable to parse string as an integer", ""),
        (", unable to parse string as a number", ""),
        ("a valid integer", "a whole number"),
        ("a valid number", "a number"),
        ("a valid string", "a text"),
        ("a valid dictionary or object to extract fields from", "an object"),
        ("a valid dictionary", "an object"),
        ("a valid list", "a list"),
        ("a valid boolean", "true or false"),
    ):
        message = message.replace(found, better)
    return message


def _given(value: Any) -> str:
    """The value that was given, where it is short enough to be repeated."""
    if isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(value) > 8):
        return ""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        return ""
    return f"; given: {text}" if len(text) <= _LONGEST else ""


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.replace(" or ", ", ").split(",") if word.strip()]


def _at(schema: Schema, root: Schema, loc: Location) -> list[Schema]:
    """The schemas of the place ``loc``, one for each form that it can have."""
    nodes = list(_forms(schema, root))
    for step in loc:
        following = [form for node in nodes for form in _step(node, root, step)]
        # Locations also name the member of a union that was tried: no step in the value.
        nodes = following or nodes
    return nodes


def _step(node: Schema, root: Schema, step: int | str) -> Iterator[Schema]:
    mapping = node.get("discriminator", {}).get("mapping", {})
    if step in mapping:
        yield from _forms({"$ref": mapping[step]}, root)
    elif step in node.get("properties", {}):
        yield from _forms(node["properties"][step], root)
    elif isinstance(step, int) and isinstance(node.get("items"), Mapping):
        yield from _forms(node["items"], root)
    elif isinstance(node.get("additionalProperties"), Mapping):
        yield from _forms(node["additionalProperties"], root)


def _forms(schema: Schema, root: Schema) -> Iterator[Schema]:
    """A schema's alternatives, references followed; a union told apart by a field stays whole."""
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].lstrip("#/").split("/"):
            found = found[part]
        yield from _forms(found, root)
    elif "discriminator" in schema:
        yield schema
    elif alternatives := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        for each in alternatives:
            yield from _forms(each, root)
    else:
        yield schema


def _fields(node: Schema) -> list[str]:
    return list(node.get("properties", ()))
