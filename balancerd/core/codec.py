"""Values as data that JSON can hold, and back: any of our frozen dataclasses by its type hints.

Field names become keys; where a field needs its unit in the name, or another word, `_KEYS` says
so. A default stands in for a key that is missing, and the nouns of a site leave out fields that
have their default, so that files stay short and can be written by hand. An unknown key is an
error: a misspelt unit must not become a default. Times are ISO 8601 text to the millisecond.
"""

import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache, lru_cache
from math import isfinite
from operator import attrgetter
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from balancerd.core.model import (
    VM,
    Disk,
    Forecast,
    Gap,
    Host,
    Link,
    Load,
    NumaNode,
)
from balancerd.core.plan import Action, Move, Plan, Sleep, Wake
from balancerd.core.units import format_time, parse_time

T = TypeVar("T")
Encoder = Callable[[Any], Any]
Decoder = Callable[[Any], Any]


class CodecError(ValueError):
    """Data that is not what it should be; the message begins with where."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.path = message, path

    def under(self, step: str | int) -> "CodecError":
        """The same error, seen from one level further out."""
        return CodecError(self.message, (step, *self.path))

    def __str__(self) -> str:
        place = "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path
        ).lstrip(".")
        return f"{place}: {self.message}" if place else self.message


# The keys of fields whose name does not tell the unit, or is another word outside.
_KEYS: Mapping[type, Mapping[str, str]] = {
    NumaNode: {"cpu": "cpu_reference_cores", "memory": "memory_bytes"},
    Host: {
        "cpu": "cpu_reference_cores",
        "memory": "memory_bytes",
        "power_curve": "power_curve_watts",
    },
    Disk: {"size": "size_bytes"},
    VM: {"memory": "memory_bytes", "cpu": "cpu_reference_cores"},
    Link: {"bandwidth": "bandwidth_bytes_per_s"},
    Load: {
        "cpu": "cpu_reference_cores",
        "cpu_mean": "cpu_mean_reference_cores",
        "memory": "memory_bytes",
        "network": "network_bytes_per_s",
        "block": "block_bytes_per_s",
    },
    Forecast: {"cpu": "cpu_reference_cores", "spread": "spread_reference_cores"},
    Move: {
        "source": "from",
        "target": "to",
        "seconds": "predicted_seconds",
        "bytes": "predicted_bytes",
        "downtime": "predicted_downtime_ms",
    },
}
_SPARSE = {Host, VM, Disk, Load}  # fields with their default are left out
_TIMES = {(Gap, "since"), (Load, "since"), (Plan, "at")}
_MILLISECONDS = {(Move, "downtime")}
_TAGS: Mapping[Any, Mapping[str, type]] = {Action: {"move": Move, "sleep": Sleep, "wake": Wake}}


def encode(value: Any, hint: Any = None) -> Any:
    """The value as dicts, lists, text, numbers and None. `hint`: its type, where it is a union."""
    encoder = _encoder(cast(Hashable, type(value) if hint is None else hint))
    return value if encoder is None else encoder(value)


def decode(hint: type[T], data: Any) -> T:
    """The value that `encode` made the data of; CodecError tells what is wrong, and where."""
    return cast(T, _decoder(cast(Hashable, hint))(data))


def decoder_of(hint: Any) -> Decoder:
    """`decode` for one type, to be used many times."""
    return _decoder(hint)


def to_milliseconds(seconds: float) -> float:
    """To the nanosecond, so that `from_milliseconds` can give back the very same number."""
    return round(seconds * 1000, 6)


def from_milliseconds(milliseconds: float) -> float:
    """Seconds, to the nanosecond."""
    return round(milliseconds / 1000, 9)


@cache
def _encoder(hint: Any) -> Encoder | None:
    """None: the value is its own encoding."""
    if hint in (str, int, bool, types.NoneType, Any):
        return None
    if hint is float:
        return _encode_float
    if hint in _TAGS:
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
    tags = {kind: tag for tag, kind in _TAGS[hint].items()}
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


def _key(kind: type, name: str) -> str:
    return _KEYS.get(kind, {}).get(name, name)


def _field_encoder(kind: type, name: str, hint: Any) -> Encoder | None:
    if (kind, name) in _TIMES:
        return _encode_time
    return to_milliseconds if (kind, name) in _MILLISECONDS else _encoder(hint)


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _dataclass_encoder(kind: type) -> Encoder:
    hints = get_type_hints(kind)
    plan = [
        (
            _key(kind, field.name),
            _field_encoder(kind, field.name, hints[field.name]),
            _default(field) if kind in _SPARSE else MISSING,
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


@cache
def _decoder(hint: Any) -> Decoder:
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint in _TAGS:
        return _tagged_decoder(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_decoder(hint)
    if is_dataclass(hint):
        return _dataclass_decoder(cast(type, hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional_decoder(arguments)
    return _COLLECTION_DECODERS[origin](arguments)


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _decode_int(data: Any) -> int:
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise CodecError(f"must be a whole number, not {_shown(data)}")
    if isinstance(data, float) and not data.is_integer():
        raise CodecError(f"must be a whole number, not {_shown(data)}")
    return int(data)


def _decode_float(data: Any) -> float:
    if data in ("nan", "inf", "-inf"):
        return float(data)
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise CodecError(f"must be a number, not {_shown(data)}")
    return float(data)


def _exactly(kind: type, words: str) -> Decoder:
    def decoder(data: Any) -> Any:
        if not isinstance(data, kind):
            raise CodecError(f"must be {words}, not {_shown(data)}")
        return data

    return decoder


_decode_text = _exactly(str, "text")
_decode_list = _exactly(list, "a list")
_decode_table = _exactly(dict, "a table of keys and values")
_SCALARS: Mapping[Any, Decoder] = {
    str: _decode_text,
    bool: _exactly(bool, "true or false"),
    int: _decode_int,
    float: _decode_float,
    Any: lambda data: data,
}


def decode_time(data: Any) -> float:
    """Seconds since the epoch from ISO 8601 text with an offset."""
    try:
        return parse_time(_decode_text(data))
    except CodecError:
        raise
    except (ValueError, OverflowError) as error:
        raise CodecError(f"must be an ISO 8601 time with an offset: {error}") from None


def _decode_milliseconds(data: Any) -> float:
    return from_milliseconds(_decode_float(data))


def _enum_decoder(kind: type[Enum]) -> Decoder:
    by_value = {member.value: member for member in kind}

    def decoder(data: Any) -> Enum:
        if isinstance(data, str) and data in by_value:
            return by_value[data]
        raise CodecError(f"must be one of {', '.join(by_value)}, not {_shown(data)}")

    return decoder


def _optional_decoder(arguments: tuple[Any, ...]) -> Decoder:
    (inner,) = [argument for argument in arguments if argument is not types.NoneType]
    decoder = _decoder(inner)
    return lambda data: None if data is None else decoder(data)


def _tagged_decoder(hint: Any) -> Decoder:
    kinds = _TAGS[hint]

    def decoder(data: Any) -> Any:
        table = dict(_decode_table(data))
        tag = table.pop("kind", None)
        if tag not in kinds:
            raise CodecError(f"must be one of {', '.join(kinds)}, not {_shown(tag)}").under("kind")
        return decode(kinds[tag], table)

    return decoder


def decode_list(data: Mapping[str, Any], key: str, decoder: Decoder) -> list[Any]:
    """Every item of the list under a key; a list that is missing is empty."""
    try:
        return decode_each(decoder, _decode_list(data.get(key, [])))
    except CodecError as error:
        raise error.under(key) from None


def decode_moment(data: Mapping[str, Any], key: str = "at") -> float:
    """The time under a key; CodecError where it is missing."""
    if key not in data:
        raise CodecError(f'"{key}" is missing')
    try:
        return decode_time(data[key])
    except CodecError as error:
        raise error.under(key) from None


def decode_each(decoder: Decoder, items: list[Any]) -> list[Any]:
    """Every item of a list decoded; an error tells which one it is in."""
    values = []
    for number, item in enumerate(items):
        try:
            values.append(decoder(item))
        except CodecError as error:
            raise error.under(number) from None
    return values


def _tuple_decoder(arguments: tuple[Any, ...]) -> Decoder:
    if arguments[-1] is Ellipsis:
        decoder = _decoder(arguments[0])
        return lambda data: tuple(decode_each(decoder, _decode_list(data)))

    def pair(data: Any) -> tuple[Any, ...]:
        if len(_decode_list(data)) != len(arguments):
            raise CodecError(f"must have {len(arguments)} items, not {len(data)}")
        return tuple(_decoder(argument)(item) for argument, item in zip(arguments, data))  # noqa: B905

    return pair


def _mapping_decoder(arguments: tuple[Any, ...]) -> Decoder:
    decoder = _decoder(arguments[1])

    def mapping(data: Any) -> dict[str, Any]:
        values = {}
        for name, item in _decode_table(data).items():
            try:
                values[name] = decoder(item)
            except CodecError as error:
                raise error.under(name) from None
        return values

    return mapping


_COLLECTION_DECODERS: Mapping[Any, Callable[[tuple[Any, ...]], Decoder]] = {
    tuple: _tuple_decoder,
    frozenset: lambda arguments: (
        lambda data: frozenset(decode_each(_decoder(arguments[0]), _decode_list(data)))
    ),
    Mapping: _mapping_decoder,
}


def _field_decoder(kind: type, name: str, hint: Any) -> Decoder:
    if (kind, name) in _TIMES:
        return decode_time
    return _decode_milliseconds if (kind, name) in _MILLISECONDS else _decoder(hint)


def refuse_unknown(data: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """CodecError for the first key that is not known, with the nearest one that is."""
    for key in data:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise CodecError(f'unknown key "{key}"{hint}')


def _dataclass_decoder(kind: type) -> Decoder:
    hints = get_type_hints(kind)
    known = {
        _key(kind, field.name): (field.name, _field_decoder(kind, field.name, hints[field.name]))
        for field in fields(kind)
    }
    required = [_key(kind, field.name) for field in fields(kind) if _default(field) is MISSING]

    def decoder(data: Any) -> Any:
        refuse_unknown(_decode_table(data), known)
        for key in required:
            if key not in data:
                raise CodecError(f'"{key}" is missing')
        values = {}
        for key, item in data.items():
            name, decode_item = known[key]
            try:
                values[name] = decode_item(item)
            except CodecError as error:
                raise error.under(key) from None
        return kind(**values)

    return decoder
