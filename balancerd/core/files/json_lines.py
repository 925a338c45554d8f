"""JSON files from people: what is wrong with one is told with its line.

`json` reads values without their places. Where something is wrong with a value the text is simply
read again to find its line.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from balancerd.core.files.decoding import CodecError

Path = tuple[str | int, ...]
T = TypeVar("T")

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_json(text: str | bytes, source: str, read: Callable[[Any], T]) -> T:
    """What `read` makes of a JSON text; CodecError says what is wrong where in `source`."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        data = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise CodecError(f"{source}: not JSON: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})"
        raise CodecError(f"{source}:{error.lineno}: {what}") from None
    except RecursionError:
        raise CodecError(f"{source}: not JSON: nested too deeply") from None
    except CodecError as error:
        raise CodecError(f"{source}: {error}") from None
    except ValueError:  # Python refuses to read an integer of thousands of digits
        raise CodecError(f"{source}: not JSON: a number has too many digits") from None
    try:
        return read(data)
    except CodecError as error:
        line = line_of(text, error.path)
        raise CodecError(f"{source}:{line}: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise CodecError(f"not JSON: {name} is not a number")


def line_of(text: str, path: Path) -> int:
    """The line, from 1, of the value at a path, or of the last value on the way that is there."""
    at = _skip(text, 0)
    for step in path:
        children = dict(_children(text, at))
        if step not in children:
            break
        at = children[step]
    return text.count("\n", 0, at) + 1


def _skip(text: str, at: int) -> int:
    """The next position that is not blank."""
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _children(text: str, at: int) -> Iterator[tuple[str | int, int]]:
    """Key or number, and position, of each value in the table or list that begins at `at`."""
    if text[at] not in "{[":
        return
    table, count = text[at] == "{", 0
    at = _skip(text, at + 1)
    while text[at] not in "}]":
        step: str | int = count
        if table:
            step, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # the colon
        yield step, at
        _, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        at = _skip(text, at + 1) if text[at] == "," else at
        count += 1
