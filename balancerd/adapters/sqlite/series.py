"""The time series read back: of one subject, of all VMs lately, and as a grid to simulate on.

Readings that were dropped are stood in for by the rows of 5 minutes they were folded into.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancerd.adapters.sqlite.database import Database

Floats = NDArray[np.float64]
_PARTS = """SELECT ticks.at AS at, subject, 1 AS readings, cpu_reference_cores AS cpu,
        memory_bytes AS memory
    FROM ticks CROSS JOIN readings ON readings.tick = ticks.id
    WHERE ticks.at >= :begin AND ticks.at < :end {subject}
    UNION ALL SELECT from_at, subject, readings, cpu_reference_cores, memory_bytes
    FROM five_minutes WHERE from_at >= :begin AND from_at < :end {subject}"""
_SERIES = f"{_PARTS.format(subject='AND subject = :subject')} ORDER BY at"
_GRID = f"""SELECT CAST((at - :begin) / :step AS INTEGER), subject,
        sum(cpu * readings) / sum(readings), sum(memory * 1.0 * readings) / sum(readings)
    FROM ({_PARTS.format(subject="")}) JOIN subjects ON subjects.id = subject
    WHERE kind = 'vm' GROUP BY 1, 2"""
_NEWEST = """SELECT max(at) FROM (
    SELECT max(at) AS at FROM ticks WHERE at >= :begin AND at < :end
    UNION ALL SELECT max(from_at) FROM five_minutes WHERE from_at >= :begin AND from_at < :end)"""
_RECENT = """SELECT at, name, cpu_reference_cores
    FROM ticks CROSS JOIN readings ON readings.tick = ticks.id
        JOIN subjects ON subjects.id = subject
    WHERE at >= ? AND at <= ? AND kind = 'vm' ORDER BY at, subject"""
_HOURS = """SELECT from_at, name, cpu_reference_cores
    FROM hours JOIN subjects ON subjects.id = subject
    WHERE from_at >= ? AND from_at < ? AND kind = 'vm' ORDER BY from_at, subject"""


@dataclass(frozen=True, slots=True)
class Series:
    """One host's or VM's load over time; arrays of one length, in the order of time."""

    times: Floats  # seconds since the epoch
    cpu: Floats  # reference cores
    memory: Floats  # bytes


@dataclass(frozen=True, slots=True)
class Grid:
    """All VMs' load at equal steps. Both tables are times × VMs, NaN where nothing was read."""

    times: Floats  # beginnings of the steps, seconds since the epoch
    names: tuple[str, ...]
    cpu: Floats  # mean, reference cores
    memory: Floats  # mean, bytes


def series(samples: Database, kind: str, name: str, begin: float, end: float) -> Series:
    """The load of a "host" or "vm" from `begin` up to, not including, `end`."""
    row = samples.row("SELECT id FROM subjects WHERE kind = ? AND name = ?", (kind, name))
    span = {"begin": begin, "end": end, "subject": row[0] if row else None}
    columns = np.array(
        [(at, cpu, memory) for at, _, _, cpu, memory in samples.stream(_SERIES, span)], dtype=float
    ).reshape(-1, 3)
    return Series(*(column.copy() for column in columns.T))


def grid(samples: Database, begin: float, end: float, step: float) -> Grid:
    """The VMs that were read between two times, by name, at steps of so many seconds."""
    span = {"begin": begin, "end": end, "step": step}
    newest = samples.row(_NEWEST, span)
    steps = 0 if newest is None or newest[0] is None else int((newest[0] - begin) // step) + 1
    vms = samples.rows("SELECT id, name FROM subjects WHERE kind = 'vm' ORDER BY name")
    columns = {row["id"]: column for column, row in enumerate(vms)}
    cpu = np.full((steps, len(vms)), np.nan)
    memory = cpu.copy()
    for when, subject, mean_cpu, mean_memory in samples.stream(_GRID, span):
        cpu[when, columns[subject]] = mean_cpu
        memory[when, columns[subject]] = mean_memory
    read = ~np.isnan(cpu).all(axis=0)
    names = tuple(row["name"] for row, was_read in zip(vms, read, strict=True) if was_read)
    times = begin + step * np.arange(steps, dtype=np.float64)
    return Grid(times, names, cpu[:, read], memory[:, read])


def recent(samples: Database, now: float, span: float) -> Iterator[tuple[float, dict[str, float]]]:
    """CPU of every VM, in reference cores, at each reading of the last `span` seconds.

    Oldest first, and one reading at a time: an hour of a large site is millions of numbers.
    """
    return _by_time(samples.stream(_RECENT, (now - span, now)))


def hours(samples: Database, now: float, span: float) -> Iterator[tuple[float, dict[str, float]]]:
    """Mean CPU of every VM, in reference cores, in each folded hour of the last `span` seconds."""
    return _by_time(samples.stream(_HOURS, (now - span, now)))


def _by_time(rows: Iterator[Any]) -> Iterator[tuple[float, dict[str, float]]]:
    for at, together in groupby(rows, key=itemgetter(0)):
        yield at, {name: cpu for _, name, cpu in together}
