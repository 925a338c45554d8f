"""What keeps a VM that is shut off from following its host's drain: a cold move.

It costs its hosts nothing, so room is not asked for; but where it could never be started, or may
not be, it does not go.
"""

from balancerd.core.model import VM, ExclusionKind, VMState
from balancerd.core.moving.tie import tie
from balancerd.core.past.breakers import Breakers, State
from balancerd.core.past.objections import Objections
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.needs import lacks, needs_of
from balancerd.core.placing.pools import pool_of
from balancerd.core.plan import Refusal
from balancerd.core.policies.rule import ConstraintRule, matches
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.units import format_size


def stays(layout: Layout, vm: VM) -> Refusal | None:
    """Why a VM that is shut off stays, whatever the target; None if it may follow a drain."""
    snapshot = layout.snapshot
    source = snapshot.cluster.placement.get(vm.name, "")
    if vm.state is not VMState.SHUTOFF:
        return Refusal(vm.name, "", "not shut off", f"it is {vm.state}")
    if source not in snapshot.draining or source not in layout.host_row:
        return Refusal(vm.name, "", "not draining", f"nothing asks it to leave {source}")
    if not layout.gives[layout.host_row[source]]:
        return Refusal(vm.name, "", "host closed", f"{source} gives no VMs now")
    unknown = min(snapshot.unknown_hosts(), default="")
    if unknown:
        detail = f"it may run on {unknown}, which is not known"
        return Refusal(vm.name, "", ExclusionKind.HOST_GAP, detail)
    if vm.name in snapshot.cluster.flights:
        return Refusal(vm.name, "", "under way", "it is on its way already")
    return _bound(layout, vm)


def _bound(layout: Layout, vm: VM) -> Refusal | None:
    if not layout.policy.methods.cold:
        return Refusal(vm.name, "", "method", "shut-off VMs stay", "set methods.cold")
    if not vm.persistent:
        return Refusal(vm.name, "", "method", "it has no definition that could be moved")
    if vm.left_behind:
        return Refusal(vm.name, "", "method", f"it would leave behind {', '.join(vm.left_behind)}")
    local = [disk.source for disk in vm.disks if not disk.shared]
    if local:
        return Refusal(vm.name, "", ExclusionKind.LOCAL_STORAGE, ", ".join(local))
    told = (e for e in layout.snapshot.exclusions if e.vm == vm.name)
    other = next((e for e in told if e.kind is not ExclusionKind.NOT_RUNNING), None)
    other = other or tie(vm, running=False)
    return Refusal(vm.name, "", str(other.kind), other.detail) if other else None


def refuses_cold(
    layout: Layout, vm: VM, target: str, halted: Breakers, objected: Objections
) -> Refusal | None:
    """Why a host is not for a VM that is shut off; None if it is."""
    cluster, row = layout.snapshot.cluster, layout.host_row.get(target)
    source = cluster.placement[vm.name]
    if row is None or target == source or not layout.receives[row]:
        return Refusal(vm.name, target, "host closed", f"{target} takes no VMs")
    lacking = lacks(cluster.hosts[target], needs_of([vm], cluster.hosts[source]))
    if lacking:
        return Refusal(vm.name, target, "not reachable", f"{target} does not have {lacking}")
    if vm.memory > layout.memory_capacity[row]:
        detail = f"{target} could never start it with {format_size(vm.memory)}"
        return Refusal(vm.name, target, "memory", detail)
    for pages in vm.huge_pages:
        if pages.memory > pool_of(cluster.hosts[target], pages.size):
            detail = f"{target} could never start it with {format_size(pages.memory)} in huge pages"
            return Refusal(vm.name, target, "huge pages", detail)
    rules = rules_in_force(cluster, layout.policy)
    rule = next((rule for rule in rules if _forbids(rule, vm.name, source, target)), None)
    if rule is not None:
        return Refusal(vm.name, target, rule.kind, rule.name)
    if any(one.state is State.OPEN for one in halted.of(vm.name, source, target)):
        return Refusal(vm.name, target, "back-off", "moves like it came to nothing")
    said = objected.moves.get((vm.name, target))
    if said is not None:
        return Refusal(vm.name, target, "objection", str(said))
    return None


def _forbids(rule: ConstraintRule, vm: str, source: str, target: str) -> bool:
    """Whether a hard rule about places speaks against it."""
    if rule.weight is not None or (rule.vms and not matches(vm, rule.vms)):
        return False
    if rule.kind == "exclude":
        return not rule.hosts or any(matches(host, rule.hosts) for host in (source, target))
    if rule.kind == "avoid":
        return matches(target, rule.hosts)
    return rule.kind in ("pin", "one-of") and not matches(target, rule.hosts)
