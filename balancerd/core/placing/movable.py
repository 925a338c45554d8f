"""Which VMs may not be moved at all, whatever the target, and why."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter

from balancerd.core.columns import loads_of, rows_where
from balancerd.core.model import VM, Cluster, ExclusionKind, Snapshot
from balancerd.core.moving.method import UNSAMPLED, way_of
from balancerd.core.moving.tie import ties
from balancerd.core.outcome import Outcome
from balancerd.core.past.breakers import Scope, State, breaker
from balancerd.core.past.history import WEEK, History, PastMove, rests_until
from balancerd.core.plan import Refusal
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, meant
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.same import Same
from balancerd.core.units import DAY, format_duration, format_time


def fixed_vms(
    snapshot: Snapshot, policy: Policy, history: History, now: float
) -> dict[str, Refusal]:
    """The VMs that stay where they are, each with the first reason found."""
    cluster = snapshot.cluster
    reasons = {
        exclusion.vm: _never(
            exclusion.vm, exclusion.kind, exclusion.detail, _REMEDIES.get(exclusion.kind, "")
        )
        for exclusion in snapshot.exclusions
    }
    unknown = snapshot.unknown_hosts()
    excluded = _excluded(cluster, rules_in_force(cluster, policy))
    gaps = {gap.name: gap for gap in snapshot.gaps if gap.subject == "vm"}
    resting = _resting(snapshot, policy, history, now)
    vetoed = _vetoed(snapshot, policy, history, now)
    tied = ties(Same(cluster.vms))
    away = {name for name, host in cluster.placement.items() if host in unknown} if unknown else ()
    stuck = _by_no_method(snapshot, policy)
    suspects = {*cluster.flights, *away, *gaps, *tied, *stuck, *excluded, *vetoed, *resting}
    for name in sorted(suspects & cluster.vms.keys() - reasons.keys()):
        if name in cluster.flights:
            reasons[name] = _never(name, "under way", f"on its way to {cluster.flights[name]}")
        elif name in away:
            host = cluster.placement[name]
            reasons[name] = _never(name, ExclusionKind.HOST_GAP, f"{host} is not known")
        elif name in gaps:
            reasons[name] = _never(name, ExclusionKind.NO_STATS, gaps[name].detail)
        elif name in tied:
            kind = tied[name].kind
            reasons[name] = _never(name, kind, tied[name].detail, _REMEDIES.get(kind, ""))
        else:
            reason = stuck.get(name) or excluded.get(name) or vetoed.get(name) or resting.get(name)
            assert reason is not None  # it is suspected of one of them
            reasons[name] = reason
    return reasons


def _never(vm: str, constraint: str, detail: str, remedy: str = "") -> Refusal:
    return Refusal(vm, "", str(constraint), detail, remedy)


def _by_no_method(snapshot: Snapshot, policy: Policy) -> dict[str, Refusal]:
    """VMs that no method which the policy allows can move."""
    vms, loads = snapshot.cluster.vms, loads_of(snapshot)
    rate = float(policy.limits.bandwidth)
    least = rate if policy.limits.downtime else UNSAMPLED * rate
    rows = rows_where(loads.dirty_rate >= least)
    writing = {loads.names[row] for row in rows.tolist()} & vms.keys()
    ways = {name: way_of(vms[name], loads.get(name), policy, rate) for name in writing}
    return {
        **_bound_by_disks(Same(vms), Same(policy)),
        **{name: way for name, way in ways.items() if isinstance(way, Refusal)},
    }


@lru_cache(maxsize=2)
def _bound_by_disks(vms: Same[Mapping[str, VM]], policy: Same[Policy]) -> Mapping[str, Refusal]:
    """VMs with local disks that the policy lets nobody copy. The memory of a VM that writes less of
    it than can be sent comes to an end by pre-copy, if there may be a pause at all."""
    shared, rate = attrgetter("shared"), float(policy.value.limits.bandwidth)
    local = (vm for vm in vms.value.values() if not all(map(shared, vm.disks)))
    ways = {vm.name: way_of(vm, None, policy.value, rate) for vm in local}
    return {name: way for name, way in ways.items() if isinstance(way, Refusal)}


_REMEDIES = {
    ExclusionKind.SNAPSHOTS: "delete its snapshots",
    ExclusionKind.UNSAFE_CACHE: "set the disk's cache to none",
    ExclusionKind.UNREADABLE_TAG: "mend the VM's metadata",
}


def _excluded(cluster: Cluster, rules: Sequence[ConstraintRule]) -> dict[str, Refusal]:
    """What `exclude` rules say of VMs, or of VMs on some hosts; the first rule counts."""
    excluded: dict[str, Refusal] = {}
    for rule in rules:
        if rule.kind != "exclude":
            continue
        hosts = set(meant(cluster.hosts, rule.hosts)) if rule.hosts else cluster.hosts.keys()
        for vm in meant(cluster.vms, rule.vms) if rule.vms else sorted(cluster.vms):
            if not rule.hosts or cluster.placement.get(vm) in hosts:
                excluded.setdefault(vm, _never(vm, "exclude", rule.name))
    return excluded


def _resting(
    snapshot: Snapshot, policy: Policy, history: History, now: float
) -> Mapping[str, Refusal]:
    """VMs in cool-down or at the end of their budget.

    A host being drained asks for neither, but a VM that would not leave it rests all the same.
    """
    resting: dict[str, Refusal] = {}
    for vm, past in felt(Same(history), now, Same(policy.limits)).items():
        drained = snapshot.cluster.placement.get(vm) in snapshot.draining
        moves = _failures_in_a_row(past) if drained else past
        until = rests_until(moves, policy.limits)
        week = sum(move.at > now - WEEK and move.outcome is Outcome.DONE for move in moves)
        today = sum(move.at > now - DAY and move.outcome is Outcome.DONE for move in moves)
        if until > now:
            detail = f"rests until {format_time(round(until))}, {format_duration(until - now)} more"
            resting[vm] = _never(vm, "cool-down", detail)
        elif (halted := breaker(Scope.VM, moves, policy.limits, now)).state is State.OPEN:
            said = f": {past[-1].detail}" if past[-1].detail else ""
            detail = f"came to nothing {halted.failures} times in a row{said}; rests until "
            resting[vm] = _never(vm, "back-off", detail + format_time(round(halted.until)))
        elif week >= policy.limits.per_vm_per_week:
            detail = f"moved {week} times in 7 days, at most {policy.limits.per_vm_per_week}"
            resting[vm] = _never(vm, "budget", detail, "raise limits.per_vm_per_week")
        elif today >= policy.limits.per_vm_per_day:
            detail = f"moved {today} times in 24 h, at most {policy.limits.per_vm_per_day}"
            resting[vm] = _never(vm, "budget", detail, "raise limits.per_vm_per_day")
    return resting


@lru_cache(maxsize=1)
def felt(history: Same[History], now: float, limits: Same[Limits]) -> Mapping[str, list[PastMove]]:
    """The moves of each VM that may still be felt, oldest first."""
    return history.value.felt(now, limits.value)


def _vetoed(
    snapshot: Snapshot, policy: Policy, history: History, now: float
) -> Mapping[str, Refusal]:
    """VMs that somebody else has laid hands on. Who drains a host means its VMs nevertheless."""
    vetoed: dict[str, Refusal] = {}
    for vm, deed in history.deeds.items():
        until = deed.at + policy.limits.veto
        if until > now and snapshot.cluster.placement.get(vm) not in snapshot.draining:
            detail = f"somebody {deed.what}; left alone until {format_time(round(until))}"
            vetoed[vm] = _never(vm, ExclusionKind.VETO, detail)
    return vetoed


def _failures_in_a_row(moves: list[PastMove]) -> list[PastMove]:
    """The newest moves, back to the last one that was done."""
    done = [index for index, move in enumerate(moves) if move.outcome is Outcome.DONE]
    return moves[done[-1] + 1 :] if done else moves
