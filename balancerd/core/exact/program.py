"""A mixed-integer linear program as arrays, and what a solver makes of it. Values only."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Program:
    """Minimise cost · x, where low ≤ A x ≤ high and 0 ≤ x ≤ upper, and x is whole where `whole`.

    A is kept by rows: row r has `values[starts[r]:starts[r + 1]]` in `columns[...]` likewise.
    `start` is a solution that keeps every row, to begin from.
    """

    cost: Floats
    upper: Floats
    whole: Bools
    low: Floats
    high: Floats
    starts: Ints
    columns: Ints
    values: Floats
    start: Floats


@dataclass(frozen=True, slots=True)
class Solution:
    """The best x found, if any; how good any could be; and how the search ended, in words."""

    x: Floats | None
    bound: float
    told: str


# A program, seconds it may take, bytes it may use.
Solver = Callable[[Program, float, int], Solution]


@dataclass(slots=True)
class Rows:
    """The rows of a program while it is drawn up."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    columns: list[Ints] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)

    def add(self, columns: Ints, values: Floats, low: float, high: float) -> None:
        """One more row; nothing where there is nothing in it."""
        if len(columns):
            self.low.append(low)
            self.high.append(high)
            self.sizes.append(len(columns))
            self.columns.append(columns)
            self.values.append(values)

    def program(self, cost: Floats, upper: Floats, whole: Bools, start: Floats) -> Program:
        """The program with these rows."""
        return Program(
            cost=cost,
            upper=upper,
            whole=whole,
            low=np.array(self.low),
            high=np.array(self.high),
            starts=np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)]).astype(np.int64),
            columns=np.concatenate(self.columns) if self.columns else np.zeros(0, dtype=np.int64),
            values=np.concatenate(self.values) if self.values else np.zeros(0),
            start=start,
        )
