"""Where the VMs' demand for CPU comes from: a table, a trace directory, a recorded site.

Demand is a step function of time: what holds at `t` holds until `next_change(t)`. Times are seconds
since the scenario's start, demand is in reference cores.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, inf, isfinite
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class LoadError(Exception):
    """A trace or record that cannot be used: one sentence with file and line."""


class LoadSource(Protocol):
    """Demand of all VMs over time."""

    def demand(self, at: float) -> Floats:
        """Reference cores that each VM asks for; not to be written to."""
        ...

    def next_change(self, at: float) -> float:
        """The first time after `at` when the demand differs; infinite when it never does."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """Demand in equal steps of time (rows) for each VM (columns); the last row goes on for ever."""

    step: float
    rows: Floats

    def demand(self, at: float) -> Floats:
        """The row in force."""
        row: Floats = self.rows[min(self._row(at), len(self.rows) - 1)]
        return row

    def next_change(self, at: float) -> float:
        """When the next row begins."""
        following = self._row(at) + 1
        return following * self.step if following < len(self.rows) else inf

    def _row(self, at: float) -> int:
        # A time that arithmetic put a hair before a step belongs to the step.
        return max(floor(at / self.step + 1e-9), 0)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace directory: file names in sorted order, and shares of each VM's size (steps x VMs)."""

    names: tuple[str, ...]
    shares: Floats

    def table(self, step: float, sizes: Floats) -> Table:
        """The demand of VMs of these sizes in reference cores."""
        return Table(step, self.shares * sizes)


def read_trace_directory(directory: Path, steps: int) -> Trace:
    """A directory in PlanetLab form: a file per VM, an integer percentage per line.

    Each file needs at least `steps` lines; further ones are left alone, and so are hidden files.
    LoadError names the first file and line that is wrong.
    """
    try:
        files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise LoadError(f"{directory}: {(error.strerror or str(error)).lower()}") from None
    if not files:
        raise LoadError(f"{directory}: has no trace files")
    columns = [_read_percentages(path, steps) for path in files]
    names = tuple(path.name for path in files)
    return Trace(names, np.array(columns, dtype=np.float64).T / 100.0)


def _read_percentages(path: Path, steps: int) -> list[int]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise LoadError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(lines) < steps:
        raise LoadError(f"{path}:{len(lines) + 1}: is missing; {steps} lines are needed")
    try:
        values = [int(line) for line in lines[:steps]]
    except ValueError:
        values = []
    if values and min(values) >= 0 and max(values) <= 100:
        return values
    raise LoadError(_first_bad_line(path, lines[:steps]))


def _first_bad_line(path: Path, lines: Sequence[str]) -> str:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            return f"{path}:{number}: is empty; a whole percentage from 0 to 100 is needed"
        try:
            inside = 0 <= int(text) <= 100
        except ValueError:
            return f'{path}:{number}: "{text[:40]}" is not a whole percentage from 0 to 100'
        if not inside:
            return f"{path}:{number}: {text} is out of range; a percentage is from 0 to 100"
    return f"{path}: cannot be read"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded site: its VMs in sorted order and their demand from the first reading on."""

    names: tuple[str, ...]
    start: float  # seconds since the epoch
    table: Table


def from_readings(rows: Iterable[tuple[float, str, float]], step: float, source: str) -> Recorded:
    """Demand out of recorded readings: (time, VM, reference cores), in any order.

    A step without a reading of a VM keeps its last value; before its first there is no demand.
    `source` names the record in LoadError.
    """
    readings = [row for row in rows if isfinite(row[2]) and row[2] >= 0]
    if not readings:
        raise LoadError(f"{source}: holds no readings of any VM")
    names = tuple(sorted({vm for _, vm, _ in readings}))
    column = {name: index for index, name in enumerate(names)}
    start = min(at for at, _, _ in readings)
    length = floor((max(at for at, _, _ in readings) - start) / step) + 1
    table = np.full((length, len(names)), np.nan)
    for at, vm, cores in sorted(readings):
        table[floor((at - start) / step), column[vm]] = cores
    return Recorded(names, start, Table(step, _carried_forward(table)))


def _carried_forward(table: Floats) -> Floats:
    known = ~np.isnan(table)
    latest = np.maximum.accumulate(np.where(known, np.arange(len(table))[:, None], 0), axis=0)
    filled: Floats = np.nan_to_num(np.take_along_axis(table, latest, axis=0), nan=0.0)
    return filled
