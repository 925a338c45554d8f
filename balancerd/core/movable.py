"""Which VMs may not be moved at all, whatever the target, and why."""

from collections.abc import Mapping, Sequence

from balancerd.core.history import History, Outcome, PastMove, rests_until
from balancerd.core.model import VM, ExclusionKind, Snapshot, VMState
from balancerd.core.plan import Refusal
from balancerd.core.policy import ConstraintRule, Policy, matches
from balancerd.core.units import DAY, format_duration, format_time


def fixed_vms(
    snapshot: Snapshot, policy: Policy, history: History, now: float
) -> dict[str, Refusal]:
    """The VMs that stay where they are, each with the first reason found."""
    cluster = snapshot.cluster
    reasons = {
        exclusion.vm: _never(exclusion.vm, exclusion.kind, exclusion.detail)
        for exclusion in snapshot.exclusions
    }
    unknown = snapshot.unknown_hosts()
    excludes = [rule for rule in policy.constraint if rule.kind == "exclude"]
    gaps = {gap.name: gap for gap in snapshot.gaps if gap.subject == "vm"}
    resting = _resting(snapshot, policy, history, now)
    for name, vm in cluster.vms.items():
        if name in reasons:
            continue
        host = cluster.placement.get(name, "")
        reason: Refusal | None
        if name in cluster.flights:
            reason = _never(name, "under way", f"on its way to {cluster.flights[name]}")
        elif host in unknown:
            reason = _never(name, ExclusionKind.HOST_GAP, f"{host} is not known")
        elif name in gaps:
            reason = _never(name, ExclusionKind.NO_STATS, gaps[name].detail)
        else:
            reason = _of_itself(vm) or _ruled(vm, host, excludes) or resting.get(name)
        if reason:
            reasons[name] = reason
    return reasons


def _never(vm: str, constraint: str, detail: str, remedy: str = "") -> Refusal:
    return Refusal(vm, "", str(constraint), detail, remedy)


def _of_itself(vm: VM) -> Refusal | None:
    """What the VM's own definition says."""
    if vm.state is not VMState.RUNNING:
        return _never(vm.name, ExclusionKind.NOT_RUNNING, f"it is {vm.state}")
    if vm.host_devices:
        return _never(vm.name, ExclusionKind.HOST_DEVICE, ", ".join(vm.host_devices))
    if vm.owner:
        return _never(vm.name, ExclusionKind.OTHER_OWNER, f"managed by {vm.owner}")
    for disk in vm.disks:
        if not disk.shared:
            return _never(vm.name, ExclusionKind.LOCAL_STORAGE, disk.source)
        if not disk.safe_cache:
            return _never(
                vm.name, ExclusionKind.UNSAFE_CACHE, disk.source, "set the disk's cache to none"
            )
    return None


def _ruled(vm: VM, host: str, excludes: Sequence[ConstraintRule]) -> Refusal | None:
    """What an `exclude` rule says of the VM, or of the VM on this host."""
    for rule in excludes:
        if rule.hosts and not matches(host, rule.hosts):
            continue
        if not rule.vms or matches(vm.name, rule.vms):
            return _never(vm.name, "exclude", rule.name or f"excluded on {host}")
    return None


def _resting(
    snapshot: Snapshot, policy: Policy, history: History, now: float
) -> Mapping[str, Refusal]:
    """VMs in cool-down or at the end of their budget.

    A host being drained asks for neither, but a VM that would not leave it rests all the same.
    """
    resting: dict[str, Refusal] = {}
    for vm, past in history.by_vm().items():
        drained = snapshot.cluster.placement.get(vm) in snapshot.draining
        moves = _failures_in_a_row(past) if drained else past
        until = rests_until(moves, policy.limits)
        today = sum(move.at > now - DAY and move.outcome is Outcome.DONE for move in moves)
        if until > now:
            detail = f"rests until {format_time(until)}, {format_duration(until - now)} more"
            resting[vm] = _never(vm, "cool-down", detail)
        elif today >= policy.limits.per_vm_per_day:
            detail = f"moved {today} times in 24 h, at most {policy.limits.per_vm_per_day}"
            resting[vm] = _never(vm, "budget", detail, "raise limits.per_vm_per_day")
    return resting


def _failures_in_a_row(moves: list[PastMove]) -> list[PastMove]:
    """The newest moves, back to the last one that was done."""
    done = [index for index, move in enumerate(moves) if move.outcome is Outcome.DONE]
    return moves[done[-1] + 1 :] if done else moves
