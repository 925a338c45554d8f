"""On which line of a JSON text a value stands: `json` reads values without their places.

Only for texts that `json` has accepted, and only where something is wrong with a value, so the
text is simply read again.
"""

import json
import re
from collections.abc import Iterator

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


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
