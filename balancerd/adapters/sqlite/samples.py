"""The time series of loads: `samples.db`. A damaged file is put aside and a new one begun."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self, TypeVar

from balancerd.adapters.sqlite.database import Access, DamagedError, Database
from balancerd.adapters.sqlite.samples_schema import SAMPLES
from balancerd.adapters.sqlite.series import hours, recent
from balancerd.core.columns import Loads
from balancerd.core.model import Load
from balancerd.core.units import DAY, HOUR, MINUTE

_LOG = logging.getLogger(__name__)
FIVE_MINUTES = 5 * MINUTE
_TOGETHER = 64  # rows that one statement writes, in little more than half the time of as many
_WIDTH = 7  # values in a row
_ROW = f"({', '.join('?' * _WIDTH)})"
_READING = f"INSERT OR REPLACE INTO readings VALUES {_ROW}"
_READINGS = f"INSERT OR REPLACE INTO readings VALUES {', '.join([_ROW] * _TOGETHER)}"
_FOLD = """INSERT OR REPLACE INTO {table}
    SELECT ?, subject, count(*), avg(cpu_reference_cores), max(cpu_reference_cores),
        CAST(avg(memory_bytes) AS INTEGER), max(memory_bytes), max(steal),
        avg(network_bytes_per_s), avg(block_bytes_per_s)
    FROM ticks CROSS JOIN readings ON readings.tick = ticks.id
    WHERE ticks.at >= ? AND ticks.at < ? GROUP BY subject"""

_DROP_READINGS = """DELETE FROM readings
    WHERE tick IN (SELECT id FROM ticks WHERE at >= ? AND at < ?)"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SamplesRetention:
    """How long readings and what they were folded into are kept, in seconds."""

    readings: float = 2 * DAY
    five_minutes: float = 30 * DAY
    hours: float = 730 * DAY


_RETENTION = SamplesRetention()


class SamplesStore:
    """`ports.Samples` on a file; opens in a `with`.

    `notice` says so when a damaged file was put aside. Every hour that is over is folded into one
    row for each subject; readings past their retention become rows of 5 minutes.
    """

    def __init__(
        self,
        path: Path,
        retention: SamplesRetention = _RETENTION,
        *,
        durable: bool = True,
    ) -> None:
        self.notice = ""
        self.database = Database(path, SAMPLES, Access.OWN, "NORMAL" if durable else "OFF")
        self._retention = retention
        self._subjects: dict[str, dict[str, int]] = {}
        self._newest: dict[str, tuple[tuple[str, ...], list[int]]] = {}  # who was read last
        self._rollbacks: int | None = None

    def __enter__(self) -> Self:
        try:
            self.database.__enter__()
        except DamagedError as error:
            self._begin_anew(error)
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction for all calls inside."""
        with self.database.transaction():
            yield

    def append(self, at: float, hosts: Mapping[str, Load], vms: Mapping[str, Load]) -> None:
        """Keep one reading of every host and VM; one more of the same time replaces it."""
        self._healing(lambda: self._append(at, hosts, vms))

    def recent(self, now: float, span: float) -> Iterator[tuple[float, Mapping[str, float]]]:
        """CPU of every VM at each reading of the last `span` seconds, oldest first."""
        return recent(self.database, now, span)

    def hours(self, now: float, span: float) -> Iterator[tuple[float, Mapping[str, float]]]:
        """Mean CPU of every VM in each folded hour of the last `span` seconds, oldest first."""
        return hours(self.database, now, span)

    def roll_up(self, now: float) -> None:
        """Fold the hours that are over and the readings that are old; drop what is past it all."""
        self._healing(lambda: self._roll_up(now))

    def _append(self, at: float, hosts: Mapping[str, Load], vms: Mapping[str, Load]) -> None:
        with self.database.transaction():
            tick = self._tick(at)
            for kind, loads in (("host", Loads.of(hosts)), ("vm", Loads.of(vms))):
                self._write(_values(tick, self._ids(kind, loads.names), loads))

    def _write(self, values: list[Any]) -> None:
        """Write rows, whose values are given one row behind the other."""
        whole = len(values) - len(values) % (_WIDTH * _TOGETHER)
        self.database.execute_many(_READINGS, _cut(values[:whole], _WIDTH * _TOGETHER))
        self.database.execute_many(_READING, _cut(values[whole:], _WIDTH))

    def _tick(self, at: float) -> int:
        self.database.execute("INSERT OR IGNORE INTO ticks (at) VALUES (?)", (at,))
        row = self.database.row("SELECT id FROM ticks WHERE at = ?", (at,))
        assert row is not None  # inserted just now
        return int(row[0])

    def _ids(self, kind: str, names: tuple[str, ...]) -> list[int]:
        """Numbers of the subjects, new ones given where they are needed."""
        if self._rollbacks != self.database.rollbacks:
            self._rollbacks = self.database.rollbacks
            self._subjects, self._newest = {"host": {}, "vm": {}}, {}
            for row in self.database.rows("SELECT kind, name, id FROM subjects"):
                self._subjects[row[0]][row[1]] = row[2]
        before, ids = self._newest.get(kind, ((), []))
        if names != before:
            known = self._subjects[kind]
            for name in sorted(name for name in names if name not in known):
                known[name] = self.database.insert("subjects", {"kind": kind, "name": name})
            ids = [known[name] for name in names]
            self._newest[kind] = names, ids
        return ids

    def _roll_up(self, now: float) -> None:
        folded = self.database.row("SELECT until_at FROM folded")
        for hour in self._spans(folded[0] if folded else -inf, now, HOUR):
            self._fold("hours", hour, HOUR)
        for span in self._spans(-inf, now - self._retention.readings, FIVE_MINUTES):
            self._fold("five_minutes", span, FIVE_MINUTES)
        self._drop(now)

    def _spans(self, begin: float, end: float, length: float) -> Iterator[float]:
        """Beginnings of the spans of a length that have readings and are over at `end`."""
        while True:
            row = self.database.row("SELECT min(at) FROM ticks WHERE at >= ?", (begin,))
            if row is None or row[0] is None or (span := row[0] // length * length) + length > end:
                return
            yield span
            begin = span + length

    def _fold(self, table: str, begin: float, length: float) -> None:
        """Fold the readings of a span; those that went into `five_minutes` go."""
        end = begin + length
        with self.database.transaction():
            self.database.execute(_FOLD.format(table=table), (int(begin), begin, end))
            if table == "hours":
                self.database.execute("INSERT OR REPLACE INTO folded VALUES (1, ?)", (int(end),))
            else:
                self.database.execute(_DROP_READINGS, (begin, end))
                self.database.execute("DELETE FROM ticks WHERE at >= ? AND at < ?", (begin, end))

    def _drop(self, now: float) -> None:
        keep = self._retention
        for table, span in (("five_minutes", keep.five_minutes), ("hours", keep.hours)):
            self.database.execute(f"DELETE FROM {table} WHERE from_at < ?", (now - span,))
        self.database.give_back()

    def _healing(self, act: Callable[[], T]) -> T:
        """Do it; where the file turns out to be damaged, once more with a new one."""
        try:
            return act()
        except DamagedError as error:
            self._begin_anew(error)
            return act()

    def _begin_anew(self, damage: DamagedError) -> None:
        self.database.close()
        path = self.database.path
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self.notice = f"{damage}; it was put aside as {aside.name} and a new one begun"
        _LOG.warning(self.notice)
        self.database.__enter__()
        self._rollbacks = None


def _values(tick: int, ids: list[int], loads: Loads) -> list[Any]:
    """The values of a row of `readings` for each load, one row behind the other. NaN, which SQLite
    keeps as NULL, is what is not known."""
    columns = (loads.cpu, loads.memory, loads.steal, loads.network, loads.block)
    values = [tick] * (_WIDTH * len(ids))
    for place, column in enumerate((ids, *(column.tolist() for column in columns)), start=1):
        values[place::_WIDTH] = column
    return values


def _cut(values: list[Any], length: int) -> Iterator[list[Any]]:
    """The values in pieces of a length."""
    return (values[first : first + length] for first in range(0, len(values), length))
