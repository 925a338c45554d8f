"""Quantities as people write them, and as the code holds them.

Inside balancerd there are bytes, bytes per second, seconds, reference cores and fractions of 1;
a time is a float of seconds since the epoch. Text is converted here, at the door, and nowhere else.
"""

import re
from datetime import UTC, datetime

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B\s*$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_EXPONENT = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

_DOUBLINGS = 99  # more than any `most` leaves to see, and far from where a float overflows


def doubled(seconds: float, times: int, most: float) -> float:
    """A wait that was doubled so many times, but is never longer than `most`."""
    return min(seconds * 2.0 ** min(times, _DOUBLINGS), most)


def _scaled(number: str, base: int, prefix: str) -> int:
    return round(float(number) * float(base ** _EXPONENT[prefix]))


def parse_size(text: str) -> int:
    """Bytes from "4 GiB" or "500 MB"; ValueError names the text."""
    match = _SIZE.match(text)
    if not match:
        raise ValueError(f'"{text}" is not a size; write for example "4 GiB" or "500 MB"')
    number, prefix, binary = match.groups()
    return _scaled(number, 1024 if binary else 1000, prefix)


def parse_rate(text: str) -> int:
    """Bytes per second from "100 MiB/s", or from bits as "1 Gbit/s"."""
    bits = re.match(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)bit/s\s*$", text)
    if bits:
        return _scaled(bits[1], 1000, bits[2]) // 8
    head, slash, per = text.rpartition("/")
    if not slash or per.strip() != "s":
        raise ValueError(f'"{text}" is not a rate; write for example "100 MiB/s" or "1 Gbit/s"')
    return parse_size(head)


def parse_duration(text: str) -> float:
    """Seconds from "90s", "30m" or "1h30m"; ValueError names the text."""
    compact = text.replace(" ", "")
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f'"{text}" is not a duration; write for example "90s", "30m" or "1h30m"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 move", "2 moves"; only the first word takes the plural."""
    first, _, rest = noun.partition(" ")
    words = first if count == 1 else f"{first}s"
    return f"{count} {words} {rest}".rstrip()


def format_size(size: float) -> str:
    """Bytes as a person reads them: "61.2 GiB"."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Seconds as a person reads them, two units at most: "1h30m", "4.2s", "50ms"."""
    if 0.0005 <= abs(seconds) < 0.9995:
        return f"{1000 * seconds:.0f}ms"
    if abs(seconds) < MINUTE:
        return f"{seconds:.1f}s".replace(".0s", "s")
    left, words = round(abs(seconds)), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count}{unit}")
    return ("-" if seconds < 0 else "") + "".join(words[:2])


def format_time(at: float) -> str:
    """A time as ISO 8601 with offset (UTC), to the second, or the millisecond where it counts."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def parse_time(text: str) -> float:
    """Seconds since the epoch from ISO 8601 with an offset; a time without one is refused."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f'"{text}" has no offset; write for example "2026-03-01T08:00:00+01:00"')
    return moment.timestamp()
