"""Loads and forecasts of many hosts or VMs as columns: what arithmetic on a whole site reads.

A table is a mapping like any other, whose values are made when they are asked for; whoever goes
through all of it takes the columns. Entry i of every column is of `names[i]`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from balancerd.core.model import Forecast, Load, Snapshot
from balancerd.core.same import Same

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

T = TypeVar("T")

_NOT_KNOWN = np.array([np.nan])


@dataclass(frozen=True, eq=False)
class Table(Mapping[str, T]):
    """What tables have in common: their names, each once."""

    names: tuple[str, ...]

    @cached_property
    def row(self) -> Mapping[str, int]:
        """Where each name's entries are."""
        return _row_of(self.names)

    def rows(self, names: tuple[str, ...]) -> Ints:
        """Where the entries of these names are; -1 where there are none."""
        if names == self.names:
            return np.arange(len(names), dtype=np.int64)
        return np.array([self.row.get(name, -1) for name in names], dtype=np.int64)

    def __contains__(self, name: object) -> bool:
        return name in self.row

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Loads(Table[Load]):
    """`model.Load` by columns; NaN stands for None in `network`, `block` and `dirty_rate`."""

    cpu: Floats
    cpu_mean: Floats
    memory: Ints
    steal: Floats
    network: Floats
    block: Floats
    readings: Ints
    since: Floats
    dirty_rate: Floats
    shortage: Floats

    @classmethod
    def of(cls, loads: Mapping[str, Load]) -> "Loads":
        """The same loads by columns; nothing to do where they are that already."""
        if isinstance(loads, Loads):
            return loads
        values = list(loads.values())
        return cls(
            names=tuple(loads),
            cpu=np.array([load.cpu for load in values], dtype=np.float64),
            cpu_mean=np.array([load.cpu_mean for load in values], dtype=np.float64),
            memory=np.array([load.memory for load in values], dtype=np.int64),
            steal=np.array([load.steal for load in values], dtype=np.float64),
            network=np.array([load.network for load in values], dtype=np.float64),
            block=np.array([load.block for load in values], dtype=np.float64),
            readings=np.array([load.readings for load in values], dtype=np.int64),
            since=np.array([load.since for load in values], dtype=np.float64),
            dirty_rate=np.array([load.dirty_rate for load in values], dtype=np.float64),
            shortage=np.array([load.shortage for load in values], dtype=np.float64),
        )

    def __getitem__(self, name: str) -> Load:
        row = self.row[name]
        return Load(
            cpu=self.cpu.item(row),
            cpu_mean=self.cpu_mean.item(row),
            memory=self.memory.item(row),
            steal=self.steal.item(row),
            network=_known(self.network.item(row)),
            block=_known(self.block.item(row)),
            readings=self.readings.item(row),
            since=self.since.item(row),
            dirty_rate=_known(self.dirty_rate.item(row)),
            shortage=self.shortage.item(row),
        )

    def only(self, kept: Bools) -> Self:
        """The rows that are kept, in the same order."""
        if kept.all():
            return self
        names = tuple(name for name, keep in zip(self.names, kept.tolist(), strict=True) if keep)
        return type(self)(
            names=names,
            cpu=self.cpu[kept],
            cpu_mean=self.cpu_mean[kept],
            memory=self.memory[kept],
            steal=self.steal[kept],
            network=self.network[kept],
            block=self.block[kept],
            readings=self.readings[kept],
            since=self.since[kept],
            dirty_rate=self.dirty_rate[kept],
            shortage=self.shortage[kept],
        )


@lru_cache(maxsize=4)
def _row_of(names: tuple[str, ...]) -> Mapping[str, int]:
    """Where each name is: tables of the same names come one after the other."""
    return {name: index for index, name in enumerate(names)}


def loads_of(snapshot: Snapshot) -> Loads:
    """The loads of a snapshot's VMs, drawn up once however many ask."""
    return _loads_of(Same(snapshot))


@lru_cache(maxsize=1)
def _loads_of(snapshot: Same[Snapshot]) -> Loads:
    return Loads.of(snapshot.value.loads)


@dataclass(frozen=True, eq=False)
class Forecasts(Table[Forecast]):
    """`model.Forecast` by columns; NaN stands for None in `usual`."""

    cpu: Floats
    spread: Floats
    usual: Floats
    wavers: Bools

    @classmethod
    def of(cls, forecasts: Mapping[str, Forecast]) -> "Forecasts":
        """The same forecasts by columns; nothing to do where they are that already."""
        if isinstance(forecasts, Forecasts):
            return forecasts
        values = list(forecasts.values())
        return cls(
            names=tuple(forecasts),
            cpu=np.array([forecast.cpu for forecast in values], dtype=np.float64),
            spread=np.array([forecast.spread for forecast in values], dtype=np.float64),
            usual=np.array([forecast.usual for forecast in values], dtype=np.float64),
            wavers=np.array([forecast.wavers for forecast in values], dtype=np.bool_),
        )

    def __getitem__(self, name: str) -> Forecast:
        row = self.row[name]
        usual = _known(self.usual.item(row))
        return Forecast(self.cpu.item(row), self.spread.item(row), usual, self.wavers.item(row))


def _known(value: float) -> float | None:
    """None for NaN."""
    return value if value == value else None


def taken(column: Floats, rows: Ints) -> Floats:
    """The entries of these rows; NaN for row -1."""
    return np.concatenate((column, _NOT_KNOWN))[rows]


def rows_where(which: Bools) -> Ints:
    """The rows of which it is true: `np.flatnonzero` of one dimension, in a fifth of the time for
    the few rows that most sites have."""
    return which.nonzero()[0]


def total(column: Floats) -> float:
    """The sum of what is known, likewise."""
    return float(np.where(np.isnan(column), 0.0, column).sum())
