"""What somebody else did to VMs, seen by comparing what is with what was.

An operator's own `virsh` is a word about a VM that outranks any plan: what he moved, paused or shut
off is left alone for a while. Where one of the hosts was not seen, before or now, nothing is known
and nothing is concluded.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from balancerd.core.model import Cluster, Snapshot, VMState
from balancerd.core.plain import as_dict

DEED = "veto"  # the kind of its line in the audit
_STOPPED = {VMState.PAUSED: "paused", VMState.SHUTOFF: "shut off"}


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that was done to a VM, and not by balancerd."""

    vm: str
    what: str  # as in "moved from h1 to h3"
    at: float  # when it was seen


def deeds(before: Snapshot, after: Snapshot, own: Collection[str]) -> tuple[Deed, ...]:
    """What others did between two snapshots; `own` are the VMs that balancerd itself moved."""
    unseen = before.unknown_hosts() | after.unknown_hosts()
    return tuple(
        Deed(vm, what, after.at)
        for vm in sorted(_altered(before.cluster, after.cluster))
        if vm not in own
        for what in _of(vm, before, after, unseen)
    )


def _altered(old: Cluster, new: Cluster) -> set[str]:
    """VMs of both that are not as or where they were, or are on their way."""
    found = set(new.flights)
    if new.placement is not old.placement:
        was = as_dict(old.placement)
        found |= {vm for vm, host in new.placement.items() if was.get(vm) != host}
    if new.vms is not old.vms:
        known = as_dict(old.vms)
        found |= {name for name, vm in new.vms.items() if known.get(name) is not vm}
    return found & new.vms.keys() & old.vms.keys()


def _of(vm: str, before: Snapshot, after: Snapshot, unseen: Collection[str]) -> Iterator[str]:
    was, here = before.cluster.placement.get(vm, ""), after.cluster.placement.get(vm, "")
    if not was or not here or was in unseen or here in unseen:
        return
    target = after.cluster.flights.get(vm)
    if target is not None and target not in unseen and vm not in before.cluster.flights:
        yield f"began to move from {here} to {target}"
    if before.cluster.vms[vm].state is not VMState.RUNNING:
        return
    state = after.cluster.vms[vm].state
    if state is VMState.RUNNING and was != here:
        yield f"moved from {was} to {here}"
    if state in _STOPPED and was == here:
        yield f"{_STOPPED[state]} on {here}"
