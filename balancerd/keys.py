"""The keys of a TOML document, as its schema has them: one source for docs and `policy keys`."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from balancerd.core.policies.quantity import Unit

_NAMES = {str: "text", Path: "path", bool: "true or false", time: "time of day", dict: "table"}
_SIGNS = {Gt: (">", "gt"), Ge: ("≥", "ge"), Lt: ("<", "lt"), Le: ("≤", "le")}


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `path` is dotted; `[]` after a name stands for an array of tables."""

    path: str
    kind: str
    default: str  # as it would be written; "" where the key is required or has none
    required: bool
    meaning: str


def keys_of(
    model: type[BaseModel], prefix: str = "", values: BaseModel | None = None
) -> Iterator[Key]:
    """All keys of a document, single values before the tables below them.

    `values`: the table that stands where the file has none; its values are the defaults then.
    """
    later: list[tuple[type[BaseModel], str, BaseModel | None]] = []
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        table = _table(field.annotation)
        if table is None:
            yield _key(path, field, getattr(values, name) if values else field.default)
        else:
            inner, many = table
            stand_in = field.default if isinstance(field.default, BaseModel) else None
            later.append((inner, f"{path}[]." if many else f"{path}.", stand_in))
    for inner, path, stand_in in later:
        yield from keys_of(inner, path, stand_in)


def _key(path: str, field: FieldInfo, default: Any) -> Key:
    required = default is PydanticUndefined
    written = "" if required else _written(default, field)
    kind = _kind(field.annotation, field.metadata)
    return Key(path, kind, written, required, field.description or "")


def _bare(annotation: Any) -> Any:
    """A type without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not types.NoneType]
        return _bare(inner[0]) if len(inner) == 1 else annotation
    return annotation


def _table(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """The model of a table, and whether there may be many."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) is tuple:
        inner = _table(get_args(annotation)[0])
        return (inner[0], True) if inner else None
    return None


def _kind(annotation: Any, metadata: Any = ()) -> str:
    """What may be written, in words."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*_constraints(more), *metadata])
    units = [mark.noun for mark in metadata if isinstance(mark, Unit)]
    if units:
        return units[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        parts = [part for part in arguments if part is not types.NoneType]
        return " or ".join(_kind(part, metadata if len(parts) == 1 else ()) for part in parts)
    if origin is Literal:
        return ", ".join(f'"{choice}"' for choice in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "table"
    if issubclass(annotation, StrEnum):
        return ", ".join(f'"{choice}"' for choice in annotation)
    if annotation in _NAMES:
        return _NAMES[annotation]
    bounds = [f"{sign} {getattr(mark, key):g}" for mark in metadata for sign, key in _sign(mark)]
    return " ".join(["whole number" if annotation is int else "number", ", ".join(bounds)]).strip()


def _constraints(metadata: Any) -> Iterator[Any]:
    """Marks of a type, those inside a `Field` taken out."""
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from mark.metadata
        else:
            yield mark


def _sign(mark: Any) -> list[tuple[str, str]]:
    return [_SIGNS[type(mark)]] if type(mark) in _SIGNS else []


def _written(value: Any, field: FieldInfo) -> str:
    """A default as a file would say it."""
    if value is None or value == "" or value == {}:
        return ""
    for mark in field.metadata:
        if isinstance(mark, Unit):
            return f'"{mark.format(value)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f"{value:g}"


def markdown(model: type[BaseModel]) -> str:
    """The keys as a table for the documents."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in keys_of(model):
        default = "required" if key.required else f"`{key.default}`" if key.default else ""
        lines.append(f"| `{key.path}` | {key.kind} | {default} | {key.meaning} |")
    return "\n".join(lines)
