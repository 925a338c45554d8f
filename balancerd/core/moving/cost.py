"""What a migration is expected to cost: the model's figures, corrected by what was learned.

A VM's way at a rate is worked out once, whichever link is the narrowest: the correction differs.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from balancerd.core.lessons import Basis, Lessons
from balancerd.core.model import Method, Snapshot
from balancerd.core.moving.copying import Copy, pre_copy
from balancerd.core.moving.method import Way, memory_in_use, way_of
from balancerd.core.plan import Refusal
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Same


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one migration: by which method, seconds, bytes sent, seconds of downtime."""

    method: Method
    seconds: float
    bytes: int
    downtime: float
    basis: Basis


def migration_cost(
    vm: str, snapshot: Snapshot, policy: Policy, rate: float, link: str, lessons: Lessons
) -> Cost:
    """Predicted for a rate in bytes per second over a way that is narrowest at `link`."""
    return costs_of(snapshot, policy, lessons).at(vm, rate, link)


@dataclass(frozen=True, slots=True)
class Costs:
    """What predictions rest on, and those already made: a plan asks for the same several times."""

    snapshot: Snapshot
    policy: Policy
    lessons: Lessons
    _ways: dict[tuple[str, float], Way] = field(default_factory=dict)
    _made: dict[tuple[str, float, str], Cost] = field(default_factory=dict)

    def at(self, vm: str, rate: float, link: str) -> Cost:
        """Predicted for a rate in bytes per second over a way that is narrowest at `link`."""
        asked = vm, rate, link
        if asked not in self._made:
            self._made[asked] = _corrected(self._way(vm, rate), vm, link, self.lessons)
        return self._made[asked]

    def _way(self, vm: str, rate: float) -> Way:
        if (vm, rate) not in self._ways:
            self._ways[vm, rate] = way_at(vm, self.snapshot, self.policy, rate)
        return self._ways[vm, rate]


def costs_of(snapshot: Snapshot, policy: Policy, lessons: Lessons) -> Costs:
    """The costs of all migrations that a plan may ask for."""
    return _found(Same(snapshot), Same(policy), Same(lessons))


@lru_cache(maxsize=1)
def _found(snapshot: Same[Snapshot], policy: Same[Policy], lessons: Same[Lessons]) -> Costs:
    return Costs(snapshot.value, policy.value, lessons.value)


def _corrected(way: Way, vm: str, link: str, lessons: Lessons) -> Cost:
    method, copy = way.method, way.copy
    seconds, sent, downtime = (
        lessons.correction(figure, method, link, vm) for figure in ("seconds", "bytes", "downtime")
    )
    return Cost(
        method,
        round(copy.seconds * seconds.ratio, 6),
        round(copy.bytes * sent.ratio),
        round(copy.downtime * downtime.ratio, 6),
        Basis(
            round(copy.seconds, 6),
            round(copy.bytes),
            round(copy.downtime, 6),
            seconds.factor,
            sent.factor,
            downtime.factor,
            link,
        ),
    )


def way_at(vm: str, snapshot: Snapshot, policy: Policy, rate: float) -> Way:
    """The way to move a VM at a rate. Where it would not end (the links are busier than when the
    VM was found to be movable), the way that it has at the policy's own bandwidth."""
    value, load = snapshot.cluster.vms[vm], snapshot.loads.get(vm)
    way = way_of(value, load, policy, rate)
    if isinstance(way, Refusal):
        way = way_of(value, load, policy, float(policy.limits.bandwidth))
    return Way(Method.PRE_COPY, _once(vm, snapshot, rate)) if isinstance(way, Refusal) else way


def _once(vm: str, snapshot: Snapshot, rate: float) -> Copy:
    """All memory, and nothing written meanwhile."""
    load = snapshot.loads.get(vm)
    return pre_copy(memory_in_use(snapshot.cluster.vms[vm], load), 0.0, rate, 1.0)
