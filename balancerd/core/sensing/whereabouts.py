"""Where each VM is, out of what every host shows of it: copies, halves under way, split brains."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import is_
from types import MappingProxyType

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
    """Every VM, in order of its name: how it shows itself, where it is, and where it is going.

    `ambiguous` VMs share their name with another one; they are told apart as "name@host". `busy`
    are those that some host has a job for; `twice`: which definition to believe nobody knows.
    """

    shown: dict[str, VMReading]  # on the host where it is
    vms: Mapping[str, VM]
    placement: dict[str, str]
    flights: dict[str, str]
    landing: dict[str, tuple[int, ...]]  # NUMA nodes that those under way are going to
    ambiguous: frozenset[str]
    busy: frozenset[str]
    twice: frozenset[str]  # shut off, and defined on more than one host


def whereabouts(
    readings: Iterable[HostReading], fresh: Collection[str], before: Mapping[str, VM] | None = None
) -> Whereabouts:
    """Where each VM is; `fresh` are the hosts whose readings are of now.

    `before` are the VMs as they were last; where nothing changed they are given back, the same
    object, so that whatever was worked out from them need not be worked out again.
    """
    single, several, busy = _copies(readings, fresh)
    copies, ambiguous = _told_apart(several)
    main = {name: min(found, key=_standing) for name, found in copies.items()}
    single |= {name: (copy.host, copy.reading) for name, copy in main.items()}
    single = {name: single[name] for name in sorted(single)}
    halves = {name: _other_half(main[name], copies[name]) for name in sorted(copies)}
    flights = {name: half for name, half in halves.items() if half is not None}
    busy |= {n for n, found in copies.items() if any(copy.reading.job for copy in found)}
    return Whereabouts(
        shown={name: reading for name, (_, reading) in single.items()},
        vms=_kept({n: _as_shown(reading) for n, (_, reading) in single.items()}, before or {}),
        placement={name: host for name, (host, _) in single.items()},
        flights={name: half.host for name, half in flights.items()},
        landing={n: half.reading.vm.numa for n, half in flights.items() if half.reading.vm.numa},
        ambiguous=ambiguous,
        busy=frozenset(busy),
        twice=frozenset(
            name
            for name, found in copies.items()
            if len(found) > 1 and main[name].reading.state is VMState.SHUTOFF
        ),
    )


def _kept(vms: dict[str, VM], before: Mapping[str, VM]) -> Mapping[str, VM]:
    """The VMs as they were, if they are still the very same."""
    same = len(vms) == len(before) and all(map(is_, vms.values(), before.values()))
    return before if same and vms.keys() == before.keys() else MappingProxyType(vms)


def _copies(
    readings: Iterable[HostReading], fresh: Collection[str]
) -> tuple[dict[str, tuple[str, VMReading]], dict[str, list[Copy]], set[str]]:
    """VMs that one host alone shows, with that host; all copies of the others, by name; and which
    of the first have a job."""
    single: dict[str, tuple[str, VMReading]] = {}
    several: dict[str, list[Copy]] = {}
    busy: set[str] = set()
    for reading in readings:
        host = reading.host
        for vm in reading.vms:
            name = vm.vm.name
            if name in several:
                several[name].append(Copy(host, vm, host in fresh))
            elif name in single:
                first, other = single.pop(name)
                several[name] = [Copy(first, other, first in fresh), Copy(host, vm, host in fresh)]
            else:
                single[name] = (host, vm)
                if vm.job:
                    busy.add(name)
    return single, several, busy - several.keys()


def _told_apart(
    several: Mapping[str, Sequence[Copy]],
) -> tuple[dict[str, list[Copy]], frozenset[str]]:
    """The copies of each VM, and the VMs whose name stands for more than one UUID.

    Those are told apart as "name@host", so that each still counts on its host.
    """
    copies: dict[str, list[Copy]] = {}
    ambiguous: set[str] = set()
    for name, found in several.items():
        if len({copy.reading.vm.uuid for copy in found}) == 1:
            copies[name] = list(found)
            continue
        for copy in found:
            apart = f"{name}@{copy.host}"
            renamed = replace(copy.reading, vm=replace(copy.reading.vm, name=apart))
            copies.setdefault(apart, []).append(replace(copy, reading=renamed))
            ambiguous.add(apart)
    return copies, frozenset(ambiguous)


def _as_shown(reading: VMReading) -> VM:
    """The VM in the state that its host shows."""
    vm = reading.vm
    return vm if vm.state is reading.state else replace(vm, state=reading.state)


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
    running = [
        (vm.vm.uuid, reading, vm)
        for reading in readings
        for vm in reading.vms
        if vm.state is VMState.RUNNING and vm.vm.uuid
    ]
    times = Counter(uuid for uuid, _, _ in running)
    if len(times) == len(running):
        return []
    found: dict[str, list[tuple[str, str, str]]] = {}
    for uuid, reading, vm in running:
        if times[uuid] > 1:
            machine = (reading.facts.uuid if reading.facts else "") or reading.host
            found.setdefault(uuid, []).append((vm.vm.name, reading.host, machine))
    return [
        SplitBrain(min(seen)[0], uuid, tuple(sorted(host for _, host, _ in seen)))
        for uuid, seen in sorted(found.items())
        if len({machine for _, _, machine in seen}) > 1
    ]
