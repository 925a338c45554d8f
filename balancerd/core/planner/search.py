"""Local search over placements: who goes where, at the least cost, within what hosts can hold.

A search changes a layout of its own. Every step is the cheapest one at present prices: a block goes
elsewhere (`relocation`), or two change places (`exchange`); both are weighed for all blocks of a
host at once. What a host holds beyond its limits is allowed on the way, at a price that rises
wherever nothing gets better, so that room is found through however many other hosts (`settle`).
With prohibitive prices the same steps only ever lower the cost (`polish`).

The cost is what the operator pays: the price of each block that is not at home, and of each
reference core above what makes a host crowded. Nothing here looks at a clock: `work` counts the
pairs that were weighed, and ends a search at the same step on every machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from balancerd.core.constraints import forbids
from balancerd.core.layout import Bools, Floats, Ints, Layout

EPSILON = 1e-9
GAIN = 1e-7  # a step that gains less is none
VISIT = 2000  # pairs that a look at one host counts for at least
LOOK = 200_000  # pairs that one look weighs at most; of more, every so many are left out
DEARER = 1.5  # by how much the price of a limit rises where no step helps
FIRST_PRICE = 10.0  # of a whole host's capacity beyond the limit, in mean prices of a move
PROHIBITIVE = 1e9
PATIENCE = 12  # rounds without less excess after which no room is looked for any more
TRIES = 20  # best steps that are asked about before a look finds none


@dataclass(frozen=True, slots=True)
class Change:
    """A block goes to another host, and with `back` (not -1) one from there comes in its place."""

    gain: float
    block: int
    target: int
    back: int = -1


@dataclass(slots=True)
class Search:
    """A layout being searched, with the price of each block away from `home`.

    `open_` hosts take any block, those of `own` only blocks that are at home there; `movable`
    blocks go. Limits are in reference cores and bytes.
    """

    layout: Layout
    home: Ints
    price: Floats
    movable: Bools
    open_: Bools
    own: Bools
    cpu_limit: Floats
    memory_limit: Floats
    crowding: float = 0.0
    crowded: Floats = field(default_factory=lambda: np.zeros(0))
    work: int = 0
    cpu_price: Floats = field(init=False)
    memory_price: Floats = field(init=False)
    reach: Bools = field(init=False)  # by signature and host
    busy: Floats | None = field(init=False)  # CPU that a host may use at this moment; None: any

    def __post_init__(self) -> None:
        layout = self.layout
        self.reach = np.array([*layout.reachable]).reshape(-1, len(layout.hosts))
        band = layout.policy.thresholds.cpu
        self.busy = band.release * layout.cpu_capacity
        settled = (layout.now <= layout.cpu).all() and (layout.used_now <= layout.used_cpu).all()
        if settled and (self.cpu_limit <= self.busy).all():
            self.busy = None  # what is expected of a host says it already
        self.reprice(PROHIBITIVE)

    def spare_full_hosts(self) -> None:
        """Hosts beyond a limit take nothing new, and may stay as full as they are."""
        layout = self.layout
        self.open_[self.full()] = False
        self.cpu_limit = np.maximum(self.cpu_limit, self.cpu())
        self.memory_limit = np.maximum(self.memory_limit, layout.used_memory)
        if self.busy is not None:
            self.busy = np.maximum(self.busy, layout.used_now)

    def reprice(self, price: float) -> None:
        """Set what a whole host's capacity beyond the limit costs."""
        layout = self.layout
        self.cpu_price = price / np.maximum(layout.cpu_capacity, EPSILON)
        self.memory_price = price / np.maximum(layout.memory_capacity, EPSILON)
        if not layout.policy.capacity.enforce_memory:
            self.memory_price[:] = 0.0

    def soften(self) -> None:
        """Let limits be passed, at first for about what some moves cost."""
        mean = float(self.price[self.movable].mean()) if self.movable.any() else 1.0
        self.reprice(FIRST_PRICE * max(mean, EPSILON))

    # --- what it costs

    def cost(self) -> float:
        """Price of the moves and of crowding; limits are not counted."""
        total = float(self.price[self.layout.place != self.home].sum())
        if self.crowding:
            over = np.maximum(0.0, self.cpu() - self.crowded)
            total += self.crowding * float(over.sum())
        return total

    def cpu(self) -> Floats:
        """CPU expected on every host with its spread, in reference cores."""
        layout = self.layout
        return np.asarray(layout.used_cpu + layout.factor * np.sqrt(layout.used_variance))

    def full(self) -> Ints:
        """Open hosts beyond a limit, in order."""
        layout = self.layout
        over = self.cpu() > self.cpu_limit * (1 + EPSILON)
        if layout.policy.capacity.enforce_memory:
            over |= layout.used_memory > self.memory_limit * (1 + EPSILON)
        if self.busy is not None:
            over |= layout.used_now > self.busy * (1 + EPSILON)
        return np.flatnonzero(over & (self.open_ | self.own))

    def _penalty(
        self, hosts: Ints, cpu: Floats, variance: Floats, memory: Floats, now: Floats
    ) -> Floats:
        """What hosts cost that hold so much; the arrays' last axis runs over the hosts."""
        if self.layout.factor:
            cpu = cpu + self.layout.factor * np.sqrt(np.maximum(variance, 0.0))
        over = cpu - self.cpu_limit[hosts] * (1 + EPSILON)
        if self.busy is not None:
            over = np.maximum(over, now - self.busy[hosts] * (1 + EPSILON))
        cost = self.cpu_price[hosts] * np.maximum(over, 0.0)
        over = np.maximum(memory - self.memory_limit[hosts] * (1 + EPSILON), 0.0)
        cost += self.memory_price[hosts] * over
        if self.crowding:
            cost += self.crowding * np.maximum(cpu - self.crowded[hosts], 0.0)
        return cost

    def _with(self, hosts: Ints, blocks: Ints, sign: int, others: Ints | None = None) -> Floats:
        """What hosts cost with the blocks added (sign 1) or taken off (-1), and others instead."""
        layout = self.layout
        pairs = (
            (layout.used_cpu, layout.cpu),
            (layout.used_variance, layout.variance),
            (layout.used_memory, layout.memory),
            (layout.used_now, layout.now),
        )
        if others is None:
            return self._penalty(hosts, *(used[hosts] + sign * d[blocks] for used, d in pairs))
        swapped = (used[hosts] + sign * (d[blocks] - d[others]) for used, d in pairs)
        return self._penalty(hosts, *swapped)

    def _as_is(self, hosts: Ints) -> Floats:
        layout = self.layout
        used = (layout.used_cpu, layout.used_variance, layout.used_memory, layout.used_now)
        return self._penalty(hosts, *(amount[hosts] for amount in used))

    # --- steps

    def on(self, host: int) -> Ints:
        """The movable blocks on a host."""
        return np.flatnonzero((self.layout.place == host) & self.movable)

    def burden(self, blocks: Ints, targets: Ints) -> Floats:
        """What it costs that each block (row) goes to each host (column); inf: it may not."""
        column = blocks[:, np.newaxis]
        self.work += VISIT + len(blocks) * len(targets)
        cost = self._with(targets, column, 1) - self._as_is(targets)
        cost += self.price[column] * (self.home[column] != targets)
        cost[~self._may(column, targets) | (self.layout.place[column] == targets)] = np.inf
        return cost

    def _may(self, blocks: Ints, targets: Ints) -> Bools:
        """Whether each block may go to each target, whatever room there is."""
        welcome = self.open_[targets] | (self.own[targets] & (self.home[blocks] == targets))
        return np.asarray(welcome & self.reach[self.layout.signature[blocks], targets])

    def targets(self, blocks: Ints) -> Ints:
        """The hosts that any of the blocks may go to, in order."""
        some = self.open_.copy()
        homes = self.home[blocks]
        some[homes[self.own[homes]]] = True
        return np.flatnonzero(some)

    def relocation(self, blocks: Ints) -> Change | None:
        """The best way of moving one of these blocks, all of one host, elsewhere; None: none."""
        targets = self.targets(blocks)
        if not len(blocks) or not len(targets):
            return None
        here = np.array([self.layout.place[blocks[0]]])
        relief = self._as_is(here) - self._with(here, blocks, -1)
        relief += self.price[blocks] * (self.home[blocks] != here)
        gains = relief[:, np.newaxis] - self.burden(blocks, targets)
        for gain, row, column in _best(gains):
            change = Change(gain, int(blocks[row]), int(targets[column]))
            if not forbids(self.layout, change.block, change.target):
                return change
        return None

    def relief(self, blocks: Ints, host: int, sets: Bools) -> Floats:
        """What it saves a host that a set of its blocks leaves; a row for each set."""
        layout, here = self.layout, np.array([host])
        pairs = (
            (layout.used_cpu, layout.cpu),
            (layout.used_variance, layout.variance),
            (layout.used_memory, layout.memory),
            (layout.used_now, layout.now),
        )
        leaving = sets @ np.array([demand[blocks] for _, demand in pairs]).T
        left = (used[host] - leaving[:, index] for index, (used, _) in enumerate(pairs))
        return np.asarray(self._as_is(here) - self._penalty(here, *left))

    def exchange(self, here: int) -> Change | None:
        """The best way for a block of a host to change places with one elsewhere; None: none."""
        blocks = self.on(here)
        others = self._partners(here, len(blocks))
        if not len(blocks) or not len(others):
            return None
        gains = self._exchanges(here, blocks, others)
        self.work += VISIT + gains.size
        for gain, row, column in _best(gains):
            block, back = int(blocks[row]), int(others[column])
            there = int(self.layout.place[back])
            if not forbids(self.layout, block, there) and not forbids(self.layout, back, here):
                return Change(gain, block, there, back)
        return None

    def _partners(self, here: int, rows: int) -> Ints:
        """Blocks elsewhere that may come here."""
        layout = self.layout
        may = self.movable & (layout.place != here)
        if not self.open_[here]:
            may &= self.home == here if self.own[here] else False
        found = np.flatnonzero(may & self.reach[layout.signature, here])
        return found[:: 1 + len(found) * rows // LOOK]

    def _exchanges(self, here: int, blocks: Ints, others: Ints) -> Floats:
        """The gain of each exchange of a block here (row) for one elsewhere (column)."""
        row, a, there = blocks[:, np.newaxis], np.array([here]), self.layout.place[others]
        cost = self._with(a, row, -1, others) + self._with(there, row, 1, others)
        cost -= self._as_is(a) + self._as_is(there)
        home = self.home
        cost += self.price[row] * (1.0 * (home[row] != there) - (home[row] != here))
        cost += self.price[others] * (1.0 * (home[others] != here) - (home[others] != there))
        cost[~self._may(row, there)] = np.inf
        return -cost

    def take(self, change: Change) -> None:
        """Carry a change out."""
        here = int(self.layout.place[change.block])
        self.layout.move(change.block, change.target)
        if change.back >= 0:
            self.layout.move(change.back, here)

    # --- searches

    def settle(self, budget: int) -> bool:
        """Make room until no host is beyond its limits.

        False when the budget is spent, or the excess has not shrunk for a while.
        """
        end, least, stalled = self.work + budget, np.inf, 0
        while self.work < end and stalled < PATIENCE:
            full = self.full()
            if not len(full):
                return True
            excess = self._excess(full)
            stalled = 0 if excess < least else stalled + 1
            least = min(least, excess)
            for host in full:
                self._make_room(int(host))
        return not len(self.full())

    def _excess(self, hosts: Ints) -> float:
        """What hosts hold beyond their limits, in hosts' worth."""
        layout, beyond = self.layout, np.maximum(0.0, self.cpu() - self.cpu_limit)[hosts]
        excess = (beyond / np.maximum(layout.cpu_capacity[hosts], EPSILON)).sum()
        if layout.policy.capacity.enforce_memory:
            beyond = np.maximum(0.0, layout.used_memory - self.memory_limit)[hosts]
            excess += (beyond / np.maximum(layout.memory_capacity[hosts], EPSILON)).sum()
        return float(excess)

    def _make_room(self, host: int) -> None:
        change = self.relocation(self.on(host))
        other = self.exchange(host)
        if other and (change is None or other.gain > change.gain):
            change = other
        if change:
            self.take(change)
        else:
            self.work += VISIT
            self.cpu_price[host] *= DEARER
            self.memory_price[host] *= DEARER

    def polish(self, budget: int) -> None:
        """Lower the cost within the limits until nothing does, or the budget is spent."""
        self.reprice(PROHIBITIVE)
        end, improved = self.work + budget, True
        while improved and self.work < end:
            improved = False
            for host in self._costly():
                while self.work < end and (change := self._better(int(host))):
                    self.take(change)
                    improved = True

    def _costly(self) -> Ints:
        """Hosts that cost anything, in order: crowded ones, and those with strangers."""
        hosts = np.arange(len(self.layout.hosts))
        costly = self._as_is(hosts) > GAIN
        costly[self.layout.place[self.layout.place != self.home]] = True
        return np.flatnonzero(costly)

    def _better(self, host: int) -> Change | None:
        return self.relocation(self.on(host)) or self.exchange(host)


def _best(gains: Floats) -> Iterator[tuple[float, int, int]]:
    """Gains worth having, the largest first, with their rows and columns; the first few."""
    for _ in range(TRIES):
        row, column = divmod(int(np.argmax(gains)), gains.shape[1])
        gain = float(gains[row, column])
        if not gain > GAIN:
            return
        yield gain, row, column
        gains[row, column] = -np.inf
