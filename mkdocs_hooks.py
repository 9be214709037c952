"""What ``mkdocs build`` makes of the code, so that no page can be behind it."""

from collections.abc import Callable, Iterator
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put tables where a page asks for them."""
    for mark, make in TABLES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def settings_table() -> str:
    """Every setting with its type, its default and what it is for, as Markdown."""
    from mlhf_service.settings import Settings

    properties = Settings.model_json_schema()["properties"]
    rows = [
        (
            f"`MLHF_{name.upper()}`",
            _type(properties[name]),
            "" if field.is_required() else _default(field.get_default()),
            properties[name].get("description", ""),
        )
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "type", "default", ""), rows)


def layers_table() -> str:
    """Every layer of the sequential model with its parameters, as Markdown."""
    from mlhf.models.layer_specs import SequentialParams

    rows = []
    for definition in SequentialParams.model_json_schema()["$defs"].values():
        fields = definition.get("properties", {})
        if "const" in fields.get("type", {}):
            given = ", ".join(_parameter(definition, name) for name in fields if name != "type")
            said = definition.get("description", "").partition("\n\n")[0].replace("\n", " ")
            rows.append((f"`{fields['type']['const']}`", given, said))
    return _table(("`type`", "parameters and their defaults", ""), sorted(rows))


def formats_tables() -> str:
    """The parameters of every format of uploads, as Markdown."""
    return "\n\n".join(_parameter_sections("format"))


def models_tables() -> str:
    """The parameters of every model, as Markdown."""
    return "\n\n".join(_parameter_sections("model"))


def losses_tables() -> str:
    """The parameters of every loss, as Markdown."""
    return "\n\n".join(_parameter_sections("loss"))


def _parameter_sections(kind: str) -> Iterator[str]:
    from mlhf_service.catalogue import service

    for entry in service.entries(kind):
        schema = entry.params_schema
        rows = [
            (
                f"`{name}`",
                _type(field),
                "" if name in schema.get("required", ()) else _default(field.get("default")),
                field.get("description", ""),
            )
            for name, field in schema.get("properties", {}).items()
        ]
        yield f"### `{entry.name}`\n\n{entry.description}\n\n" + _table(
            ("parameter", "type", "default", ""), rows
        )


TABLES: dict[str, Callable[[], str]] = {
    "<!-- settings -->": settings_table,
    "<!-- layers -->": layers_table,
    "<!-- formats -->": formats_tables,
    "<!-- models -->": models_tables,
    "<!-- losses -->": losses_tables,
}


def _parameter(definition: dict[str, Any], name: str) -> str:
    field = definition["properties"][name]
    if name in definition.get("required", ()):
        return f"`{name}`"
    default = field.get("default")
    return f"`{name}`" + (f" ({default})" if default is not None else " (see schema)")


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def _default(value: Any) -> str:
    return "" if value is None or str(value) == "" else f"`{value}`"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "anyOf" in schema:
        parts = [_type(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    kind = schema.get("type", "object")
    words = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    return words.get(kind, str(kind)).replace("array", "list")
