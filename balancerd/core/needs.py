"""What VMs need of a host beside room: its CPU, machine types, and the storage their disks lie on.

What is not known of a host's CPU models or machine types is no obstacle here: libvirt compares
them again before anything starts, and a migration that it refuses has done no harm. Storage is
strict, as disks may be anywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from balancerd.core.model import VM, Host

PASSTHROUGH = "host-passthrough"


@dataclass(frozen=True, slots=True)
class Needs:
    """Of a VM, or of several that go together. `same_cpu`: their host's CPU; None: any will do."""

    same_cpu: str | None = None
    cpu_models: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()


NOTHING = Needs()


def needs_of(vms: Iterable[VM], home: Host) -> Needs:
    """What VMs on one host need of any other that they are to go to."""
    demanding = [vm for vm in vms if vm.cpu_model or vm.machine or vm.disks]
    if not demanding:
        return NOTHING
    models = {vm.cpu_model for vm in demanding} - {""}
    storage = {place for vm in demanding for disk in vm.disks for place in disk.storage}
    return Needs(
        same_cpu=home.cpu_model if PASSTHROUGH in models else None,
        cpu_models=tuple(sorted(models - {PASSTHROUGH})),
        machines=tuple(sorted({vm.machine for vm in demanding} - {""})),
        storage=tuple(sorted(storage)),
    )


def lacks(host: Host, needs: Needs) -> str:
    """The first thing needed that a host does not have, in words; "" if it has all of them."""
    if needs.same_cpu is not None and (not needs.same_cpu or host.cpu_model != needs.same_cpu):
        return f"the CPU {needs.same_cpu}" if needs.same_cpu else "a CPU known to be the same"
    for wanted, known in ((needs.cpu_models, host.cpu_models), (needs.machines, host.machines)):
        missing = [name for name in wanted if known and name not in known]
        if missing:
            return missing[0]
    return next((place for place in needs.storage if not reaches(host, place)), "")


def reaches(host: Host, place: str) -> bool:
    """Whether a host has a storage pool of this name, or this path below what it shares."""
    return any(
        place == shared or (shared.startswith("/") and place.startswith(shared.rstrip("/") + "/"))
        for shared in host.storage
    )
