"""TOML files into values: policy, configuration, scenario. All errors at once, each with its line.

An error is meant for the operator who wrote the file. It names the key as it is written there,
says what would be right, and offers the nearest known key for one that does not exist.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from balancerd.toml_lines import Path as KeyPath
from balancerd.toml_lines import lines_of

Model = TypeVar("Model", bound=BaseModel)

LARGEST = 4 * 2**20  # bytes; a document written by hand is far smaller
FROM_FILE: Mapping[str, bool] = {"from_file": True}  # validation context: numbers need their unit


class DocumentError(Exception):
    """A file that cannot be used. `str` has one line per problem, in the file's order."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def read_text(path: Path | str) -> str:
    """A file's text; DocumentError says in one sentence why there is none."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise DocumentError([f"{path}: {(error.strerror or str(error)).lower()}"]) from None
    except ValueError:  # a null character in the name
        raise DocumentError([f"{str(path)!r}: is not a file name"]) from None
    if len(content) > LARGEST:
        raise DocumentError([f"{path}: is larger than {LARGEST // 2**20} MiB"])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError([f"{path}:{line}: is not text in UTF-8"]) from None


def load(path: Path | str, model: type[Model]) -> Model:
    """The file as a value of the model; DocumentError otherwise."""
    return parse(read_text(path), model, str(path))


def parse(text: str, model: type[Model], name: str) -> Model:
    """The TOML text as a value of the model. `name` stands for the file in DocumentError's lines.

    Types are taken strictly: "4" is no number, and 4 is no text.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError([_syntax(name, text, str(error))]) from None
    except RecursionError:
        raise DocumentError([f"{name}: is not TOML: nested too deeply"]) from None
    except ValueError:  # Python refuses to read an integer of thousands of digits
        raise DocumentError([f"{name}: is not TOML: a number has too many digits"]) from None
    try:
        # By way of JSON, since only there strictness still reads lists as tuples and texts as
        # enumerations. TOML's dates and times become text.
        return model.model_validate_json(
            json.dumps(data, default=str), strict=True, context=FROM_FILE, by_name=False
        )
    except ValidationError as error:
        raise DocumentError(_problems(error, data, text, model, name)) from None


def _syntax(name: str, text: str, message: str) -> str:
    what, _, place = message.removesuffix(")").rpartition(" (at ")
    spot = re.fullmatch(r"line (\d+), column (\d+)", place)
    line = spot[1] if spot else text.count("\n", 0, len(text.rstrip())) + 1
    column = f" (column {spot[2]})" if spot else ""
    return f"{name}:{line}: is not TOML: {what[:1].lower()}{what[1:]}{column}"


@dataclass(frozen=True, slots=True)
class _Fault:
    """One of pydantic's errors, with the schema's node for the table it is about."""

    kind: str
    place: KeyPath
    message: str
    value: Any
    context: Mapping[str, Any]


def _faults(error: ValidationError, outer: KeyPath = ()) -> Iterator[_Fault]:
    """Every single error. A validator may raise a ValidationError about the part it was given."""
    for detail in error.errors(include_url=False):
        place = (*outer, *detail["loc"])
        context = detail.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, ValidationError):
            yield from _faults(cause, place)
        else:
            yield _Fault(detail["type"], place, detail["msg"], detail.get("input"), context)


def _problems(
    error: ValidationError, data: Any, text: str, model: type[BaseModel], name: str
) -> list[str]:
    lines, schema = lines_of(text), model.model_json_schema()
    found = []
    for fault in _faults(error):
        path = _written(fault.place, data, missing=fault.kind == "missing")
        line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)
        known = _keys_of(schema, path[:-1]) if fault.kind == "extra_forbidden" else ()
        key = f"{format_path(path)}: " if path else ""
        found.append((line, f"{name}:{line}: {key}{_wording(fault, path, known)}"))
    return list(dict.fromkeys(text for _, text in sorted(found, key=lambda item: item[0])))


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


def nearest(word: str, known: Sequence[str]) -> str:
    """` (did you mean "x"?)` for the known word that looks most alike; "" where none does."""
    found = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f' (did you mean "{found[0]}"?)' if found else ""


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


def _wording(fault: _Fault, path: KeyPath, known: Sequence[str]) -> str:
    special = _SPECIAL.get(fault.kind)
    if special:
        return special(fault, path, known)
    if fault.kind in _BOUNDS:
        return _out_of_bounds(fault)
    expected = _TYPES.get(re.sub(r"_(type|parsing|from_.*)$", "", fault.kind))
    if expected:
        return f"must be {expected}, not {_shown(fault.value)}"
    return fault.message[:1].lower() + fault.message[1:]


def _out_of_bounds(fault: _Fault) -> str:
    words, key = _BOUNDS[fault.kind]
    bound, value = fault.context[key], fault.value
    text = f"must be {words} {bound:g}, not {_shown(value)}"
    if bound == 1 and isinstance(value, int | float) and 1 < value <= 100:
        text += f" (did you mean {value / 100:g}?)"
    return text


def _unknown_key(_: _Fault, path: KeyPath, known: Sequence[str]) -> str:
    hint = nearest(str(path[-1]), known) if path else ""
    if hint or not known:
        return "unknown key" + hint
    return f"unknown key; known here: {', '.join(known)}"


def _not_a_choice(fault: _Fault, _: KeyPath, __: Sequence[str]) -> str:
    expected = str(fault.context.get("expected", ""))
    choices = re.findall(r"'([^']*)'", expected)
    listed = ", ".join(f'"{choice}"' for choice in choices) or expected.replace(" or ", ", ")
    hint = nearest(fault.value, choices) if isinstance(fault.value, str) else ""
    return f"must be one of {listed}, not {_shown(fault.value)}{hint}"


def _own_words(fault: _Fault, _: KeyPath, __: Sequence[str]) -> str:
    return str(fault.context.get("error", fault.message))


def _missing(_: _Fault, __: KeyPath, ___: Sequence[str]) -> str:
    return "is missing"


def _too_short(fault: _Fault, _: KeyPath, __: Sequence[str]) -> str:
    least = fault.context["min_length"]
    return "must not be empty" if least == 1 else f"must have at least {least} elements"


_SPECIAL: Mapping[str, Callable[[_Fault, KeyPath, Sequence[str]], str]] = {
    "missing": _missing,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "extra_forbidden": _unknown_key,
    "enum": _not_a_choice,
    "literal_error": _not_a_choice,
    "value_error": _own_words,
    "assertion_error": _own_words,
}
