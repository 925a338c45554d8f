"""What a backend reports: raw readings and counters, before any of it is believed.

Counters only grow until they are reset; `load` turns two readings into rates. Nothing here is
checked for sense: NaN, negative and impossible values arrive as they were read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from balancerd.core.model import VM, Host, VMState


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
class HostReading:
    """One host at one moment, or the error that stands in its place (all else empty then)."""

    host: str
    at: float
    facts: Host | None = None
    counters: HostCounters | None = None
    vms: tuple[VMReading, ...] = ()
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
    image_locks: bool | None = None  # a second QEMU could not open its disks for writing
    persistent: bool | None = None  # the source has a definition of it, which outlives its end
    pages: tuple[Pages, ...] = ()


class Against(StrEnum):
    """What hosts speak against, where they object to a move before it began."""

    MOVE = "move"  # this VM on its way to this host
    SOURCE = "source"  # all that leaves the source
    TARGET = "target"  # all that goes to the target
    PAIR = "pair"  # all that goes from one to the other


@dataclass(frozen=True, slots=True)
class JobReport:
    """News of a migration that a backend runs or watches.

    `ended` only says that the call returned; where the VM is must be read from both hosts.
    `error` is for the record and for classing the fault, never for deciding the outcome.
    """

    vm: str
    source: str
    target: str
    at: float
    progress: JobProgress | None = None
    ended: bool = False
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
