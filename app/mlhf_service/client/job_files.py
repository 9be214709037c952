"""Jobs in files, as JSON or YAML: how they are read, and on which line a refused value stands."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlhf_service.client.errors import Json, ServiceError

if TYPE_CHECKING:
    from yaml.nodes import Node

_YAML = (".yaml", ".yml")
# YAML 1.1 takes 1e-3 for a text: its numbers need a dot. A learning rate is mostly written so.
_FLOAT = re.compile(r"[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+")


def read_job(path: Path) -> Json:
    """The job that a file holds. Raises ServiceError, which names the file and the line."""
    return parse_job(_text_of(path), str(path), path.suffix.lower() in _YAML)


def parse_job(text: str, name: str, is_yaml: bool | None = None) -> Json:
    """The job that a text holds.

    Args:
        name: What errors call it.
        is_yaml: JSON if False; where it is not told, YAML is read unless it is JSON.
    """
    try:
        found = _yaml(text, name) if is_yaml else json.loads(text, object_pairs_hook=_once)
        json.dumps(found, allow_nan=False)  # what YAML has and JSON has not, or no end
    except json.JSONDecodeError as error:
        if is_yaml is None and not text.lstrip().startswith("{"):
            return parse_job(text, name, is_yaml=True)
        raise ServiceError(
            f"cannot read a job from {name}, line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ServiceError(f"cannot read a job from {name}: {error}") from None
    if not isinstance(found, dict):
        raise ServiceError(f"{name} holds no job: it must be one object with a kind")
    return found


@contextmanager
def placed(spec: Mapping[str, Any] | str | Path | None, text: str | None = None) -> Iterator[None]:
    """Say of a refusal on which lines of the file the refused values stand.

    Args:
        spec: What was submitted; only that of a file has lines.
        text: What was read, where it can't be read again (from stdin).
    """
    try:
        yield
    except ServiceError as error:
        if not isinstance(spec, str | Path) or not error.pointers:
            raise
        raise _at_lines(error, str(spec), _text_of(Path(spec)) if text is None else text) from None


def _at_lines(error: ServiceError, name: str, text: str) -> ServiceError:
    try:
        yaml = _yaml_package(name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)  # JSON is YAML, but for tabs
    except Exception:  # lines are a help, and no reason for another error
        root = None
    lines = []
    for each in error.errors:
        pointer = each.get("pointer") or ""
        line = line_of(root, pointer)
        where = f"{name}, line {line}" if line else name
        field = ".".join(_keys(pointer)) or "the job"
        lines.append(f"{where}, {field}: {each['detail']}")
    problem = {
        "type": error.type,
        "title": error.title,
        "detail": error.detail,
        "errors": error.errors,
    }
    return ServiceError("\n      ".join(lines), error.status, problem)


def line_of(root: "Node | None", pointer: str) -> int | None:
    """The line of what a JSON pointer names, or of the nearest that there is around it."""
    if root is None:
        return None
    node, line = root, root.start_mark.line
    for key in _keys(pointer):
        if node.id == "mapping":
            pairs = [pair for pair in node.value if pair[0].value == key]
            if not pairs:
                break
            line, node = pairs[-1][0].start_mark.line, pairs[-1][1]
        elif node.id == "sequence" and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1


def _keys(pointer: str) -> list[str]:
    return [
        key.replace("~1", "/").replace("~0", "~") for key in pointer.lstrip("#").split("/") if key
    ]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ServiceError(f"cannot read a job from {path}: {error.strerror}") from None
    except ValueError:
        raise ServiceError(f"cannot read a job from {path}: it is no text in UTF-8") from None


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return found


def _yaml_package(name: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ServiceError(
            f"reading {name} needs PyYAML: pip install pyyaml, or write it in JSON"
        ) from None
    return yaml


def _yaml(text: str, name: str) -> Any:
    yaml = _yaml_package(name)

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """Plain data only, as JSON has it: dates stay texts, 1e-3 is a number."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
            first: [pair for pair in pairs if not pair[0].endswith(":timestamp")]
            for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key, _ in node.value:
                if key.value in seen and not key.tag.endswith(":merge"):
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: {key.value!r} is given twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
    loader = Loader(text)
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
