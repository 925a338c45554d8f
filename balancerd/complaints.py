"""Pydantic's errors in the operator's words, each at the line of its key.

Pydantic knows types and bounds, but neither lines nor what a person would call things. Which keys
a table may have is read from the model's JSON schema.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from balancerd.core.policies.quantity import DURATION, RATE, SIZE
from balancerd.nearest import nearest
from balancerd.toml_lines import Path as KeyPath
from balancerd.toml_lines import lines_of


@dataclass(frozen=True, slots=True)
class _Fault:
    """One of pydantic's errors, at the key it is about."""

    kind: str
    path: KeyPath
    message: str
    value: Any
    context: Mapping[str, Any]


def problems(
    error: ValidationError, data: Any, text: str, model: type[BaseModel], name: str
) -> Iterator[str]:
    """A line for each error found in a document, in the document's order.

    `data` is what `text` holds, `name` what stands for the file.
    """
    lines, schema = lines_of(text), _schema_of(model)
    found: dict[KeyPath, list[_Fault]] = {}
    for fault in _faults(error, data):
        found.setdefault(fault.path, []).append(fault)
    told = []
    for path, faults in found.items():
        if _told_better_inside(path, faults, found):
            continue
        line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)
        key = f"{format_path(path)}: " if path else ""
        told += [(line, f"{name}:{line}: {key}{words}") for words in _words(faults, schema)]
    yield from dict.fromkeys(problem for _, problem in sorted(told, key=lambda item: item[0]))


@cache
def _schema_of(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema()


def _faults(error: ValidationError, data: Any, outer: KeyPath = ()) -> Iterator[_Fault]:
    """Every single error. A validator may raise a ValidationError about the part it was given."""
    for detail in error.errors(include_url=False):
        kind, place, value = detail["type"], (*outer, *detail["loc"]), detail.get("input")
        context = detail.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, ValidationError):
            yield from _faults(cause, data, place)
        elif kind != "too_short" or len(value) < context["min_length"]:  # else: wrong elements
            path = _written(place, data, missing=kind == "missing")
            yield _Fault(kind, path, detail["msg"], value, context)


def _told_better_inside(
    path: KeyPath, faults: Sequence[_Fault], found: Mapping[KeyPath, Sequence[_Fault]]
) -> bool:
    """Whether this is but the branch of a union that the value was not meant for."""
    inside = any(len(other) > len(path) and other[: len(path)] == path for other in found)
    return inside and all(_expected(fault) for fault in faults)


def _written(place: KeyPath, data: Any, *, missing: bool) -> KeyPath:
    """The place without what pydantic adds for its own use (which branch of a union it tried)."""
    path: list[str | int] = []
    for index, part in enumerate(place):
        inside = isinstance(data, dict) and part in data
        element = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if inside or element:
            data = data[part]
            path.append(part)
        elif missing and index == len(place) - 1:
            path.append(part)
    return tuple(path)


def format_path(path: KeyPath) -> str:
    """A key's path as an operator would say it: `window[0].thresholds.cpu`."""
    words = []
    for part in path:
        bare = isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9_-]+", part)
        quoted = part if bare else json.dumps(part, ensure_ascii=False)
        words.append(f"[{part}]" if isinstance(part, int) else f".{quoted}")
    return "".join(words).removeprefix(".")


def _nodes(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A node of a JSON schema, or the alternatives it stands for, references followed."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    branches = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    for branch in branches:
        yield from _nodes(schema, branch)
    if not branches:
        yield node


def _keys_of(schema: Mapping[str, Any], path: KeyPath) -> tuple[str, ...]:
    """The keys that the table at the path may have."""
    nodes = list(_nodes(schema, schema))
    for part in path:
        step = [_below(node, part) for node in nodes]
        nodes = [inner for node in step if node is not None for inner in _nodes(schema, node)]
    return tuple(dict.fromkeys(key for node in nodes for key in node.get("properties", ())))


def _below(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any] | None:
    if isinstance(part, int):
        found = node.get("items")
    else:
        found = node.get("properties", {}).get(part, node.get("additionalProperties"))
    return found if isinstance(found, Mapping) else None


def _shown(value: Any) -> str:
    """A value as it is written in the file, shortened."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + '…"'


_TYPES = {
    "string": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "finite_number": "a finite number",
    "model": "a table",
    "dict": "a table",
    "dataclass": "a table",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _expected(fault: _Fault) -> str | None:
    """The type that was asked for, if that is what is wrong."""
    return _TYPES.get(re.sub(r"_(type|parsing|from_.*)$", "", fault.kind))


def _words(faults: Sequence[_Fault], schema: Mapping[str, Any]) -> Iterator[str]:
    """What to say of the errors at one key; of a union, each branch has an error of its own."""
    others = [fault for fault in faults if not _expected(fault)]
    for fault in others:
        yield _wording(fault, schema)
    if not others:
        types = dict.fromkeys(filter(None, map(_expected, faults)))
        yield f"must be {' or '.join(types)}, not {_shown(faults[0].value)}"


def _wording(fault: _Fault, schema: Mapping[str, Any]) -> str:
    if fault.kind == "extra_forbidden":
        return _unknown_key(str(fault.path[-1]), _keys_of(schema, fault.path[:-1]))
    if fault.kind in _BOUNDS:
        return _out_of_bounds(fault)
    special = _SPECIAL.get(fault.kind)
    return special(fault) if special else fault.message[:1].lower() + fault.message[1:]


def _out_of_bounds(fault: _Fault) -> str:
    words, key = _BOUNDS[fault.kind]
    bound, value = fault.context[key], fault.value
    text = f"must be {words} {_written_like(value, bound)}, not {_shown(value)}"
    if bound == 1 and isinstance(value, int | float) and 1 < value <= 100:
        text += f" (did you mean {value / 100:g}?)"
    return text


def _written_like(value: Any, bound: float) -> str:
    """The bound with the kind of unit that the value was written with."""
    for unit in (DURATION, SIZE, RATE) if isinstance(value, str) else ():
        with suppress(ValueError):
            unit.parse(value)
            return unit.format(bound)
    return f"{bound:g}"


def _unknown_key(key: str, known: Sequence[str]) -> str:
    hint = nearest(key, known)
    if hint or not known:
        return "unknown key" + hint
    return f"unknown key; known here: {', '.join(known)}"


def _not_a_choice(fault: _Fault) -> str:
    expected = str(fault.context.get("expected", ""))
    choices = re.findall(r"'([^']*)'", expected)
    listed = ", ".join(f'"{choice}"' for choice in choices) or expected.replace(" or ", ", ")
    hint = nearest(fault.value, choices) if isinstance(fault.value, str) else ""
    return f"must be one of {listed}, not {_shown(fault.value)}{hint}"


def _own_words(fault: _Fault) -> str:
    return str(fault.context.get("error", fault.message))


def _missing(_: _Fault) -> str:
    return "is missing"


def _too_short(fault: _Fault) -> str:
    least = fault.context["min_length"]
    return "must not be empty" if least == 1 else f"must have at least {least} elements"


_SPECIAL: Mapping[str, Callable[[_Fault], str]] = {
    "missing": _missing,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "enum": _not_a_choice,
    "literal_error": _not_a_choice,
    "value_error": _own_words,
    "assertion_error": _own_words,
}
