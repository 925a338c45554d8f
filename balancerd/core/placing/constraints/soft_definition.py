"""What breaks a soft rule and what that costs: the definition, slow and obvious."""

from dataclasses import dataclass

from balancerd.core.model import Cluster, Snapshot
from balancerd.core.placing.constraints.definition import crowds_of, ends_of, members_of
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, matches
from balancerd.core.policies.tags import rules_in_force


@dataclass(frozen=True, slots=True)
class SoftBreak:
    """A soft rule that is broken: which one, about what, and what that costs."""

    constraint: str
    subject: str
    detail: str
    cost: float


def soft_breaks(snapshot: Snapshot, policy: Policy) -> tuple[SoftBreak, ...]:
    """Every soft rule that the site breaks as observed, with what it costs.

    Each VM on a wrong host costs the rule's weight, and so does each one of too many in a domain.
    Of VMs that want to be together, each pair that is not costs a share of it, such that one VM
    away from all the others costs the weight.
    """
    return tuple(
        SoftBreak(rule.kind, f"{rule.name}: {subject}", detail, rule.weight * amount)
        for rule in rules_in_force(snapshot.cluster, policy)
        if rule.weight is not None
        for subject, detail, amount in _SOFT[rule.kind](snapshot.cluster, rule)
    )


Amounts = list[tuple[str, str, float]]  # about what, in words, and how much of the weight


def _rather_apart(cluster: Cluster, rule: ConstraintRule) -> Amounts:
    return [
        (domain, f"{len(vms)} of at most {rule.at_most}", float(len(vms) - rule.at_most))
        for domain, vms in sorted(crowds_of(cluster, rule).items())
        if len(vms) > rule.at_most
    ]


def _rather_together(cluster: Cluster, rule: ConstraintRule) -> Amounts:
    ends = list(ends_of(cluster, rule).values())
    pairs = sum(a != b for index, a in enumerate(ends) for b in ends[index + 1 :])
    if not pairs:
        return []
    spread = "spread over " + ", ".join(sorted(set(ends)))
    return [(f"{len(ends)} VMs", spread, pairs / (len(ends) - 1))]


def _rather_elsewhere(cluster: Cluster, rule: ConstraintRule) -> Amounts:
    """A VM under way counts where it is going."""
    ends = {vm: cluster.flights.get(vm, cluster.placement[vm]) for vm in members_of(cluster, rule)}
    return [
        (vm, f"is on {host}", 1.0)
        for vm, host in ends.items()
        if matches(host, rule.hosts) == (rule.kind == "avoid")
    ]


def _rather_one_of(cluster: Cluster, rule: ConstraintRule) -> Amounts:
    return _rather_elsewhere(cluster, rule) + _rather_together(cluster, rule)


_SOFT = {
    "apart": _rather_apart,
    "together": _rather_together,
    "pin": _rather_elsewhere,
    "avoid": _rather_elsewhere,
    "one-of": _rather_one_of,
}
