"""Rules that no placement can keep, found before planning and named."""

from itertools import combinations

from balancerd.core.model import Cluster
from balancerd.core.plan import Refusal
from balancerd.core.policy import ConstraintRule, Policy, matches, meant


def contradictions(cluster: Cluster, policy: Policy) -> tuple[Refusal, ...]:
    """Each rule, or pair of rules, that cannot be kept on this site, as a refusal of its VMs."""
    named = [
        (rule.name or f"constraint[{index}]", rule) for index, rule in enumerate(policy.constraint)
    ]
    found = [
        refusal
        for name, rule in named
        for refusal in (_missing_hosts(cluster, name, rule), _crowded(cluster, name, rule))
        if refusal
    ]
    found += _nowhere(cluster, named)
    groups = [(name, rule) for name, rule in named if rule.kind in ("apart", "together")]
    for (a_name, a), (b_name, b) in combinations(groups, 2):
        found += _opposed(cluster, a_name, a, b_name, b)
    return tuple(found)


def _contradiction(vm: str, detail: str) -> Refusal:
    return Refusal(vm, "", "contradiction", detail, "change one of the rules")


def _members(cluster: Cluster, rule: ConstraintRule) -> list[str]:
    return meant(cluster.vms, rule.vms)


def _missing_hosts(cluster: Cluster, name: str, rule: ConstraintRule) -> Refusal | None:
    """A rule about hosts of which there are none says nothing, which cannot have been meant."""
    if not rule.hosts or any(matches(host, rule.hosts) for host in cluster.hosts):
        return None
    return _contradiction("", f"{name}: no host is called {', '.join(rule.hosts)}")


def _crowded(cluster: Cluster, name: str, rule: ConstraintRule) -> Refusal | None:
    """More VMs to keep apart than there are hosts or racks."""
    if rule.kind != "apart":
        return None
    members = _members(cluster, rule)
    racks = {host.rack or f"host {host.name}" for host in cluster.hosts.values()}
    places = len(cluster.hosts if rule.scope == "host" else racks)
    if len(members) <= places:
        return None
    return _contradiction(
        members[0], f"{name}: {len(members)} VMs to keep apart, {places} {rule.scope}s"
    )


def _nowhere(cluster: Cluster, named: list[tuple[str, ConstraintRule]]) -> list[Refusal]:
    """VMs whose pins and avoidances leave no host."""
    about: dict[str, list[tuple[str, ConstraintRule]]] = {}
    for name, rule in named:
        if rule.kind in ("pin", "avoid"):
            for vm in _members(cluster, rule):
                about.setdefault(vm, []).append((name, rule))
    found = []
    for vm, mine in sorted(about.items()):
        if not any(
            all(matches(host, rule.hosts) == (rule.kind == "pin") for _, rule in mine)
            for host in cluster.hosts
        ):
            names = ", ".join(name for name, _ in mine)
            found.append(_contradiction(vm, f"{names}: together they leave {vm} no host"))
    return found


def _opposed(
    cluster: Cluster, a_name: str, a: ConstraintRule, b_name: str, b: ConstraintRule
) -> list[Refusal]:
    """VMs that one rule keeps together and another apart."""
    if {a.kind, b.kind} != {"apart", "together"}:
        return []
    together, apart = (a, b) if a.kind == "together" else (b, a)
    if together.scope == "rack" and apart.scope == "host":
        return []
    both = sorted(set(_members(cluster, a)) & set(_members(cluster, b)))
    if len(both) < 2:
        return []
    detail = f"{a_name} and {b_name}: {', '.join(both)} both together and apart"
    return [_contradiction(vm, detail) for vm in both]
