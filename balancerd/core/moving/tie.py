"""What ties a VM to the host it is on, by its own state and definition."""

from collections.abc import Mapping
from functools import lru_cache

from balancerd.core.model import ABSURD_BYTES, ABSURD_CORES, VM, Exclusion, ExclusionKind, VMState
from balancerd.core.policies.tags import unreadable
from balancerd.core.same import Same


@lru_cache(maxsize=2)
def ties(vms: Same[Mapping[str, VM]]) -> Mapping[str, Exclusion]:
    """The VMs that are tied to where they are, by name, each with its first reason."""
    return {name: reason for name, vm in vms.value.items() if (reason := tie(vm))}


def tie(vm: VM, *, running: bool = True) -> Exclusion | None:
    """The first reason why a VM cannot be moved, whatever the target and the policy; None if there
    is none. (Disks that only its host has can be copied, where the policy says so: `method`.)
    `running`: it has to run for that."""
    if running and vm.state is not VMState.RUNNING:
        return Exclusion(vm.name, ExclusionKind.NOT_RUNNING, f"it is {vm.state}")
    if not (0 <= vm.memory < ABSURD_BYTES and 0 <= vm.cpu < ABSURD_CORES and vm.vcpus > 0):
        detail = f"{vm.memory} bytes, {vm.vcpus} vCPUs, {vm.cpu:g} cores at most"
        return Exclusion(vm.name, ExclusionKind.ABSURD, detail)
    if vm.owner:
        return Exclusion(vm.name, ExclusionKind.OTHER_OWNER, f"managed by {vm.owner}")
    if vm.host_devices:
        return Exclusion(vm.name, ExclusionKind.HOST_DEVICE, ", ".join(vm.host_devices))
    if vm.snapshots:
        return Exclusion(vm.name, ExclusionKind.SNAPSHOTS, "libvirt moves no VM that has snapshots")
    unsafe = [disk.source for disk in vm.disks if not disk.safe_cache]
    if unsafe:
        return Exclusion(vm.name, ExclusionKind.UNSAFE_CACHE, ", ".join(unsafe))
    complaint = unreadable(vm) if vm.tags else ""
    if complaint:
        return Exclusion(vm.name, ExclusionKind.UNREADABLE_TAG, complaint)
    return None
