"""Where each VM is, out of what every host shows of it: copies, halves under way, split brains."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from balancerd.core.model import VM, SplitBrain, VMState
from balancerd.core.observation import HostReading, VMReading

# States in which a VM holds memory on its host.
ACTIVE = frozenset(
    {
        VMState.RUNNING,
        VMState.PAUSED,
        VMState.INCOMING,
        VMState.OUTGOING,
        VMState.POSTCOPY_FAILED,
        VMState.OTHER,
    }
)
# Which of several copies of a VM says where it is; the first in this order that is found.
_PRECEDENCE = (
    VMState.RUNNING,
    VMState.OUTGOING,
    VMState.POSTCOPY_FAILED,
    VMState.PAUSED,
    VMState.OTHER,
    VMState.CRASHED,
    VMState.SHUTOFF,
    VMState.INCOMING,
    VMState.MIGRATED,
)
_RANK = {state: rank for rank, state in enumerate(_PRECEDENCE)}


@dataclass(frozen=True, slots=True)
class Copy:
    """One VM as one host shows it; not fresh: as it showed it when it last answered."""

    host: str
    reading: VMReading
    fresh: bool


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Every VM with all its copies, where it is, and where it is going to.

    `ambiguous` VMs share their name with another one; they are told apart as "name@host".
    """

    copies: Mapping[str, Sequence[Copy]]
    ambiguous: frozenset[str]
    vms: dict[str, VM]
    placement: dict[str, str]
    flights: dict[str, str]
    landing: dict[str, tuple[int, ...]]  # NUMA nodes that those under way are going to


def whereabouts(readings: Iterable[HostReading], fresh: Collection[str]) -> Whereabouts:
    """Where each VM is; `fresh` are the hosts whose readings are of now."""
    copies, ambiguous = _copies(readings, fresh)
    return Whereabouts(copies, ambiguous, *_place(copies))


def _copies(
    readings: Iterable[HostReading], fresh: Collection[str]
) -> tuple[dict[str, list[Copy]], frozenset[str]]:
    """All copies of each VM, and the VMs whose name stands for more than one UUID.

    Those are told apart as "name@host", so that each still counts on its host.
    """
    by_name: dict[str, list[Copy]] = defaultdict(list)
    for reading in readings:
        for vm in reading.vms:
            by_name[vm.vm.name].append(Copy(reading.host, vm, reading.host in fresh))
    copies: dict[str, list[Copy]] = {}
    ambiguous: set[str] = set()
    for name, found in by_name.items():
        if len(found) == 1 or len({copy.reading.vm.uuid for copy in found}) == 1:
            copies[name] = found
            continue
        for copy in found:
            apart = f"{name}@{copy.host}"
            renamed = replace(copy.reading, vm=replace(copy.reading.vm, name=apart))
            copies.setdefault(apart, []).append(replace(copy, reading=renamed))
            ambiguous.add(apart)
    return copies, frozenset(ambiguous)


def _place(
    copies: Mapping[str, Sequence[Copy]],
) -> tuple[dict[str, VM], dict[str, str], dict[str, str], dict[str, tuple[int, ...]]]:
    """VMs, where each is, and where those under way are going, by host and by NUMA nodes."""
    vms: dict[str, VM] = {}
    placement: dict[str, str] = {}
    flights: dict[str, str] = {}
    landing: dict[str, tuple[int, ...]] = {}
    for name in sorted(copies):
        found = copies[name]
        main = found[0] if len(found) == 1 else min(found, key=lambda c: _standing(c))
        vm = main.reading.vm
        vms[name] = vm if vm.state is main.reading.state else replace(vm, state=main.reading.state)
        placement[name] = main.host
        half = _other_half(main, found) if len(found) > 1 else None
        if half is not None:
            flights[name] = half.host
            if half.reading.vm.numa:
                landing[name] = half.reading.vm.numa
    return vms, placement, flights, landing


def _standing(copy: Copy) -> tuple[bool, int, str]:
    """What one host shows now goes before what another one showed before it fell silent."""
    active = copy.reading.state in ACTIVE
    return (not (copy.fresh and active), _RANK[copy.reading.state], copy.host)


def _other_half(main: Copy, found: Sequence[Copy]) -> Copy | None:
    """The other active half of a VM, which is where it is going."""
    halves = [c for c in found if c is not main and c.reading.state in ACTIVE]
    return min(halves, key=_standing) if halves else None


def split_brains(readings: Iterable[HostReading]) -> list[SplitBrain]:
    """UUIDs that run on more than one host, whatever name they go by there.

    Hosts of one UUID may be one machine that was configured twice; what they both show is no proof.
    """
    running: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for reading in readings:
        machine = (reading.facts.uuid if reading.facts else "") or reading.host
        for vm in reading.vms:
            if vm.state is VMState.RUNNING and vm.vm.uuid:
                running[vm.vm.uuid].append((vm.vm.name, reading.host, machine))
    return [
        SplitBrain(min(found)[0], uuid, tuple(sorted(host for _, host, _ in found)))
        for uuid, found in sorted(running.items())
        if len({machine for _, _, machine in found}) > 1
    ]
