"""A placement that is being searched: what it costs, and what it would cost otherwise.

The cost is what the operator pays: the price of each block that is not at home, of each reference
core above what makes a host crowded, and the weights of broken soft rules. `changes` finds what
lowers it most, `settle` does so again and again. Nothing here looks at a clock: `work` counts the
pairs that were weighed, and ends a search at the same change on every machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.constraints import forbidding, soft_cost, soft_cost_of_group
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.plan import Refusal

EPSILON = 1e-9
GAIN = 1e-7  # a change that gains less is none
VISIT = 2000  # pairs that a look at one host counts for at least
FIRST_PRICE = 10.0  # of a whole host's capacity beyond the limit, in mean prices of a move
PROHIBITIVE = 1e9
ALL = slice(None)


Amount = tuple[Floats, Floats]  # what is on each host, what each block adds
# CPU, memory, variance, CPU at this moment; None where it plays no part
Amounts = tuple[Amount, Amount | None, Amount | None, Amount | None]
Held = tuple[Floats, Floats | None, Floats | None, Floats | None]


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
    # Changes that would have been the best, but for a rule: block and target, and what it says.
    forbidden: dict[tuple[int, int], Refusal] = field(default_factory=dict)
    cpu_price: Floats = field(init=False)
    memory_price: Floats = field(init=False)
    reach: Bools = field(init=False)  # by signature and host
    busy: Floats | None = field(init=False)  # CPU that a host may use at this moment; None: any
    amounts: Amounts = field(init=False)
    soft: list[int] = field(init=False)  # the groups of soft rules
    social: Bools = field(init=False)  # blocks in such groups
    swayed: bool = field(init=False)  # whether there is any soft rule

    def __post_init__(self) -> None:
        layout = self.layout
        self.reach = np.array([*layout.reachable], dtype=np.bool_).reshape(-1, len(layout.hosts))
        self.soft = [index for index, group in enumerate(layout.groups) if group.weight]
        self.social = np.zeros(len(layout.blocks), dtype=np.bool_)
        if self.soft:
            members = layout.groups_of.items()
            self.social[[b for b, of in members if any(i in self.soft for i, _ in of)]] = True
        self.swayed = bool(self.soft) or bool(layout.aversion.any())
        band = layout.policy.thresholds.cpu
        self.busy = band.release * layout.cpu_capacity
        settled = (layout.now <= layout.cpu).all() and (layout.used_now <= layout.used_cpu).all()
        if settled and (self.cpu_limit <= self.busy).all():
            self.busy = None  # what is expected of a host says it already
        self.amounts = (
            (layout.used_cpu, layout.cpu),
            (layout.used_memory, layout.memory) if self._may_lack_memory() else None,
            (layout.used_variance, layout.variance) if layout.factor else None,
            (layout.used_now, layout.now) if self.busy is not None else None,
        )
        self.reprice(PROHIBITIVE)

    def _may_lack_memory(self) -> bool:
        """Whether not every host could hold all VMs beside what it holds."""
        layout = self.layout
        needed = layout.used_memory + np.maximum(layout.memory, 0.0).sum()
        is_enforced = layout.policy.capacity.enforce_memory
        return is_enforced and bool((needed > self.memory_limit).any())

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
        """Price of the moves, of crowding and of soft rules; limits are not counted."""
        return self.cost_of(self.layout)

    def cost_of(self, layout: Layout) -> float:
        """The same for any layout with these blocks and hosts."""
        total = float(self.price[layout.place != self.home].sum())
        if self.swayed:
            total += float(layout.aversion[layout.signature, layout.place].sum())
            total += sum(soft_cost_of_group(layout, index) for index in self.soft)
        if self.crowding:
            over = np.maximum(0.0, _cpu(layout) - self.crowded)
            total += self.crowding * float(over.sum())
        return total

    def cpu(self, hosts: Ints | slice = ALL) -> Floats:
        """CPU expected on hosts with its spread, in reference cores."""
        return _cpu(self.layout, hosts)

    def full(self) -> Ints:
        """Open hosts beyond a limit, in order."""
        layout = self.layout
        over = self.cpu() > self.cpu_limit * (1 + EPSILON)
        if layout.policy.capacity.enforce_memory:
            over |= layout.used_memory > self.memory_limit * (1 + EPSILON)
        if self.busy is not None:
            over |= layout.used_now > self.busy * (1 + EPSILON)
        return rows_where(over & (self.open_ | self.own))

    def _penalty(self, hosts: Ints | slice, held: Held) -> Floats:
        """What hosts cost that hold so much; the arrays' last axis runs over the hosts."""
        cpu, memory, variance, now = held
        if variance is not None:
            cpu = cpu + self.layout.factor * np.sqrt(np.maximum(variance, 0.0))
        over = cpu - self.cpu_limit[hosts] * (1 + EPSILON)
        if self.busy is not None and now is not None:
            over = np.maximum(over, now - self.busy[hosts] * (1 + EPSILON))
        cost = self.cpu_price[hosts] * np.maximum(over, 0.0)
        if memory is not None:
            over = np.maximum(memory - self.memory_limit[hosts] * (1 + EPSILON), 0.0)
            cost += self.memory_price[hosts] * over
        if self.crowding:
            cost += self.crowding * np.maximum(cpu - self.crowded[hosts], 0.0)
        return cost

    def _held(self, amount: Callable[[Floats, Floats], Floats]) -> Held:
        """What is held of everything, as the function has it from what is, and what blocks add."""
        cpu, memory, variance, now = self.amounts
        return (
            amount(*cpu),
            amount(*memory) if memory else None,
            amount(*variance) if variance else None,
            amount(*now) if now else None,
        )

    def altered(self, hosts: Ints, blocks: Ints, sign: int, others: Ints | None = None) -> Floats:
        """What hosts cost with the blocks added (sign 1) or taken off (-1), and others instead."""
        if others is None:
            held = self._held(lambda used, by: used[hosts] + sign * by[blocks])
        else:
            held = self._held(lambda used, by: used[hosts] + sign * (by[blocks] - by[others]))
        return self._penalty(hosts, held)

    def as_is(self, hosts: Ints | slice) -> Floats:
        """What hosts cost now."""
        return self._penalty(hosts, self._held(lambda used, _: used[hosts]))

    # --- what it would cost otherwise

    def on(self, host: int) -> Ints:
        """The movable blocks on a host."""
        return rows_where((self.layout.place == host) & self.movable)

    def burden(self, blocks: Ints, targets: Ints) -> Floats:
        """What it costs that each block (row) goes to each host (column); inf: it may not."""
        column = blocks[:, np.newaxis]
        self.work += VISIT + len(blocks) * len(targets)
        cost = self.altered(targets, column, 1)
        cost -= self.as_is(targets)
        cost += self.price[column] * (self.home[column] != targets)
        if self.swayed:
            cost += self.unease(blocks, targets)
        cost[~self.may(column, targets) | (self.layout.place[column] == targets)] = np.inf
        return cost

    def unease(self, blocks: Ints, targets: Ints) -> Floats:
        """What soft rules cost more with each block (row) on each host (column) than as it is."""
        layout = self.layout
        averse = layout.aversion[layout.signature[blocks]]
        here = layout.place[blocks]
        cost = averse[:, targets] - averse[np.arange(len(blocks)), here][:, np.newaxis]
        for row in rows_where(self.social[blocks]):
            by_host = soft_cost(layout, int(blocks[row]))
            cost[row] = by_host[targets] - by_host[here[row]]
        return np.asarray(cost)

    def may(self, blocks: Ints, targets: Ints) -> Bools:
        """Whether each block may go to each target, whatever room there is."""
        welcome = self.open_[targets] | (self.own[targets] & (self.home[blocks] == targets))
        return np.asarray(welcome & self.reach[self.layout.signature[blocks], targets])

    def forbids(self, block: int, target: int, gone: int = -1) -> bool:
        """Whether a rule keeps a block off a host whatever room there is, or no NUMA nodes take it
        there once `gone` (not -1) has left; remembers what it says.

        Many small arrays: to be asked only of what is about to be done.
        """
        layout, nodes = self.layout, self.layout.nodes
        seat = nodes.seats.get((gone, target), ()) if nodes else ()
        if nodes and seat:
            nodes.release(gone, target)
        check = forbidding(layout, block, target)
        if check and (block, target) not in self.forbidden:
            self.forbidden[block, target] = check.refusal(layout, block, target)
        if nodes and seat:
            nodes.charge(gone, target, seat)
        return check is not None

    def turning_down(self, blocks: Ints) -> dict[str, int]:
        """How many open hosts turn down each of the blocks, by the first reason; rules apart."""
        layout, hosts, column = self.layout, rows_where(self.open_), blocks[:, np.newaxis]
        left, counts = self.reach[layout.signature[column], hosts], dict[str, int]()
        counts["not reachable"] = int(left.size - left.sum())
        for name, short in self._short(column, hosts):
            counts[name] = int((left & short).sum())
            left &= ~short
        return {name: count for name, count in counts.items() if count}

    def _short(self, column: Ints, hosts: Ints) -> Iterator[tuple[str, Bools]]:
        """What hosts (columns) lack room in for blocks (rows)."""
        cpu, memory, variance, now = self._held(lambda used, by: used[hosts] + by[column])
        if memory is not None:
            yield "memory", memory > self.memory_limit[hosts] * (1 + EPSILON)
        if variance is not None:
            cpu = cpu + self.layout.factor * np.sqrt(np.maximum(variance, 0.0))
        yield "CPU", cpu > self.cpu_limit[hosts] * (1 + EPSILON)
        if self.busy is not None and now is not None:
            yield "busy", now > self.busy[hosts] * (1 + EPSILON)

    def targets(self, blocks: Ints) -> Ints:
        """The hosts that any of the blocks may go to, in order."""
        some = self.open_.copy()
        if len(self.reach) > 1:
            some &= self.reach[self.layout.signature[blocks]].any(axis=0)
        homes = self.home[blocks]
        some[homes[self.own[homes]]] = True
        return rows_where(some)

    def relief(self, blocks: Ints, host: int, sets: Floats) -> Floats:
        """What it saves a host that a set of its blocks leaves; a row for each set, the first
        of which is empty."""
        left = self._held(lambda used, by: used[host] - sets @ by[blocks])
        cost = self._penalty(np.array([host]), left)
        return np.asarray(cost[0] - cost)


def _cpu(layout: Layout, hosts: Ints | slice = ALL) -> Floats:
    spread = np.sqrt(layout.used_variance[hosts])
    return np.asarray(layout.used_cpu[hosts] + layout.factor * spread)
