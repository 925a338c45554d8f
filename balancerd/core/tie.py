"""What ties a VM to the host it is on, by its own state and definition."""

from balancerd.core.model import VM, Exclusion, ExclusionKind, VMState
from balancerd.core.tags import unreadable


def tie(vm: VM) -> Exclusion | None:
    """The first reason why a VM cannot be moved, whatever the target; None if there is none."""
    if vm.state is not VMState.RUNNING:
        return Exclusion(vm.name, ExclusionKind.NOT_RUNNING, f"it is {vm.state}")
    if vm.owner:
        return Exclusion(vm.name, ExclusionKind.OTHER_OWNER, f"managed by {vm.owner}")
    if vm.host_devices:
        return Exclusion(vm.name, ExclusionKind.HOST_DEVICE, ", ".join(vm.host_devices))
    if not vm.disks and not vm.tags:
        return None
    local = [disk.source for disk in vm.disks if not disk.shared]
    if local:
        return Exclusion(vm.name, ExclusionKind.LOCAL_STORAGE, ", ".join(local))
    unsafe = [disk.source for disk in vm.disks if not disk.safe_cache]
    if unsafe:
        return Exclusion(vm.name, ExclusionKind.UNSAFE_CACHE, ", ".join(unsafe))
    complaint = unreadable(vm)
    if complaint:
        return Exclusion(vm.name, ExclusionKind.UNREADABLE_TAG, complaint)
    return None
