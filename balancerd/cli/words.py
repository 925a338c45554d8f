"""Quantities and times as the cells of a table show them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from balancerd.core.units import format_duration, format_size, parse_time

NOTHING = "–"


def moment(at: float | str | None) -> str:
    """A time (seconds, or ISO text) by this machine's clock: "2026-03-02 08:00:15"."""
    if at is None:
        return NOTHING
    seconds = parse_time(at) if isinstance(at, str) else at
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return str(at)


def percent(share: float | None) -> str:
    """A fraction of 1: "37%"."""
    return NOTHING if share is None else f"{share:.0%}"


def size(amount: float | None) -> str:
    """Bytes: "61.2 GiB"."""
    return NOTHING if amount is None else format_size(amount)


def duration(seconds: float | None) -> str:
    """Seconds: "4.2s", "1h30m"."""
    return NOTHING if seconds is None else format_duration(seconds)


def milliseconds(amount: float | None) -> str:
    """Milliseconds: "40 ms"."""
    return NOTHING if amount is None else f"{amount:.0f} ms"


def predicted(row: Mapping[str, Any], figure: str, words: Callable[[float | None], str]) -> str:
    """A prediction from the least to the most that it may come to; one figure where they agree."""
    ends = (words(row.get(f"predicted_{end}_{figure}")) for end in ("least", "most"))
    return "–".join(dict.fromkeys(ends))


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:.{digits}f}"
