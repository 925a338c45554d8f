"""What a checker has to look up all the time: who is, comes and goes where, and in which order."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from balancerd.core.model import VM, Snapshot, VMState
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, matches, meant
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.same import Same

GONE = frozenset({VMState.SHUTOFF, VMState.MIGRATED, VMState.CRASHED})
Inside = Callable[[str], bool]


@lru_cache(maxsize=1)
def _charged(vms: Same[Mapping[str, VM]]) -> frozenset[str]:
    """The VMs that cost their hosts anything."""
    return frozenset(name for name, vm in vms.value.items() if vm.state not in GONE)


class Taken(NamedTuple):
    """What VMs take of a host: expected CPU, the square of its spread, memory, vCPUs."""

    cpu: float
    variance: float
    memory: int
    vcpus: int


@dataclass(slots=True)
class Replay:
    """A plan's moves by the hosts they touch, and what was found so far."""

    snapshot: Snapshot
    policy: Policy
    plan: Plan
    rules: tuple[ConstraintRule, ...] = ()
    violations: list[str] = field(default_factory=list)
    slack: dict[str, float] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)  # number -> bits of all it waits for
    entering: dict[str, list[Move]] = field(default_factory=dict)  # by target host
    moves_of: dict[str, list[Move]] = field(default_factory=dict)  # by VM, in order
    charged: frozenset[str] = frozenset()  # VMs that cost their hosts anything
    residents: dict[str, list[str]] = field(default_factory=dict)  # by host, at the start
    staying: dict[str, list[str]] = field(default_factory=dict)  # those that no move is about
    going: dict[str, list[str]] = field(default_factory=dict)  # the others
    rules_of: dict[str, list[ConstraintRule]] = field(default_factory=dict)  # by VM that moves
    closing: list[ConstraintRule] = field(default_factory=list)  # those that exclude whole hosts
    headroom: list[ConstraintRule] = field(default_factory=list)  # those that keep a share free
    demands: dict[str, tuple[float, float]] = field(default_factory=dict)  # by VM, as asked for
    stays: dict[str, Taken] = field(default_factory=dict)  # what `staying` takes, too
    _domains: dict[tuple[str, tuple[str, ...]], dict[str, set[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cluster = self.snapshot.cluster
        self.rules = rules_in_force(cluster, self.policy)
        self.closing = [rule for rule in self.rules if rule.kind == "exclude" and not rule.vms]
        self.headroom = [rule for rule in self.rules if rule.kind == "headroom"]
        self.charged = _charged(Same(cluster.vms))
        for vm, host in cluster.placement.items():
            if vm in self.charged:
                self.residents.setdefault(host, []).append(vm)
        for vm, target in cluster.flights.items():
            if vm in self.charged and vm in cluster.placement:
                self.residents.setdefault(target, []).append(vm)
        for move in self.plan.moves:
            self.entering.setdefault(move.target, []).append(move)
            self.moves_of.setdefault(move.vm, []).append(move)
        for host, vms in self.residents.items():
            self.staying[host] = [vm for vm in vms if vm not in self.moves_of]
            self.going[host] = [vm for vm in vms if vm in self.moves_of]
        for rule in self.rules:
            for vm in meant(self.moves_of, rule.vms):
                self.rules_of.setdefault(vm, []).append(rule)

    def is_charged(self, vm: str) -> bool:
        """Whether a VM costs its host anything."""
        return vm in self.charged

    def fault(self, number: int, text: str) -> None:
        """Something is wrong with an action."""
        self.violations.append(f"action {number}: {text}")

    def is_before(self, earlier: int, later: int) -> bool:
        """Whether an action surely is done before another starts."""
        return bool(self.before.get(later, 0) >> earlier & 1)

    def together_with(self, move: Move, inside: Inside, hosts: Iterable[str]) -> set[str]:
        """VMs that can be in the hosts' domain while the move's VM is there, itself left out."""
        stay = {vm for host in hosts for vm in self.staying.get(host, ())}
        return stay | self.passing(move, inside, hosts)

    def passing(self, move: Move, inside: Inside, hosts: Iterable[str]) -> set[str]:
        """Of those the ones that the plan moves, now or at some time."""
        there = set()
        for host in hosts:
            for vm in self.going.get(host, ()):
                if not self.has_left(vm, move, inside, first=0):
                    there.add(vm)
            for entry in self.entering.get(host, ()):
                # What enters only after this move is done is charged at its own turn.
                if self.is_before(move.number, entry.number) or not self.is_charged(entry.vm):
                    continue
                if not self.has_left(entry.vm, move, inside, first=entry.number):
                    there.add(entry.vm)
        return there - {move.vm}

    def has_left(self, vm: str, move: Move, inside: Inside, first: int) -> bool:
        """Whether a VM that came with action `first` is surely gone when the move starts."""
        leaves = self.moves_of.get(vm, ())
        if not leaves or leaves[-1].number <= first:
            return False
        return any(
            leave.number > first
            and inside(leave.source)
            and not inside(leave.target)
            and self.is_before(leave.number, move.number)
            for leave in leaves
        )

    def hosts_beside(self, host: str, rule: ConstraintRule) -> set[str]:
        """The hosts of a host's domain, itself included."""
        if rule.scope == "host" and rule.kind != "one-of":
            return {host}
        about = (rule.scope, rule.hosts)
        if about not in self._domains:
            found: dict[str, set[str]] = {}
            for name in self.snapshot.cluster.hosts:
                found.setdefault(self.domain(name, rule), set()).add(name)
            self._domains[about] = found
        return self._domains[about][self.domain(host, rule)]

    def domain(self, host: str, rule: ConstraintRule) -> str:
        """The host itself, its rack, or the first group of hosts that a rule names it in."""
        if rule.kind == "one-of":
            groups = [glob for glob in rule.hosts if matches(host, (glob,))]
            return groups[0] if groups else f"host {host}"
        rack = self.snapshot.cluster.hosts[host].rack
        return f"rack {rack}" if rule.scope == "rack" and rack else host
