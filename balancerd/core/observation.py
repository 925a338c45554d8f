"""What a backend reports: raw readings and counters, before any of it is believed.

Counters only grow until they are reset; `load` turns two readings into rates. Nothing here is
checked for sense: NaN, negative and impossible values arrive as they were read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from math import inf, isnan
from operator import attrgetter
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from balancerd.core.model import VM, Host, VMState
from balancerd.core.outcome import Against

Counters = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HostCounters:
    """Of one host: seconds of CPU time used by all its cores together, and memory now."""

    cpu_busy: float
    memory_total: int
    memory_available: int
    memory_stalled: float | None = None  # seconds in which some task stood still for memory (PSI)


@dataclass(frozen=True, slots=True)
class VMCounters:
    """Of one VM since it was started on this host; None where the hypervisor does not tell."""

    cpu_seconds: float | None
    steal_seconds: float | None = None  # summed over vCPUs
    memory_used: int | None = None  # resident bytes
    network_bytes: int | None = None  # received and sent
    block_bytes: int | None = None  # read and written
    dirty_rate: float | None = None  # bytes of memory written per second, when last sampled
    swapped: int | None = None  # bytes that the guest has swapped in and out
    ballooned: int | None = None  # bytes of its memory that its balloon holds now


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A migration job as its source tells it. Bytes; only `processed` is a sign of progress."""

    total: int
    processed: int
    remaining: int
    iteration: int
    elapsed: float  # seconds
    dirty_rate: float | None = None  # bytes per second
    throttle: int = 0  # per cent by which auto-converge slows the VM


@dataclass(frozen=True, slots=True)
class VMReading:
    """One VM on one host, as read at one moment."""

    vm: VM
    state: VMState
    counters: VMCounters | None
    job: JobProgress | None = None


@dataclass(frozen=True, slots=True)
class ShownVM:
    """A VM as a host shows it, but for its counters: the same value as long as nothing happens."""

    vm: VM
    state: VMState
    job: JobProgress | None = None


COUNTERS = tuple(field.name for field in fields(VMCounters))
_told = attrgetter(*COUNTERS)
_real = attrgetter("cpu_seconds", "steal_seconds", "dirty_rate")
_UNTOLD = (None,) * len(COUNTERS)
_WHOLE = frozenset({"memory_used", "network_bytes", "block_bytes", "swapped", "ballooned"})


@dataclass(frozen=True, eq=False)
class VMReadings(Sequence[VMReading]):
    """A host's VMs with their counters as columns: what arithmetic on a whole site reads.

    A sequence like any other, whose items are made when they are asked for. `counters` is COUNTERS
    × VMs. NaN is what is not told; a counter that was itself read as NaN is infinite here, which
    is believed as little.
    """

    shown: tuple[ShownVM, ...]
    counters: Counters

    @classmethod
    def of(cls, readings: Sequence[VMReading]) -> "VMReadings":
        """The same readings by columns; nothing to do where they are that already."""
        if isinstance(readings, VMReadings):
            return readings
        columns = [counted(reading.counters) for reading in readings]
        counters = np.array(columns, dtype=np.float64).reshape(-1, len(COUNTERS)).T
        return cls(tuple(ShownVM(r.vm, r.state, r.job) for r in readings), counters)

    @overload
    def __getitem__(self, index: int) -> VMReading: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> "VMReading | VMReadings":
        if isinstance(index, slice):
            return VMReadings(self.shown[index], self.counters[:, index])
        shown, told = self.shown[index], self.counters[:, index].tolist()
        return VMReading(shown.vm, shown.state, _counters(told), shown.job)

    def __iter__(self) -> Iterator[VMReading]:
        return (self[index] for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.shown)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VMReadings):
            return NotImplemented
        same = np.array_equal(self.counters, other.counters, equal_nan=True)
        return same and self.shown == other.shown

    __hash__ = None  # type: ignore[assignment]


def counted(counters: VMCounters | None) -> tuple[float | None, ...]:
    """One column of a table of counters; nothing where there are none."""
    if counters is None:
        return _UNTOLD
    told: tuple[float | None, ...] = _told(counters)
    cpu, steal, dirty = _real(counters)
    if cpu != cpu or steal != steal or dirty != dirty:  # NaN, which is no None
        return tuple(inf if value != value else value for value in told)
    return told


def _counters(column: list[float]) -> VMCounters | None:
    """The counters of a column; None where nothing was told."""
    if all(map(isnan, column)):
        return None
    told: dict[str, Any] = {
        name: int(value) if name in _WHOLE and value != inf else value
        for name, value in zip(COUNTERS, column, strict=True)
        if not isnan(value)
    }
    return VMCounters(**{"cpu_seconds": None} | told)


@dataclass(frozen=True, slots=True)
class HostReading:
    """One host at one moment, or the error that stands in its place since then (all else empty)."""

    host: str
    at: float
    facts: Host | None = None
    counters: HostCounters | None = None
    vms: Sequence[VMReading] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """All hosts, each with the time of its own reading."""

    at: float
    readings: tuple[HostReading, ...]


class Presence(StrEnum):
    """What one host says of one VM when asked: the alphabet of the state-pair table."""

    RUNNING = "running"
    RUNNING_WITH_JOB = "running, migrating"
    PAUSED = "paused"  # by a user or an I/O error
    INCOMING = "incoming"
    OUTGOING = "outgoing"
    HANDED_OVER = "handed over, paused"
    POSTCOPY = "running in post-copy"
    POSTCOPY_FAILED = "post-copy failed"
    SHUTOFF = "shutoff"
    MIGRATED = "shutoff, migrated away"
    FAILED = "shutoff, failed to start"
    CRASHED = "crashed"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Location:
    """A VM as both (or all) hosts concerned tell it, read after the question was asked."""

    vm: str
    at: float
    presence: Mapping[str, Presence]  # by host


@dataclass(frozen=True, slots=True)
class Side:
    """What one host of a migration says of itself before the start. None or "": not told."""

    host: str
    error: str = ""  # it did not answer, and why; all else is empty then
    uuid: str = ""
    libvirt: int | None = None  # version: major x 1,000,000 + minor x 1,000 + release
    hypervisor: int | None = None  # QEMU's version, counted likewise
    memory_free: int | None = None  # bytes that could be given to a VM now


@dataclass(frozen=True, slots=True)
class Pages:
    """Huge pages that a VM wants and the target has free. `size` 0: of whichever size."""

    size: int  # bytes, of one
    needed: int  # bytes, of all
    free: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image file, as its host's libvirt tells of it."""

    format: str
    capacity: int  # bytes of the disk in it
    length: int  # bytes of the file itself
    changed: int  # seconds since the epoch, by the host's clock
    backing: str  # the image that it lies on; "": on none
    samples: str  # a digest of pieces of the file


@dataclass(frozen=True, slots=True)
class Base:
    """An image that a disk lies on and that is not shared, on both hosts. None: it was not told."""

    path: str
    here: Image | None
    there: Image | None


@dataclass(frozen=True, slots=True)
class Overlays:
    """What both hosts say of the disks of a VM whose base images stay where they are."""

    bases: tuple[Base, ...] = ()
    writers: tuple[str, ...] = ()  # VMs that write a base, with the host they run on


@dataclass(frozen=True, slots=True)
class Preflight:
    """What both hosts say to a migration that is about to start: facts, never a decision.

    None is "cannot be told from here", which speaks neither for the migration nor against it.
    """

    vm: str
    at: float
    source: Side
    target: Side
    name_free: bool | None = None  # no other VM has its name on the target
    uuid_free: bool | None = None  # nor its UUID under another name
    cpu_comparable: bool | None = None  # the target's CPU has all that the VM was given
    absent_disks: tuple[str, ...] = ()  # sources of disks that the target surely has not got
    unseen_disks: tuple[str, ...] = ()  # those of which the target cannot tell
    stranded: tuple[str, ...] = ()  # disks that only the source has, and that would stay there
    occupied: tuple[str, ...] = ()  # where the target has a file already that would be the disk's
    unmade: tuple[str, ...] = ()  # where no storage pool of the target lets one be made
    image_locks: bool | None = None  # a second QEMU could not open its disks for writing
    persistent: bool | None = None  # the source has a definition of it, which outlives its end
    pages: tuple[Pages, ...] = ()
    overlays: Overlays | None = None  # asked for only where they matter
    skew: float | None = None  # seconds by which the target's clock is ahead of the source's


@dataclass(frozen=True, slots=True)
class JobReport:
    """News of a migration that a backend runs or watches.

    `ended` only says that the call returned; where the VM is must be read from both hosts. A call
    may also never return, though its job is `over`: the source has it no more.
    `error` is for the record and for classing the fault, never for deciding the outcome.
    """

    vm: str
    source: str
    target: str
    at: float
    progress: JobProgress | None = None
    ended: bool = False
    over: bool = False
    begun: bool = True  # False: the hypervisor was not even asked; a job it has is not this one
    answered: bool = False  # the source itself ended the call: it is not at work on it any more
    error: str = ""
    error_code: int = 0
    error_domain: int = 0
    objection: str = ""  # what the hosts lack, where they refused before a byte was sent
    against: Against = Against.MOVE  # what else the objection holds for
    bytes: int | None = None
    iterations: int | None = None
    downtime: float | None = None  # seconds
    seconds: float | None = None
