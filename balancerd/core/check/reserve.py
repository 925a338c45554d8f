"""Whether a host that goes to sleep would be missed, should another one fail.

A fault is only what is certain: that some VM of a host would fit on none of the others, or that
all of its VMs together are more than all of the others have free. Up to their whole capacity.
"""

from collections.abc import Collection

from balancerd.core.check.capacity import demand
from balancerd.core.check.replay import Replay
from balancerd.core.check.rules import lacking
from balancerd.core.model import VM, PowerState
from balancerd.core.plan import Sleep
from balancerd.core.policies.rule import matches


def check_reserve(replay: Replay) -> None:
    """With a reserve, no VM is left without a host by the sleeps if its own should fail."""
    sleeps = [action for action in replay.plan.actions if isinstance(action, Sleep)]
    if not sleeps or not replay.policy.power.reserve:
        return
    hosts, unknown = replay.snapshot.cluster.hosts, replay.snapshot.unknown_hosts()
    out = unknown | replay.snapshot.draining
    on = {n for n, host in hosts.items() if host.power is PowerState.ON and n not in out}
    left = on - {sleep.host for sleep in sleeps}
    vms = _vms_at_end(replay)
    free = {name: _free(replay, name, vms.get(name, [])) for name in on}
    for name in sorted(left & vms.keys()):
        stranded = _stranded(replay, vms[name], left - {name}, free)
        if stranded and not _stranded(replay, vms[name], on - {name}, free):
            text = f"should {name} fail, {stranded} would find no room on the hosts left on"
            replay.fault(sleeps[0].number, text)


def _vms_at_end(replay: Replay) -> dict[str, list[VM]]:
    """The VMs on each host once the plan is done."""
    cluster = replay.snapshot.cluster
    end = dict(cluster.placement) | dict(cluster.flights)
    end |= {move.vm: move.target for move in replay.plan.moves}
    vms: dict[str, list[VM]] = {}
    for name in sorted(end):
        if replay.is_charged(name):
            vms.setdefault(end[name], []).append(cluster.vms[name])
    return vms


def _free(replay: Replay, name: str, vms: Collection[VM]) -> tuple[float, float]:
    """CPU and memory that a host has beyond what is on it."""
    capacity, host = replay.policy.capacity, replay.snapshot.cluster.hosts[name]
    cpu, memory = replay.snapshot.overhead.get(name, (0.0, 0))
    cpu = host.cpu - cpu - sum(_cpu(replay, vm) for vm in vms)
    if not capacity.enforce_memory:
        return cpu, float("inf")
    reserve = max(capacity.memory_reserve, capacity.memory_reserve_share * host.memory)
    return cpu, host.memory - reserve - memory - sum(vm.memory for vm in vms)


def _cpu(replay: Replay, vm: VM) -> float:
    return demand(replay, vm.name)[0]


def _stranded(
    replay: Replay, vms: Collection[VM], others: set[str], free: dict[str, tuple[float, float]]
) -> str:
    """A VM that fits on none of the others, or all of them if they are too much; "" for neither."""
    counted = [vm for vm in vms if not vm.host_devices and all(disk.shared for disk in vm.disks)]
    for vm in counted:
        if not any(
            free[host][0] >= _cpu(replay, vm)
            and free[host][1] >= vm.memory
            and _may_be(replay, vm, host)
            for host in others
        ):
            return vm.name
    cpu = sum(max(0.0, free[host][0]) for host in others)
    memory = sum(max(0.0, free[host][1]) for host in others)
    is_much = sum(_cpu(replay, vm) for vm in counted) > cpu
    return "its VMs" if is_much or sum(vm.memory for vm in counted) > memory else ""


def _may_be(replay: Replay, vm: VM, host: str) -> bool:
    """Whether no rule keeps a VM off a host, which has what it needs."""
    cluster = replay.snapshot.cluster
    target = cluster.hosts[host]
    # It may come from a host that went, or from nobody knows where.
    home = cluster.hosts.get(cluster.placement.get(vm.name, ""), target)
    return not lacking(vm, home, target) and all(
        matches(host, rule.hosts) == (rule.kind != "avoid")
        for rule in replay.rules
        if rule.kind in ("pin", "avoid", "one-of") and rule.weight is None
        if matches(vm.name, rule.vms)
    )
