"""Values as data that JSON can hold, and back: any of our frozen dataclasses by its type hints.

Field names become keys; where a field needs its unit in the name, or another word, `keys` says
so. A default stands in for a key that is missing, and the nouns of a site leave out fields that
have their default, so that files stay short and can be written by hand. An unknown key is an
error: a misspelt unit must not become a default. Times are ISO 8601 text to the millisecond.
"""

import json
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache
from math import isfinite
from operator import attrgetter
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from balancerd.core.files.decoding import CodecError, decode
from balancerd.core.files.keys import (
    MILLISECONDS,
    SPARSE,
    TAGS,
    TIMES,
    default_of,
    from_milliseconds,
    key_of,
    to_milliseconds,
)
from balancerd.core.units import format_time

__all__ = ["CodecError", "decode", "encode", "from_milliseconds", "to_json", "to_milliseconds"]

Encoder = Callable[[Any], Any]


def encode(value: Any, hint: Any = None) -> Any:
    """The value as dicts, lists, text, numbers and None. `hint`: its type, where it is a union."""
    encoder = _encoder(cast(Hashable, type(value) if hint is None else hint))
    return value if encoder is None else encoder(value)


def to_json(document: Any) -> str:
    """JSON without blanks."""
    return json.dumps(document, separators=(",", ":"))


@cache
def _encoder(hint: Any) -> Encoder | None:
    """None: the value is its own encoding."""
    if hint in (str, int, bool, types.NoneType, Any):
        return None
    if hint is float:
        return _encode_float
    if hint in TAGS:
        return _tagged_encoder(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return attrgetter("value")
    if is_dataclass(hint):
        return _dataclass_encoder(cast(type, hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional_encoder(arguments)
    return _COLLECTION_ENCODERS[origin](arguments)


def _encode_float(value: float) -> float | str:
    """JSON knows no NaN and no infinity; they are written as text."""
    return value if value - value == 0 else str(value)


def _encode_floats(values: tuple[float, ...]) -> list[float | str]:
    # A sum is finite only if every part of it is: one look instead of many.
    return list(values) if isfinite(sum(values)) else [_encode_float(value) for value in values]


# Thousands of loads have the same few times.
_encode_time = lru_cache(maxsize=1024)(format_time)


def _tagged_encoder(hint: Any) -> Encoder:
    tags = {kind: tag for tag, kind in TAGS[hint].items()}
    return lambda value: {"kind": tags[type(value)], **encode(value)}


def _optional_encoder(arguments: tuple[Any, ...]) -> Encoder | None:
    (inner,) = [argument for argument in arguments if argument is not types.NoneType]
    encoder = _encoder(inner)
    if encoder is None:
        return None
    return lambda value: None if value is None else encoder(value)


def _mapping_encoder(arguments: tuple[Any, ...]) -> Encoder:
    key, value = _encoder(arguments[0]), _encoder(arguments[1])
    if key is None and value is None:
        return dict
    return lambda mapping: {
        (name if key is None else key(name)): (item if value is None else value(item))
        for name, item in mapping.items()
    }


def _tuple_encoder(arguments: tuple[Any, ...]) -> Encoder:
    if arguments == (float, Ellipsis):
        return _encode_floats
    if arguments[-1] is Ellipsis:
        encoder = _encoder(arguments[0])
        return list if encoder is None else lambda items: [encoder(item) for item in items]
    encoders = [_encoder(argument) for argument in arguments]
    return lambda items: [
        item if encoder is None else encoder(item)
        for encoder, item in zip(encoders, items, strict=True)
    ]


_COLLECTION_ENCODERS: Mapping[Any, Callable[[tuple[Any, ...]], Encoder]] = {
    tuple: _tuple_encoder,
    frozenset: lambda _: sorted,
    Mapping: _mapping_encoder,
}


def _field_encoder(kind: type, name: str, hint: Any) -> Encoder | None:
    if (kind, name) in TIMES:
        return _encode_time
    return to_milliseconds if (kind, name) in MILLISECONDS else _encoder(hint)


def _dataclass_encoder(kind: type) -> Encoder:
    hints = get_type_hints(kind)
    plan = [
        (
            key_of(kind, field.name),
            _field_encoder(kind, field.name, hints[field.name]),
            default_of(field) if kind in SPARSE else MISSING,
        )
        for field in fields(kind)
    ]
    names = [field.name for field in fields(kind)]
    get = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)

    def encoder(value: Any) -> dict[str, Any]:
        return {
            key: item if encode_item is None else encode_item(item)
            for (key, encode_item, default), item in zip(plan, get(value), strict=True)
            if item is not default and item != default
        }

    return encoder
