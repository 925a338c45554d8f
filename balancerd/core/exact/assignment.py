"""Who goes where, as a mixed-integer program, with the costs and limits of the built-in search.

There is a column for each block on each host where it may end up, then one for each host that says
whether it is open, then one for each host's crowding. Where demand has a spread, its root is said
a little stricter than it is, by its tangent at the start: what the program allows is allowed.
"""

from dataclasses import dataclass, field

import numpy as np

from balancerd.core.exact.program import Program, Rows
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.planner.search import Search

FREE = np.inf
PAIRS = 60_000  # up to which each pair is tied to its host being open by a row of its own
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Question:
    """A search, what each host costs while it is open, which may be closed, and a first answer.

    `start` is a host for each block that keeps every rule; `room` how many VMs may move at all, and
    `per_host` how many for each host that is closed.
    """

    search: Search
    host_price: Floats
    closable: Bools
    start: Ints
    room: int
    per_host: int

    def cost(self, place: Ints) -> float:
        """What an answer costs: moves, open hosts, crowding."""
        search, layout = self.search, self.search.layout
        count = len(layout.hosts)
        total = float(search.price[place != search.home].sum())
        open_ = np.bincount(place, minlength=count) > 0
        total += float(self.host_price[open_ & self.closable].sum())
        if search.crowding:
            away = np.flatnonzero(place != layout.place)
            trial = layout.copy()
            for block in away:
                trial.move(int(block), int(place[block]))
            spread = trial.factor * np.sqrt(trial.used_variance)
            over = np.maximum(0.0, trial.used_cpu + spread - search.crowded)
            total += search.crowding * float(over.sum())
        return total


@dataclass(frozen=True, slots=True)
class Assignment:
    """A program, and which block and host each of its first columns stands for."""

    program: Program
    block: Ints
    host: Ints

    def places(self, home: Ints, x: Floats) -> Ints:
        """Where each block ends up."""
        place = home.copy()
        chosen = np.flatnonzero(x[: len(self.block)] > 0.5)
        place[self.block[chosen]] = self.host[chosen]
        return place


def pairs(search: Search) -> tuple[Ints, Ints]:
    """Block and host of each way to be, block by block; where a block is now is one of them."""
    may = search.reach[search.layout.signature] & search.open_ & search.movable[:, np.newaxis]
    rows = np.flatnonzero(search.movable)
    may[rows, search.layout.place[rows]] = True
    block, host = np.nonzero(may)
    return block, host


def assignment(question: Question) -> Assignment:
    """The program of a question."""
    block, host = pairs(question.search)
    drawing = _Drawing(question, block, host)
    drawing.once_each()
    drawing.within_limits()
    drawing.closed_hosts()
    drawing.apart()
    drawing.budget()
    drawing.crowding()
    return Assignment(drawing.program(), block, host)


@dataclass(slots=True)
class _Drawing:
    """A program while it is drawn up: row after row for the columns of pairs, hosts, crowding."""

    question: Question
    block: Ints
    host: Ints
    rows: Rows = field(default_factory=Rows)
    on: list[Ints] = field(init=False)  # columns of each host
    slope: Floats = field(init=False)  # of the spread's tangent, by host
    offset: Floats = field(init=False)  # its constant

    def __post_init__(self) -> None:
        order = np.argsort(self.host, kind="stable")
        edges = np.searchsorted(self.host[order], np.arange(1, self.hosts))
        self.on = np.split(order, edges)
        layout, variances = self.layout, self.layout.variance
        variance = np.maximum(self._at_start(variances, layout.used_variance), 0.0)
        usual = float(np.median(variance[variance > TINY])) if (variance > TINY).any() else 1.0
        root = np.sqrt(np.where(variance > TINY, variance, usual))
        # Where nothing has a spread there is nothing to stand in for.
        factor = layout.factor if (variances > TINY).any() or (variance > TINY).any() else 0.0
        self.slope = factor / (2.0 * root)
        self.offset = factor * root / 2.0

    @property
    def layout(self) -> Layout:
        return self.question.search.layout

    @property
    def hosts(self) -> int:
        return len(self.layout.hosts)

    def _at_start(self, demand: Floats, used: Floats) -> Floats:
        """What hosts hold of something in the question's first answer."""
        change = np.bincount(self.question.start, demand, self.hosts)
        return np.asarray(used + change - np.bincount(self.layout.place, demand, self.hosts))

    def _staying(self, demand: Floats, used: Floats) -> Floats:
        """What hosts hold of something that is not for the program to decide."""
        movable = self.question.search.movable
        place = self.layout.place[movable]
        return np.asarray(used - np.bincount(place, demand[movable], self.hosts))

    def once_each(self) -> None:
        """Every block is somewhere."""
        edges = np.flatnonzero(np.diff(self.block)) + 1
        for columns in np.split(np.arange(len(self.block)), edges):
            self.rows.add(columns, np.ones(len(columns)), 1.0, 1.0)

    def within_limits(self) -> None:
        """No host that takes VMs holds more than it may, or than it does at the start."""
        search, layout = self.question.search, self.layout
        self._limit(layout.cpu, layout.used_cpu, search.cpu_limit, spread=True)
        if layout.policy.capacity.enforce_memory:
            self._limit(layout.memory, layout.used_memory, search.memory_limit)
        self._limit(layout.vcpus, layout.used_vcpus, layout.vcpu_capacity)
        if (pools := layout.pools) is not None:
            for row in range(len(pools.sizes)):
                demand = pools.demand(row, len(layout.blocks))
                self._limit(demand, pools.used[row], pools.capacity[row])
        if search.busy is not None:
            self._limit(layout.now, layout.used_now, search.busy)

    def _limit(self, demand: Floats, used: Floats, limit: Floats, *, spread: bool = False) -> None:
        staying, start = self._staying(demand, used), self._at_start(demand, used)
        if spread:
            fixed = self._staying(self.layout.variance, self.layout.used_variance)
            staying = staying + self.slope * fixed + self.offset
            begun = self._at_start(self.layout.variance, self.layout.used_variance)
            start = start + self.slope * begun + self.offset
        scale = np.maximum(limit, demand.max(initial=TINY))
        left = (np.maximum(limit, start) - staying) / scale
        for row in np.flatnonzero(self.question.search.open_):
            columns = self.on[row]
            asked = demand[self.block[columns]]
            if spread:
                asked = asked + self.slope[row] * self.layout.variance[self.block[columns]]
            asked = asked / scale[row]
            if self.question.closable[row] and left[row] > 0:
                columns = np.append(columns, len(self.block) + row)
                self.rows.add(columns, np.append(asked, -left[row]), -FREE, 0.0)
            else:
                self.rows.add(columns, asked, -FREE, float(left[row]))

    def closed_hosts(self) -> None:
        """Nothing is on a host that is not open."""
        single = len(self.block) <= PAIRS
        for row in np.flatnonzero(self.question.closable):
            gate = len(self.block) + row
            columns = self.on[row]
            if single:
                for column in columns:
                    self.rows.add(np.array([column, gate]), np.array([1.0, -1.0]), -FREE, 0.0)
            else:
                values = np.append(np.ones(len(columns)), -float(len(columns)))
                self.rows.add(np.append(columns, gate), values, -FREE, 0.0)

    def apart(self) -> None:
        """Of a group that is kept apart no domain holds more than it may, or does at the start."""
        for index, group in enumerate(self.layout.groups):
            if group.kind != "apart":
                continue
            sizes = np.zeros(len(self.layout.blocks))
            for block, memberships in self.layout.groups_of.items():
                sizes[block] = sum(own for member, own in memberships if member == index)
            domains = self.layout.domains[group.scope]
            columns = np.flatnonzero(sizes[self.block] > 0)
            for domain in np.unique(domains[self.host[columns]]):
                here = columns[domains[self.host[columns]] == domain]
                begun = float(sizes[domains[self.question.start] == domain].sum())
                stays = ~self.question.search.movable & (domains[self.layout.place] == domain)
                most = max(begun, float(group.at_most)) - float(sizes[stays].sum())
                self.rows.add(here, sizes[self.block[here]], -FREE, most)

    def budget(self) -> None:
        """No more VMs move than may, in all and for each host that is closed."""
        question = self.question
        sizes = np.array([len(names) for names in self.layout.blocks], dtype=np.float64)
        away = np.flatnonzero(self.layout.place[self.block] != self.host)
        moved = sizes[self.block[away]]
        self.rows.add(away, moved, -FREE, float(question.room))
        gates = len(self.block) + np.flatnonzero(question.closable)
        if len(gates):
            columns, each = np.concatenate([away, gates]), float(question.per_host)
            values = np.concatenate([moved, np.full(len(gates), each)])
            begun = float(sizes[question.start != self.layout.place].sum())
            open_ = np.bincount(question.start, minlength=self.hosts) > 0
            begun += each * float((open_ & question.closable).sum())
            self.rows.add(columns, values, -FREE, max(begun, each * len(gates)))

    def crowding(self) -> None:
        """What a host holds beyond what is crowded, its last column holds."""
        search, layout = self.question.search, self.layout
        if not search.crowding:
            return
        fixed = self._staying(layout.variance, layout.used_variance)
        staying = self._staying(layout.cpu, layout.used_cpu) + self.slope * fixed + self.offset
        for row in range(self.hosts):
            columns = np.append(self.on[row], len(self.block) + self.hosts + row)
            blocks = self.block[self.on[row]]
            asked = layout.cpu[blocks] + self.slope[row] * layout.variance[blocks]
            left = float(search.crowded[row] - staying[row])
            self.rows.add(columns, np.append(asked, -1.0), -FREE, left)

    def program(self) -> Program:
        """The program of the rows drawn so far."""
        question, search = self.question, self.question.search
        count = self.hosts if search.crowding else 0
        moving = search.price[self.block] * (search.home[self.block] != self.host)
        gates = question.host_price * question.closable
        crowding = np.full(count, search.crowding)
        upper = np.concatenate([np.ones(len(self.block) + self.hosts), np.full(count, FREE)])
        chosen = question.start[self.block] == self.host
        used = np.bincount(question.start, minlength=self.hosts) > 0
        variance = np.maximum(self._at_start(self.layout.variance, self.layout.used_variance), 0)
        cpu = self._at_start(self.layout.cpu, self.layout.used_cpu)
        over = cpu + self.slope * variance + self.offset - search.crowded if count else np.zeros(0)
        return self.rows.program(
            cost=np.concatenate([moving, gates, crowding]),
            upper=upper,
            whole=np.isfinite(upper),
            start=np.concatenate([chosen, used, np.maximum(over, 0.0)]).astype(np.float64),
        )
