"""What ties a VM to the host it is on, by its own state and definition."""

from operator import attrgetter

from balancerd.core.model import VM, Exclusion, ExclusionKind, VMState
from balancerd.core.tags import unreadable

_DISKS = (
    (ExclusionKind.LOCAL_STORAGE, attrgetter("shared")),
    (ExclusionKind.UNSAFE_CACHE, attrgetter("safe_cache")),
)


def tie(vm: VM) -> Exclusion | None:
    """The first reason why a VM cannot be moved, whatever the target; None if there is none."""
    if vm.state is not VMState.RUNNING:
        return Exclusion(vm.name, ExclusionKind.NOT_RUNNING, f"it is {vm.state}")
    if vm.owner:
        return Exclusion(vm.name, ExclusionKind.OTHER_OWNER, f"managed by {vm.owner}")
    if vm.host_devices:
        return Exclusion(vm.name, ExclusionKind.HOST_DEVICE, ", ".join(vm.host_devices))
    for kind, untied in _DISKS:
        if not all(map(untied, vm.disks)):
            wrong = [disk.source for disk in vm.disks if not untied(disk)]
            return Exclusion(vm.name, kind, ", ".join(wrong))
    complaint = unreadable(vm) if vm.tags else ""
    if complaint:
        return Exclusion(vm.name, ExclusionKind.UNREADABLE_TAG, complaint)
    return None
