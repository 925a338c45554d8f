"""From data to values by type hints: a value, or a CodecError, whatever the data is."""

import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from balancerd.core.files.keys import (
    MILLISECONDS,
    TAGS,
    TIMES,
    default_of,
    from_milliseconds,
    key_of,
)
from balancerd.core.units import parse_time

T = TypeVar("T")
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


def decode(hint: type[T], data: Any) -> T:
    """The value that `encode` made the data of; CodecError tells what is wrong, and where."""
    return cast(T, _decoder(cast(Hashable, hint))(data))


def decoder_of(hint: Any) -> Decoder:
    """`decode` for one type, to be used many times."""
    return _decoder(hint)


@cache
def _decoder(hint: Any) -> Decoder:
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint in TAGS:
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
    kinds = TAGS[hint]

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
    if (kind, name) in TIMES:
        return decode_time
    return _decode_milliseconds if (kind, name) in MILLISECONDS else _decoder(hint)


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
        key_of(kind, field.name): (field.name, _field_decoder(kind, field.name, hints[field.name]))
        for field in fields(kind)
    }
    required = [key_of(kind, field.name) for field in fields(kind) if default_of(field) is MISSING]

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
