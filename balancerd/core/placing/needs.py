"""What VMs need of a host beside room: its CPU, machine types, and the storage their disks lie on.

Storage is strict: a disk that lies on something shared needs a host that is known to reach it. So
is a CPU passed through. A machine type counts where both hosts list theirs, and whether a host can
offer a *named* CPU model depends on each of the VM's features: before a migration starts libvirt
compares both, and one that it refuses has done no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from balancerd.core.model import VM, Host

PASSTHROUGH = "host-passthrough"


@dataclass(frozen=True, slots=True)
class Needs:
    """Of a VM, or of several that go together. `same_cpu`: their host's CPU; None: any will do."""

    same_cpu: str | None = None
    machines: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()


NOTHING = Needs()


def needs_of(vms: Sequence[VM], home: Host) -> Needs:
    """What VMs on one host need of any other that they are to go to."""
    demanding = [vm for vm in vms if vm.cpu_model or vm.machine or vm.disks]
    if not demanding:
        return NOTHING
    storage = {place for vm in demanding for disk in vm.disks for place in disk.storage}
    return Needs(
        same_cpu=home.cpu_model if any(vm.cpu_model == PASSTHROUGH for vm in demanding) else None,
        machines=tuple(sorted({vm.machine for vm in demanding}.intersection(home.machines))),
        storage=tuple(sorted(storage)),
    )


def lacks(host: Host, needs: Needs) -> str:
    """The first thing needed that a host does not have, in words; "" if it has all of them."""
    if needs.same_cpu is not None and (not needs.same_cpu or host.cpu_model != needs.same_cpu):
        return f"the CPU {needs.same_cpu}" if needs.same_cpu else "a CPU known to be the same"
    missing = [name for name in needs.machines if host.machines and name not in host.machines]
    missing += [place for place in needs.storage if not reaches(host, place)]
    return missing[0] if missing else ""


def reaches(host: Host, place: str) -> bool:
    """Whether a host has a storage pool of this name, or this path below what it shares."""
    return any(
        place == shared or (shared.startswith("/") and place.startswith(shared.rstrip("/") + "/"))
        for shared in host.storage
    )
