"""What simulated hosts say before a migration."""

from balancerd.adapters.sim.state import State
from balancerd.core.model import WITH_DISKS, Method
from balancerd.core.observation import Overlays, Preflight, Presence, Side

LIBVIRT, QEMU = 11_003_000, 10_000_002  # as the hosts whose faults `endings` reproduces


def preflight(
    state: State, vm: str, uuid: str, places: tuple[str, str], method: Method
) -> Preflight:
    """Both hosts' facts; a host that does not answer, or that nobody knows, has an error."""
    source, target = (_side(state, host) for host in places)
    index = state.vm.get(vm)
    found = Preflight(vm, state.at, source, target)
    if index is None or source.error or target.error:
        return found
    facts, there = state.site.vms[index], state.host[places[1]]
    same = facts.uuid == uuid
    free = same or state.copies.presence(index, there) is Presence.ABSENT
    here = state.site.hosts[state.host[places[0]]]
    passed = facts.cpu_model == "host-passthrough"
    local = tuple(disk.source for disk in facts.disks if not disk.shared)
    return Preflight(
        vm,
        state.at,
        source,
        target,
        name_free=free,
        uuid_free=True,
        cpu_comparable=not passed or here.cpu_model == state.site.hosts[there].cpu_model,
        absent_disks=() if method in WITH_DISKS else local,
        image_locks=True if state.site.scenario.migration.disk_locks else None,
        persistent=facts.persistent,
        overlays=Overlays() if method is Method.OVERLAY else None,  # all bases are everywhere
    )


def _side(state: State, name: str) -> Side:
    index = state.host.get(name)
    if index is None:
        return Side(name, error="no such host")
    if not state.answers(index):
        return Side(name, error="no answer in time")
    host = state.site.hosts[index]
    free = host.memory - int(state.charges.bytes()[index])
    return Side(name, "", host.uuid, LIBVIRT, QEMU, max(0, free))
