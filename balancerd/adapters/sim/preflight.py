"""What simulated hosts say before a migration."""

from balancerd.adapters.sim.state import State
from balancerd.core.model import WITH_DISKS, Method
from balancerd.core.observation import Base, Image, Overlays, Preflight, Presence, Side
from balancerd.core.units import GIB

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
    facts, source_host, there = state.site.vms[index], *(state.host[place] for place in places)
    same = facts.uuid == uuid
    free = same or state.copies.presence(index, there) is Presence.ABSENT
    here = state.site.hosts[source_host]
    rules = state.site.scenario.migration
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
        image_locks=True if rules.disk_locks and rules.locks_shown else None,
        persistent=facts.persistent,
        overlays=_overlays(state, source_host, there) if method is Method.OVERLAY else None,
        skew=state.ahead.get(there, 0.0) - state.ahead.get(source_host, 0.0),
    )


def _overlays(state: State, *hosts: int) -> Overlays:
    """One base for all; where it was changed, it shows in when that was."""
    here, there = (
        Image("qcow2", GIB, GIB, changed=int(host in state.rebased), backing="", samples="")
        for host in hosts
    )
    return Overlays((Base("local/base", here, there),))


def _side(state: State, name: str) -> Side:
    index = state.host.get(name)
    if index is None:
        return Side(name, error="no such host")
    if not state.answers(index):
        return Side(name, error="no answer in time")
    host = state.site.hosts[index]
    free = host.memory - int(state.charges.on(index))
    return Side(name, "", host.uuid, LIBVIRT, QEMU, max(0, free))
