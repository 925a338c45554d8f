"""What breaks a rule: the definition, slow and obvious. Shares no code with the fast form."""

from collections import Counter
from dataclasses import dataclass

from balancerd.core.model import Cluster, PowerState, Snapshot, VMState
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, matches
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.units import format_size

ROUNDING = 1e-9
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
    """Every hard rule that the site breaks as observed; VMs under way count on both hosts."""
    found: list[Violation] = []
    rules = rules_in_force(snapshot.cluster, policy)
    for host in sorted(snapshot.cluster.hosts):
        found += _memory(snapshot, policy, host)
        found += _vcpus(snapshot, policy, host)
        found += _numa(snapshot, policy, host)
        found += _huge_pages(snapshot.cluster, host)
        found += _count(snapshot, policy, host)
        found += _power(snapshot.cluster, host)
        found += _headroom(snapshot, policy, host, rules)
    for rule in rules:
        if rule.weight is None:
            found += _RULES[rule.kind](snapshot.cluster, rule)
    return tuple(found)


def _charged(cluster: Cluster, host: str) -> list[str]:
    there = (vm for vm in cluster.on(host) if vm in cluster.vms)
    return [vm for vm in there if cluster.vms[vm].state not in GONE]


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


def _count(snapshot: Snapshot, policy: Policy, host: str) -> list[Violation]:
    most, count = policy.capacity.vms_per_host, len(_charged(snapshot.cluster, host))
    if most is None or count <= most:
        return []
    return [Violation("VMs", host, f"{count} of at most {most}")]


def _headroom(
    snapshot: Snapshot, policy: Policy, host: str, rules: tuple[ConstraintRule, ...]
) -> list[Violation]:
    """Memory charged, and CPU expected, beyond what a rule leaves of the host."""
    cluster, capacity = snapshot.cluster, policy.capacity
    value, vms = cluster.hosts[host], _charged(snapshot.cluster, host)
    cpu, memory = snapshot.overhead.get(host, (0.0, 0))
    cpu += sum(seen.cpu for vm in vms if (seen := snapshot.forecasts.get(vm)))
    memory += sum(cluster.vms[vm].memory for vm in vms)
    room = value.memory - max(capacity.memory_reserve, capacity.memory_reserve_share * value.memory)
    found = []
    for rule in rules:
        if rule.kind == "headroom" and rule.share and vms and matches(host, rule.hosts):
            left, subject = 1.0 - rule.share, f"{rule.name}: {host}"
            if capacity.enforce_memory and memory > left * room:
                detail = f"memory {format_size(memory)} of {format_size(left * room)}"
                found.append(Violation("headroom", f"{subject}, memory", detail))
            if cpu > left * value.cpu:
                detail = f"{cpu:.2f} of {left * value.cpu:.2f} cores expected"
                found.append(Violation("headroom", f"{subject}, CPU", detail))
    return found


def _numa(snapshot: Snapshot, policy: Policy, host: str) -> list[Violation]:
    """A node that is to hold more than it has of VMs that are bound to it."""
    cluster, value = snapshot.cluster, snapshot.cluster.hosts[host]
    vcpus, memory = [0.0] * len(value.numa), [0.0] * len(value.numa)
    for vm in _charged(cluster, host):
        for number in _nodes(cluster, vm, host):
            vcpus[number] += cluster.vms[vm].vcpus / len(cluster.vms[vm].numa)
            memory[number] += cluster.vms[vm].memory / len(cluster.vms[vm].numa)
    cores = (value.cores or value.cpu) * policy.capacity.cpu_overcommit
    reserve = max(
        policy.capacity.memory_reserve, policy.capacity.memory_reserve_share * value.memory
    )
    found = []
    for number, node in enumerate(value.numa):
        room = cores * node.cpu / sum(other.cpu for other in value.numa)
        if vcpus[number] > room * (1 + ROUNDING):
            told = f"{vcpus[number]:g} of {room:g} vCPUs"
            found.append(Violation("NUMA", f"{host} node {number} vCPUs", told))
        size = sum(other.memory for other in value.numa)
        room = (value.memory - reserve) * node.memory / size
        if policy.capacity.enforce_memory and memory[number] > room * (1 + ROUNDING):
            told = f"{format_size(memory[number])} of {format_size(room)}"
            found.append(Violation("NUMA", f"{host} node {number} memory", told))
    return found


def _huge_pages(cluster: Cluster, host: str) -> list[Violation]:
    """More in huge pages than the host has; those of no named size all have to be in one pool."""
    used = Counter[int]()
    for vm in _charged(cluster, host):
        for pages in cluster.vms[vm].huge_pages:
            used[pages.size] += max(0, pages.memory)
    pools = {pool.size: pool.memory for pool in cluster.hosts[host].huge_pages}
    pools[0] = max(pools.values(), default=0)
    return [
        Violation(
            "huge pages",
            f"{host}, {size}",
            f"{format_size(memory)} of {format_size(pools.get(size, 0))}",
        )
        for size, memory in sorted(used.items())
        if memory > pools.get(size, 0)
    ]


def _nodes(cluster: Cluster, vm: str, host: str) -> list[int]:
    """The nodes of the host that a VM is charged to: all of them where that is not known."""
    count = len(cluster.hosts[host].numa)
    if not cluster.vms[vm].numa:
        return []
    at_home = cluster.placement.get(vm) == host
    named = cluster.vms[vm].numa if at_home else cluster.landing.get(vm, ())
    return [node for node in named if node < count] or list(range(count))


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


def members_of(cluster: Cluster, rule: ConstraintRule) -> list[str]:
    """The VMs that a rule is about, of those that cost a host of the site anything."""
    return [
        vm
        for vm in sorted(cluster.vms)
        if matches(vm, rule.vms)
        and cluster.vms[vm].state not in GONE
        and cluster.placement.get(vm) in cluster.hosts
    ]


def _domain(cluster: Cluster, host: str, rule: ConstraintRule) -> str:
    """A rack, a group of hosts that the rule names (the first it is in), or the host itself."""
    rack = cluster.hosts[host].rack if host in cluster.hosts else ""
    if rule.scope == "rack" and rack:
        return f"rack {rack}"
    if rule.kind == "one-of":
        return next((f"group {glob}" for glob in rule.hosts if matches(host, (glob,))), host)
    return f"host {host}"


def _domains(cluster: Cluster, vm: str, rule: ConstraintRule) -> set[str]:
    return {_domain(cluster, host, rule) for host in _places(cluster, vm)}


def crowds_of(cluster: Cluster, rule: ConstraintRule) -> dict[str, list[str]]:
    """The members of an "apart" group in each domain."""
    crowds: dict[str, list[str]] = {}
    for vm in members_of(cluster, rule):
        for domain in sorted(_domains(cluster, vm, rule)):
            crowds.setdefault(domain, []).append(vm)
    return crowds


def _apart(cluster: Cluster, rule: ConstraintRule) -> list[Violation]:
    """Pairs that share a domain, or domains with more members than may be."""
    if rule.at_most > 1:
        return [
            Violation("apart", f"{rule.name}: {domain}", f"{len(vms)} of at most {rule.at_most}")
            for domain, vms in sorted(crowds_of(cluster, rule).items())
            if len(vms) > rule.at_most
        ]
    members = members_of(cluster, rule)
    return [
        Violation("apart", f"{rule.name}: {a}, {b}", "share " + ", ".join(sorted(shared)))
        for index, a in enumerate(members)
        for b in members[index + 1 :]
        if (shared := _domains(cluster, a, rule) & _domains(cluster, b, rule))
    ]


def ends_of(cluster: Cluster, rule: ConstraintRule) -> dict[str, str]:
    """The domain of each member; of one under way the one where it is going.

    So a group may move one member after the other.
    """
    return {
        vm: _domain(cluster, cluster.flights.get(vm, cluster.placement[vm]), rule)
        for vm in members_of(cluster, rule)
    }


def _together(cluster: Cluster, rule: ConstraintRule) -> list[Violation]:
    ends = set(ends_of(cluster, rule).values())
    if len(ends) < 2:
        return []
    return [Violation("together", rule.name, "spread over " + ", ".join(sorted(ends)))]


def _wrong(cluster: Cluster, rule: ConstraintRule) -> list[tuple[str, str]]:
    """VMs on hosts where a rule does not want them: not on those named, or just there."""
    return [
        (vm, host)
        for vm in members_of(cluster, rule)
        for host in sorted(_places(cluster, vm))
        if matches(host, rule.hosts) == (rule.kind == "avoid")
    ]


def _misplaced(cluster: Cluster, rule: ConstraintRule) -> list[Violation]:
    return [
        Violation(rule.kind, f"{rule.name}: {vm}", f"is on {host}")
        for vm, host in _wrong(cluster, rule)
    ]


def _one_of(cluster: Cluster, rule: ConstraintRule) -> list[Violation]:
    return _misplaced(cluster, rule) + _together(cluster, rule)


def _nothing(_cluster: Cluster, _rule: ConstraintRule) -> list[Violation]:
    """An exclusion is about moving and headroom about hosts: no placement of VMs breaks them."""
    return []


_RULES = {
    "apart": _apart,
    "together": _together,
    "pin": _misplaced,
    "avoid": _misplaced,
    "one-of": _one_of,
    "headroom": _nothing,
    "exclude": _nothing,
}
