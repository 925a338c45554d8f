"""A plan in the making: the layout as it would be by now, and what was decided and refused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.model import Host, PowerState
from balancerd.core.ordering.order import Step
from balancerd.core.past.history import History, may_be_woken
from balancerd.core.placing.constraints import accepts, refuses, refusing, soft_cost
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.placing.nodes import Seat
from balancerd.core.plan import Assessment, Refusal, Verdict
from balancerd.core.planner.paths import Paths
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Same

TOLD = 20  # refusals kept in full; the others are counted
ALIKE = 5  # of them by one rule: many of a kind tell no more than a few


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a draft was, to go back to; its layout is a copy."""

    layout: Layout
    steps: int
    wakes: dict[int, str]
    room: int


@dataclass(slots=True)
class Draft:
    """What the stages of planning hand on. They change it in place; the layout is its own copy."""

    layout: Layout
    assessments: tuple[Assessment, ...]
    history: History
    now: float
    origin: Layout  # before the first step
    steps: list[Step] = field(default_factory=list)
    urgent: int = 0  # so many of them, the first ones, are to begin before all others
    mended: int = 0  # so many of those, the first ones, mend rules; the others unload hosts
    wakes: dict[int, str] = field(default_factory=dict)  # host -> why
    sleeps: dict[int, str] = field(default_factory=dict)
    cold: dict[str, str] = field(default_factory=dict)  # VMs that are shut off -> target
    told: list[Refusal] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _noted: set[Refusal] = field(default_factory=set)
    _used: tuple[int, int] = (0, 0)  # steps counted so far, and the VMs in them
    contradictory: set[str] = field(default_factory=set)  # VMs whose rules cannot all be kept
    declined: str = ""  # what was not worth its cost
    _paths: Paths | None = None
    worth: str = ""  # what is, and by how much
    _verdicts: Ints | None = None  # on each host, as a number

    def on(self, layout: Layout) -> "Draft":
        """A draft of its own on another layout, to try things out."""
        seen = self.assessments, self.history, self.now, self.origin
        return Draft(layout, *seen, wakes=dict(self.wakes), _paths=self.paths)

    def layout_after(self, steps: Sequence[Step]) -> Layout:
        """The layout once only these steps are done, with the hosts open that are now."""
        layout = self.origin.copy()
        layout.receives = self.layout.receives.copy()
        for step in steps:
            layout.move(step.block, step.target, step.seat)
        return layout

    @property
    def paths(self) -> Paths:
        """The ways between hosts, worked out when they are first asked for."""
        if self._paths is None:
            self._paths = Paths.of(self.layout.snapshot, self.policy)
        return self._paths

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.layout.policy

    def judged(self, *verdicts: Verdict) -> Bools:
        """Hosts of which the assessment says one of these."""
        if self._verdicts is None:
            self._verdicts = _numbers(Same(self.assessments))
        return np.asarray(_are(verdicts)[self._verdicts])

    def awake(self) -> Bools:
        """Hosts that are on, or that the draft wakes."""
        awake = ~self.judged(Verdict.ASLEEP, Verdict.UNKNOWN)
        awake[list(self.wakes)] = True
        return awake

    def serving(self) -> Bools:
        """Hosts whose capacity counts: awake, known, not draining; overloaded ones too."""
        layout = self.layout
        serving = self.awake() & (layout.gives | layout.receives)
        draining = layout.snapshot.draining & layout.host_row.keys()
        serving[[layout.host_row[name] for name in draining]] = False
        return serving

    def room(self) -> int:
        """How many more VMs may be moved by this plan."""
        counted, used = self._used if self._used[0] <= len(self.steps) else (0, 0)
        used += sum(len(self.layout.blocks[step.block]) for step in self.steps[counted:])
        self._used = len(self.steps), used
        return self.policy.limits.per_plan - used

    def mark(self) -> Mark:
        """How far the draft is by now."""
        return Mark(self.layout.copy(), len(self.steps), dict(self.wakes), self.room())

    def back_to(self, mark: Mark) -> None:
        """Take back the moves and wakes since. What was noted meanwhile stays noted."""
        self.layout, self.wakes = mark.layout, mark.wakes
        del self.steps[mark.steps :]
        self._used = (0, 0)

    def is_movable(self, block: int) -> bool:
        """Whether the block may be moved by what is left to decide; says why if it never may."""
        if block in self.layout.moved:
            return False
        if block in self.layout.fixed:
            self.note(self.layout.fixed[block])
            return False
        if self.contradictory.intersection(self.layout.blocks[block]):
            return False
        if not self.layout.gives[self.layout.place[block]]:
            return False
        return len(self.layout.blocks[block]) <= self.room()

    def movable(self) -> Bools:
        """Blocks that may be moved by what is left to decide; says why of those that never may."""
        layout = self.layout
        for refusal in layout.fixed.values():
            self.note(refusal)
        movable = np.asarray(layout.gives[layout.place])
        named = [layout.block_of[vm] for vm in self.contradictory if vm in layout.block_of]
        movable[[*layout.moved, *layout.fixed, *named]] = False
        return movable

    def move(self, block: int, target: int, reason: str, seat: Seat | None = None) -> None:
        """Decide a move that the rules accept now; `seat`: to these NUMA nodes of the target."""
        source = int(self.layout.place[block])
        self.layout.move(block, target, seat)
        self.steps.append(Step(block, source, target, reason, seat=self.layout.seat(block)))

    def note(self, refusal: Refusal) -> None:
        """Count a refusal if it is new, and keep it if there is still room."""
        if refusal not in self._noted:
            self._noted.add(refusal)
            self.counts[refusal.constraint] += 1
            self._keep(refusal)

    def _keep(self, refusal: Refusal) -> None:
        if len(self.told) < TOLD and refusal not in self.told:
            alike = sum(refusal.constraint == other.constraint for other in self.told)
            if alike < ALIKE:
                self.told.append(refusal)

    def note_nowhere(self, block: int) -> None:
        """Count why every host refuses a block, and keep the one that came closest."""
        rows = rows_where(self.layout.receives)
        rows = rows[rows != self.layout.place[block]]
        counted = refusing(self.layout, block, rows)
        for name, refused in counted.items():
            self.counts[name] += len(refused)
        if counted:
            closest = list(counted.values())[-1]
            use = self.layout.expected_cpu()[closest]
            refusal = refuses(self.layout, block, int(closest[np.argmin(use)]))
            if refusal:
                self._keep(refusal)

    def best_target(
        self, block: int, among: Bools | None = None, *, fill: float | None = None
    ) -> int | None:
        """The accepting host with most room, under `pack` one that is in use; None if none accepts.

        What soft rules cost on a host counts like use of it; among hosts of like use the way there
        decides.
        `fill` asks for an efficient one with little room instead, whose CPU stays below it.
        """
        layout = self.layout
        rows = rows_where(layout.receives if among is None else layout.receives & among)
        rows = rows[accepts(layout, block, rows)]
        if not len(rows):
            return None
        cpu, use = _use_after(layout, block, rows)
        soft = soft_cost(layout, block)[rows]
        if fill is not None:
            price = layout.peak[rows] / layout.cpu_capacity[rows]
            best = np.lexsort((-use, price, soft, cpu > fill))[0]
            return None if cpu[best] > fill else int(rows[best])
        idle = (layout.used_count[rows] == 0) & (self.policy.objective is Objective.PACK)
        kept = ~idle if not idle.all() else idle  # one in use, if there is any
        return self.paths.nearest(int(layout.place[block]), rows[kept], (use + soft)[kept])

    def wakeable(self) -> Bools:
        """Hosts that may be woken now."""
        wakeable = np.zeros(len(self.layout.hosts), dtype=np.bool_)
        wakeable[self._wakeable(urgent=False)] = True
        return wakeable

    def wake_one(self, reason: str, block: int | None = None, *, urgent: bool = False) -> bool:
        """Wake the sleeping host that gives the most for its power; with a block, one to take it.

        Urgent (an overload) overrides the least time that a host sleeps.
        """
        layout = self.layout
        for host in sorted(self._wakeable(urgent=urgent), key=self.price):
            layout.receives[host] = True
            if block is None or accepts(layout, block)[host]:
                self.wakes[host] = reason
                return True
            layout.receives[host] = False
        return False

    def _wakeable(self, *, urgent: bool) -> list[int]:
        hosts = self.layout.snapshot.cluster.hosts
        return [
            row
            for row, name in enumerate(self.layout.hosts)
            if self._may_wake(hosts[name], urgent=urgent) and row not in self.wakes
        ]

    def _may_wake(self, host: Host, *, urgent: bool) -> bool:
        snapshot, rules = self.layout.snapshot, self.policy.power
        if host.power is not PowerState.OFF or not host.can_sleep:
            return False
        if host.name in snapshot.draining or host.name in snapshot.unknown_hosts():
            return False
        if self.layout.cpu_capacity[self.layout.host_row[host.name]] <= 0:
            return False
        if not may_be_woken(host.name, self.history, self.policy):
            return False
        slept = self.history.slept.get(host.name)
        return urgent or slept is None or self.now - slept >= rules.min_off

    def price(self, host: int) -> tuple[float, float, str]:
        """Watts per core at full load, the largest and first by name where equal."""
        value = self.layout.snapshot.cluster.hosts[self.layout.hosts[host]]
        capacity = float(self.layout.cpu_capacity[host])
        return (value.watts(1.0) or capacity) / capacity, -capacity, value.name


_NUMBER = {verdict: number for number, verdict in enumerate(Verdict)}


@lru_cache(maxsize=16)
def _are(some: tuple[Verdict, ...]) -> Bools:
    """Which verdicts, by their numbers, are among these."""
    return np.array([verdict in some for verdict in Verdict], dtype=np.bool_)


@lru_cache(maxsize=1)
def _numbers(assessments: Same[tuple[Assessment, ...]]) -> Ints:
    """The verdict on each host, as a number."""
    return np.array([_NUMBER[a.verdict] for a in assessments.value], dtype=np.int64)


def _use_after(layout: Layout, block: int, hosts: Ints) -> tuple[Floats, Floats]:
    """Use of hosts' CPU, and of their scarcer resource, if they took the block."""
    spread = np.sqrt(layout.used_variance[hosts] + layout.variance[block])
    cpu = layout.used_cpu[hosts] + layout.cpu[block] + layout.factor * spread
    capacity = layout.cpu_capacity[hosts]
    share = use = cpu / np.where(capacity > 0, capacity, 1e-9)
    if layout.policy.capacity.enforce_memory:
        memory = layout.used_memory[hosts] + layout.memory[block]
        capacity = layout.memory_capacity[hosts]
        use = np.maximum(use, memory / np.where(capacity > 0, capacity, 1e-9))
    return share, use
