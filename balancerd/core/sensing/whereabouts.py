"""Where each VM is, out of what every host shows of it: copies, halves under way, split brains."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import count, repeat
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from balancerd.core.columns import Bools, Floats, Ints
from balancerd.core.model import VM, SplitBrain, VMState
from balancerd.core.observation import HostReading, ShownVM, VMReadings
from balancerd.core.same import Same, kept

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
# States of a source whose VM runs on the target already.
_SENT = frozenset({VMState.OUTGOING, VMState.POSTCOPY_FAILED})
_RANK = {state: rank for rank, state in enumerate(_PRECEDENCE)}


class Copy(NamedTuple):
    """One VM as one host shows it; not fresh: as it showed it when it last answered.

    `row` counts the VMs of all readings, one host's after the other's.
    """

    host: str
    shown: ShownVM
    fresh: bool
    row: int


# The same as `Copy(*…)`, in half of the time: there is one for every VM of the site.
_copied: Callable[[tuple[str, ShownVM, bool, int]], Copy] = partial(tuple.__new__, Copy)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one host shows, but for its counters. `machine` tells it from other hosts."""

    host: str
    machine: str
    fresh: bool
    vms: tuple[ShownVM, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """The two halves of a VM that is under way."""

    source: Copy
    target: Copy


@dataclass(frozen=True)
class Whereabouts:
    """Every VM, in order of its name: how it shows itself, where it is, and where it is going.

    What is under way is on its source to the end. After the switch-over it runs, and tells of its
    demand, on its target: that is the half in `main` then.

    `ambiguous` VMs share their name with another one; they are told apart as "name@host". `busy`
    are those that some host has a job for; `twice`: which definition to believe nobody knows.
    """

    sights: tuple[Sight, ...]  # what all of this was made of
    main: Mapping[str, Copy]  # the half that says how it is
    vms: Mapping[str, VM]
    placement: Mapping[str, str]
    flights: Mapping[str, str]
    landing: Mapping[str, tuple[int, ...]]  # NUMA nodes that those under way are going to
    ambiguous: frozenset[str]
    busy: frozenset[str]
    twice: frozenset[str]  # shut off, and defined on more than one host
    split_brains: tuple[SplitBrain, ...]

    @classmethod
    def nothing(cls) -> "Whereabouts":
        """Of no VM."""
        nobody: frozenset[str] = frozenset()
        empty: Mapping[str, str] = MappingProxyType({})
        return cls((), {}, {}, empty, empty, {}, nobody, nobody, nobody, ())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The VMs; entry i of each column is of `names[i]`."""
        return tuple(self.main)

    @cached_property
    def read_on(self) -> Mapping[str, str]:
        """The host that tells of each VM's demand."""
        return {name: copy.host for name, copy in self.main.items()}

    @cached_property
    def place(self) -> tuple[str, ...]:
        """The host that tells of each VM's demand, in their order."""
        return tuple(self.read_on.values())

    @cached_property
    def host(self) -> Ints:
        """Which of the sights is of the host that tells of each VM's demand."""
        row = {sight.host: number for number, sight in enumerate(self.sights)}
        return np.array([row[host] for host in self.place], dtype=np.int64)

    @cached_property
    def peopled(self) -> int:
        """How many hosts have any VM."""
        return len(set(self.place))

    @cached_property
    def row(self) -> Ints:
        """Where each VM's main copy is among the VMs of all readings."""
        return np.array([copy.row for copy in self.main.values()], dtype=np.int64)

    @cached_property
    def told(self) -> Bools:
        """Whose demand is told: those that run, on a host that was read now."""
        running = VMState.RUNNING
        told = [copy.fresh and copy.shown.state is running for copy in self.main.values()]
        return np.array(told, dtype=np.bool_)

    @cached_property
    def sizes(self) -> Floats:
        """The most that each VM can ask for, reference cores."""
        return _sizes(Same(self.vms))

    @cached_property
    def shut_off(self) -> tuple[str, ...]:
        """The VMs that are shut off where they are."""
        off = VMState.SHUTOFF
        return tuple(name for name, copy in self.main.items() if copy.shown.state is off)


@lru_cache(maxsize=1)
def _sizes(vms: Same[Mapping[str, VM]]) -> Floats:
    return np.array([vm.size for vm in vms.value.values()], dtype=np.float64)


def whereabouts(
    readings: Iterable[HostReading], fresh: Collection[str], before: Whereabouts | None = None
) -> Whereabouts:
    """Where each VM is; `fresh` are the hosts whose readings are of now.

    Where hosts show what they showed before, what was found then is given back, and of VMs that
    stayed the same the same object, so that whatever was worked out from them need not be worked
    out again.
    """
    sights = tuple(
        Sight(
            reading.host,
            (reading.facts.uuid if reading.facts else "") or reading.host,
            reading.host in fresh,
            VMReadings.of(reading.vms).shown,
        )
        for reading in readings
    )
    if before is not None and sights == before.sights:
        return before
    return _found(sights, before.vms if before else {})


def _found(sights: tuple[Sight, ...], before: Mapping[str, VM]) -> Whereabouts:
    single, several = _copies(sights)
    copies, ambiguous = _told_apart(several)
    busy = {name for name, copy in single.items() if copy.shown.job}
    busy |= {name for name, found in copies.items() if any(copy.shown.job for copy in found)}
    main = single | {name: min(found, key=_standing) for name, found in copies.items()}
    main = {name: main[name] for name in sorted(main)}
    found_ways = {name: _way(main[name], copies[name]) for name in sorted(copies)}
    ways = {name: way for name, way in found_ways.items() if way is not None}
    here = main | {name: way.source for name, way in ways.items()}
    return Whereabouts(
        sights=sights,
        main=main,
        vms=kept({n: _as_shown(c.shown, main[n].shown.state) for n, c in here.items()}, before),
        placement=MappingProxyType({name: copy.host for name, copy in here.items()}),
        flights=MappingProxyType({name: way.target.host for name, way in ways.items()}),
        landing=MappingProxyType(
            {n: way.target.shown.vm.numa for n, way in ways.items() if way.target.shown.vm.numa}
        ),
        ambiguous=ambiguous,
        busy=frozenset(busy),
        twice=frozenset(
            name
            for name, found in copies.items()
            if len(found) > 1 and main[name].shown.state is VMState.SHUTOFF
        ),
        split_brains=tuple(_split_brains(sights)),
    )


def _copies(sights: Iterable[Sight]) -> tuple[dict[str, Copy], dict[str, list[Copy]]]:
    """VMs that one host alone shows; and all copies of the others, by name."""
    single: dict[str, Copy] = {}
    several: dict[str, list[Copy]] = {}
    begin = 0
    for sight in sights:
        host, fresh = sight.host, sight.fresh
        for copy in map(_copied, zip(repeat(host), sight.vms, repeat(fresh), count(begin))):
            name = copy.shown.vm.name
            if name in several:
                several[name].append(copy)
            elif name in single:
                several[name] = [single.pop(name), copy]
            else:
                single[name] = copy
        begin += len(sight.vms)
    return single, several


def _told_apart(
    several: Mapping[str, Sequence[Copy]],
) -> tuple[dict[str, list[Copy]], frozenset[str]]:
    """The copies of each VM, and the VMs whose name stands for more than one UUID.

    Those are told apart as "name@host", so that each still counts on its host.
    """
    copies: dict[str, list[Copy]] = {}
    ambiguous: set[str] = set()
    for name, found in several.items():
        if len({copy.shown.vm.uuid for copy in found}) == 1:
            copies[name] = list(found)
            continue
        for copy in found:
            apart = f"{name}@{copy.host}"
            renamed = replace(copy.shown, vm=replace(copy.shown.vm, name=apart))
            copies.setdefault(apart, []).append(copy._replace(shown=renamed))
            ambiguous.add(apart)
    return copies, frozenset(ambiguous)


def _as_shown(shown: ShownVM, state: VMState) -> VM:
    """The VM in the state that a host shows."""
    vm = shown.vm
    return vm if vm.state is state else replace(vm, state=state)


def _standing(copy: Copy) -> tuple[bool, int, str]:
    """What one host shows now goes before what another one showed before it fell silent."""
    active = copy.shown.state in ACTIVE
    return (not (copy.fresh and active), _RANK[copy.shown.state], copy.host)


def _way(main: Copy, found: Sequence[Copy]) -> Way | None:
    """The two active halves of a VM; None where there is one. It goes to the half that waits for
    it, or from the one that stands still as the other runs."""
    halves = [c for c in found if c is not main and c.shown.state in ACTIVE]
    if not halves:
        return None
    other = min(halves, key=_standing)
    sent = main.shown.state is VMState.RUNNING and other.shown.state in _SENT
    return Way(other, main) if sent else Way(main, other)


def _split_brains(sights: Sequence[Sight]) -> list[SplitBrain]:
    """UUIDs that run on more than one host now, whatever name they go by there.

    Hosts of one UUID may be one machine that was configured twice; what they both show is no proof.
    """
    running, awake = VMState.RUNNING, [sight for sight in sights if sight.fresh]
    shown = [one for sight in awake for one in sight.vms if one.state is running and one.vm.uuid]
    if len({one.vm.uuid for one in shown}) == len(shown):
        return []
    found: dict[str, list[tuple[str, Sight]]] = {}
    for sight in awake:
        for one in sight.vms:
            if one.state is running and one.vm.uuid:
                found.setdefault(one.vm.uuid, []).append((one.vm.name, sight))
    return [
        SplitBrain(
            min(name for name, _ in seen), uuid, tuple(sorted(sight.host for _, sight in seen))
        )
        for uuid, seen in sorted(found.items())
        if len({sight.machine for _, sight in seen}) > 1
    ]
