"""A program while it is drawn up: its columns and rows, and what the question's start makes of it.

There is a column for each block on each host where it may end up, then one for each host that says
whether it is open, then whatever rows need beside those. Where demand has a spread, its root is
said a little stricter than it is, by its tangent at the start: what the program allows is allowed.
"""

from dataclasses import dataclass, field

import numpy as np

from balancerd.core.exact.program import Program, Rows
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.placing.nodes import Seat
from balancerd.core.planner.search import Search

FREE = np.inf
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Question:
    """A search, what each host costs while it is open, which may be closed, and a first answer.

    `start` is a host for each block that keeps every rule, `seats` the NUMA nodes there of those
    that it moves; `room` how many VMs may move at all, and `per_host` how many for each host that
    is closed.
    """

    search: Search
    host_price: Floats
    closable: Bools
    start: Ints
    room: int
    per_host: int
    seats: dict[int, Seat] = field(default_factory=dict)

    def cost(self, place: Ints) -> float:
        """What an answer costs: moves, open hosts, crowding, broken soft rules."""
        trial = self.search.layout.copy()
        for block in np.flatnonzero(place != trial.place).tolist():
            trial.move(block, int(place[block]))
        open_ = np.bincount(place, minlength=len(trial.hosts)) > 0
        return float(self.host_price[open_ & self.closable].sum()) + self.search.cost_of(trial)


@dataclass(slots=True)
class Drawing:
    """The columns of pairs and hosts, those added to them, and rows."""

    question: Question
    block: Ints
    host: Ints
    rows: Rows = field(default_factory=Rows)
    constant: float = 0.0  # what no answer can change
    added: list[tuple[float, float, bool, float]] = field(default_factory=list)
    on: list[Ints] = field(init=False)  # columns of each host
    slope: Floats = field(init=False)  # of the spread's tangent, by host
    offset: Floats = field(init=False)  # its constant

    def __post_init__(self) -> None:
        order = np.argsort(self.host, kind="stable")
        edges = np.searchsorted(self.host[order], np.arange(1, self.hosts))
        self.on = np.split(order, edges)
        layout, variances = self.layout, self.layout.variance
        variance = np.maximum(self.at_start(variances, layout.used_variance), 0.0)
        usual = float(np.median(variance[variance > TINY])) if (variance > TINY).any() else 1.0
        root = np.sqrt(np.where(variance > TINY, variance, usual))
        # Where nothing has a spread there is nothing to stand in for.
        factor = layout.factor if (variances > TINY).any() or (variance > TINY).any() else 0.0
        self.slope = factor / (2.0 * root)
        self.offset = factor * root / 2.0

    @property
    def layout(self) -> Layout:
        """The layout in question, as it is now."""
        return self.question.search.layout

    @property
    def hosts(self) -> int:
        """How many hosts there are."""
        return len(self.layout.hosts)

    def at_start(self, demand: Floats, used: Floats) -> Floats:
        """What hosts hold of something in the question's first answer."""
        change = np.bincount(self.question.start, demand, self.hosts)
        return np.asarray(used + change - np.bincount(self.layout.place, demand, self.hosts))

    def staying(self, demand: Floats, used: Floats) -> Floats:
        """What hosts hold of something that is not for the program to decide."""
        movable = self.question.search.movable
        place = self.layout.place[movable]
        return np.asarray(used - np.bincount(place, demand[movable], self.hosts))

    def gate(self, host: int) -> int:
        """The column that says whether a host is open."""
        return len(self.block) + host

    def column(self, cost: float, upper: float, start: float, *, whole: bool = False) -> int:
        """One more column, between 0 and `upper`; its number."""
        self.added.append((cost, upper, whole, start))
        return len(self.block) + self.hosts + len(self.added) - 1

    def chosen(self) -> Bools:
        """The columns of pairs that the first answer chooses."""
        return np.asarray(self.question.start[self.block] == self.host)

    def program(self) -> Program:
        """The program of what was drawn so far."""
        question, search, layout = self.question, self.question.search, self.layout
        moving = search.price[self.block] * (search.home[self.block] != self.host)
        moving = moving + layout.aversion[layout.signature[self.block], self.host]
        gates = question.host_price * question.closable
        used = np.bincount(question.start, minlength=self.hosts) > 0
        cost, upper, whole, start = np.array(self.added, dtype=np.float64).reshape(-1, 4).T
        pairs = np.ones(len(self.block) + self.hosts)
        return self.rows.program(
            cost=np.concatenate([moving, gates, cost]),
            upper=np.concatenate([pairs, upper]),
            whole=np.concatenate([pairs, whole]) > 0,
            start=np.concatenate([self.chosen(), used, start]).astype(np.float64),
        )
