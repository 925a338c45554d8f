"""What breaks a rule: the definition, slow and obvious. Shares no code with the fast form."""

from dataclasses import dataclass

from balancerd.core.model import Cluster, PowerState, Snapshot, VMState
from balancerd.core.policy import ConstraintRule, Policy, matches
from balancerd.core.units import format_size

GONE = (VMState.SHUTOFF, VMState.MIGRATED, VMState.CRASHED)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: which one, about what, and the numbers (which do not tell two apart)."""

    constraint: str
    subject: str
    detail: str

    @property
    def key(self) -> tuple[str, str]:
        """Equal for one broken rule seen twice, though its numbers may differ."""
        return self.constraint, self.subject


def violations(snapshot: Snapshot, policy: Policy) -> tuple[Violation, ...]:
    """Every rule that the site breaks as observed; VMs under way count on both hosts."""
    found: list[Violation] = []
    for host in sorted(snapshot.cluster.hosts):
        found += _memory(snapshot, policy, host)
        found += _vcpus(snapshot, policy, host)
        found += _power(snapshot.cluster, host)
    for index, rule in enumerate(policy.constraint):
        name = rule.name or f"constraint[{index}]"
        found += _RULES[rule.kind](snapshot.cluster, rule, name)
    return tuple(found)


def _charged(cluster: Cluster, host: str) -> list[str]:
    return [vm for vm in cluster.on(host) if cluster.vms[vm].state not in GONE]


def _memory(snapshot: Snapshot, policy: Policy, host: str) -> list[Violation]:
    if not policy.capacity.enforce_memory:
        return []
    cluster, capacity = snapshot.cluster, policy.capacity
    size = cluster.hosts[host].memory
    room = size - max(capacity.memory_reserve, capacity.memory_reserve_share * size)
    vms = _charged(cluster, host)
    used = snapshot.overhead.get(host, (0.0, 0))[1] + sum(cluster.vms[vm].memory for vm in vms)
    if not vms or used <= room:
        return []
    return [Violation("memory", host, f"{format_size(used)} of {format_size(room)}")]


def _vcpus(snapshot: Snapshot, policy: Policy, host: str) -> list[Violation]:
    cluster = snapshot.cluster
    cores = cluster.hosts[host].cores or cluster.hosts[host].cpu
    used = sum(cluster.vms[vm].vcpus for vm in _charged(cluster, host))
    if used <= cores * policy.capacity.cpu_overcommit:
        return []
    return [Violation("vCPUs", host, f"{used} on {cores:g} cores")]


def _power(cluster: Cluster, host: str) -> list[Violation]:
    if cluster.hosts[host].power in (PowerState.ON, PowerState.UNKNOWN):
        return []
    return [
        Violation("power", vm, f"on {host}, which is {cluster.hosts[host].power}")
        for vm in _charged(cluster, host)
    ]


def _places(cluster: Cluster, vm: str) -> set[str]:
    """The hosts that a VM is charged to."""
    return {cluster.placement[vm], cluster.flights.get(vm, cluster.placement[vm])}


def _members(cluster: Cluster, rule: ConstraintRule) -> list[str]:
    return [
        vm
        for vm in sorted(cluster.vms)
        if matches(vm, rule.vms)
        and cluster.vms[vm].state not in GONE
        and cluster.placement.get(vm) in cluster.hosts
    ]


def _domain(cluster: Cluster, host: str, scope: str) -> str:
    rack = cluster.hosts[host].rack if host in cluster.hosts else ""
    return f"rack {rack}" if scope == "rack" and rack else f"host {host}"


def _domains(cluster: Cluster, vm: str, scope: str) -> set[str]:
    return {_domain(cluster, host, scope) for host in _places(cluster, vm)}


def _apart(cluster: Cluster, rule: ConstraintRule, name: str) -> list[Violation]:
    members = _members(cluster, rule)
    return [
        Violation("apart", f"{name}: {a}, {b}", "share " + ", ".join(sorted(shared)))
        for index, a in enumerate(members)
        for b in members[index + 1 :]
        if (shared := _domains(cluster, a, rule.scope) & _domains(cluster, b, rule.scope))
    ]


def _together(cluster: Cluster, rule: ConstraintRule, name: str) -> list[Violation]:
    """A VM under way counts where it is going: a group may move, one member after the other."""
    ends = {
        _domain(cluster, cluster.flights.get(vm, cluster.placement[vm]), rule.scope)
        for vm in _members(cluster, rule)
    }
    if len(ends) < 2:
        return []
    return [Violation("together", name, "spread over " + ", ".join(sorted(ends)))]


def _pin(cluster: Cluster, rule: ConstraintRule, name: str) -> list[Violation]:
    return [
        Violation("pin", f"{name}: {vm}", f"is on {host}")
        for vm in _members(cluster, rule)
        for host in sorted(_places(cluster, vm))
        if not matches(host, rule.hosts)
    ]


def _avoid(cluster: Cluster, rule: ConstraintRule, name: str) -> list[Violation]:
    return [
        Violation("avoid", f"{name}: {vm}", f"is on {host}")
        for vm in _members(cluster, rule)
        for host in sorted(_places(cluster, vm))
        if matches(host, rule.hosts)
    ]


def _exclude(_cluster: Cluster, _rule: ConstraintRule, _name: str) -> list[Violation]:
    """An exclusion is about moving, not about where things are: no placement breaks it."""
    return []


_RULES = {
    "apart": _apart,
    "together": _together,
    "pin": _pin,
    "avoid": _avoid,
    "exclude": _exclude,
}
