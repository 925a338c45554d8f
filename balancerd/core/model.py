"""The nouns of a site, as frozen values: what is there, and what was observed of it.

CPU is counted in reference cores: a host core of speed 1.0. A faster host has more of them than
it has cores, so that hosts of different speed can be compared and a VM's demand means the same
everywhere. Memory is in bytes, time in seconds since the epoch.

Names identify: a host's name is the configuration's, a VM's is libvirt's and unique on the site
(two VMs of one name are told apart as "name@host" and excluded from moves; see `snapshot`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from balancerd.core.plain import as_dict

EMPTY: Mapping[str, str] = MappingProxyType({})

# No host and no VM has so much.
ABSURD_CORES, ABSURD_BYTES = 1e6, 2**60
NOWHERE: Mapping[str, tuple[int, ...]] = MappingProxyType({})


class PowerState(StrEnum):
    """What is known of a host's power. Only ON hosts carry VMs; UNKNOWN is neither on nor off."""

    ON = "on"
    OFF = "off"
    WAKING = "waking"
    SLEEPING = "going to sleep"
    UNKNOWN = "unknown"


class VMState(StrEnum):
    """A VM's state on one host, with the reasons that matter to a balancer spelled out."""

    RUNNING = "running"
    PAUSED = "paused"  # by a user, or after an I/O error: not ours to touch
    INCOMING = "incoming"  # the target's half of a migration: paused, waiting for the switch-over
    OUTGOING = "outgoing"  # the source's half after the switch-over: paused for migration
    POSTCOPY_FAILED = "post-copy failed"
    SHUTOFF = "shutoff"
    MIGRATED = "migrated"  # shut off here because it runs elsewhere now
    CRASHED = "crashed"
    OTHER = "other"


class Method(StrEnum):
    """How a VM is moved."""

    PRE_COPY = "pre-copy"
    AUTO_CONVERGE = "auto-converge"  # pre-copy that slows the VM down where it has to
    POST_COPY = "post-copy"
    STORAGE = "storage"  # pre-copy, local disks too
    OVERLAY = "overlay"  # likewise, but of a disk on a base image only what lies on top of that
    COLD = "cold"  # shut off while it moves


WITH_DISKS = frozenset({Method.STORAGE, Method.OVERLAY})


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node: reference cores and bytes."""

    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class HugePages:
    """Memory in huge pages of one size: a host's pool of them, or what a VM takes of it. Bytes.

    `size` 0: a VM that names no size means the host's default, which nobody tells.
    """

    size: int
    memory: int


@dataclass(frozen=True, slots=True)
class Host:
    """A hypervisor machine: capacity in reference cores and bytes; `cores` as it counts them.

    `memory` is what is not set aside for huge pages.
    """

    name: str
    cpu: float
    memory: int
    cores: int = 0
    uuid: str = ""
    rack: str = ""
    cpu_model: str = ""
    power: PowerState = PowerState.ON
    power_curve: tuple[float, ...] = ()  # W at equal steps of CPU use from 0 to 100 %
    numa: tuple[NumaNode, ...] = ()
    can_sleep: bool = False  # a power driver is configured, and nothing forbids it
    driver_doubted: bool = False  # that driver said that it is off, and it answered
    machines: tuple[str, ...] = ()  # machine types that it can run; none: not known
    storage: tuple[str, ...] = ()  # shared paths and pools that it reaches
    huge_pages: tuple[HugePages, ...] = ()  # all that it has, in use or not
    clock: float | None = None  # whole seconds by which it is ahead of balancerd's; None: not known

    @property
    def may_sleep(self) -> bool:
        """Whether it can be put to sleep, and found to be off then."""
        return self.can_sleep and not self.driver_doubted

    def watts(self, utilisation: float) -> float:
        """Draw at a CPU utilisation in 0..1, between the curve's points in a straight line."""
        if not self.power_curve:
            return 0.0
        position = min(max(utilisation, 0.0), 1.0) * (len(self.power_curve) - 1)
        below = min(int(position), len(self.power_curve) - 2)
        low, high = self.power_curve[below], self.power_curve[below + 1]
        return low + (high - low) * (position - below)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk or other storage of a VM. `shared`: every host of the site reaches the same bytes.

    `file`: it is an image file. Nothing else is ever copied: what another host has under a device's
    name is anybody's.
    """

    source: str
    shared: bool
    size: int = 0
    allocated: int = 0  # bytes that its own image takes, roughly; 0: not told, or it is shared
    based: bool = False  # it lies on another image, and holds only what differs from that
    file: bool = True
    read_only: bool = False
    safe_cache: bool = True  # cache mode none/directsync, or a storage that does not care
    storage: tuple[str, ...] = ()  # the shared paths and pools it lies on; none: any host has it


@dataclass(frozen=True, slots=True)
class VM:
    """A guest as it is defined. `memory` is charged to a host that runs it, and so is what it has
    in huge pages beside that."""

    name: str
    memory: int
    vcpus: int = 1
    cpu: float = 0.0  # the most it can use, reference cores; 0: as many as it has vCPUs
    uuid: str = ""
    state: VMState = VMState.RUNNING
    persistent: bool = True
    autostart: bool = False
    disks: tuple[Disk, ...] = ()
    host_devices: tuple[str, ...] = ()
    cpu_model: str = ""  # "" moves anywhere; "host-passthrough" only to the same host CPU
    machine: str = ""  # its machine type; "" runs anywhere
    owner: str = ""  # another management system that says it owns the VM
    numa: tuple[int, ...] = ()  # NUMA nodes of its host that it is bound to, evenly; (): to none
    numa_kept: bool = False  # it takes their numbers along: a move cannot choose others
    left_behind: tuple[str, ...] = ()  # what of its state a cold move would leave on its host
    snapshots: bool = False  # it has some, with which libvirt moves no VM
    huge_pages: tuple[HugePages, ...] = ()
    tags: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # balancerd's own <metadata>

    @property
    def size(self) -> float:
        """The most CPU it can ask for, in reference cores; its vCPUs where the limit is absurd."""
        return self.cpu if 0 < self.cpu < ABSURD_CORES else float(max(0, self.vcpus))

    @property
    def all_memory(self) -> int:
        """Bytes of it in pages of whatever size."""
        size = max(0, self.memory)
        for pages in self.huge_pages:
            size += max(0, pages.memory)
        return size


@dataclass(frozen=True, slots=True)
class Link:
    """An edge of the site graph between hosts, racks, other nodes; bytes per second each way."""

    a: str
    b: str
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Hosts, VMs, and which runs where; real or hypothetical.

    `placement` says where a VM is (VMs that are shut off have a place too); `flights` where it is
    being moved to, and `landing` to which NUMA nodes there. A VM under way is charged to both.
    """

    hosts: Mapping[str, Host]
    vms: Mapping[str, VM]
    placement: Mapping[str, str]
    flights: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    links: tuple[Link, ...] = ()
    landing: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: NOWHERE)

    def on(self, host: str) -> tuple[str, ...]:
        """Names of the VMs charged to a host, those on their way to it included, sorted."""
        here = {vm for vm, place in self.placement.items() if place == host}
        return tuple(sorted(here | {vm for vm, target in self.flights.items() if target == host}))

    def begin(self, vm: str, target: str, numa: tuple[int, ...] = ()) -> "Cluster":
        """The cluster while the VM is under way: both ends pay. `numa`: nodes of the target."""
        landing = {**self.landing, vm: numa} if numa else self.landing
        flights = MappingProxyType({**self.flights, vm: target})
        return replace(self, flights=flights, landing=landing)

    def finish(self, vm: str, target: str) -> "Cluster":
        """The cluster once the VM has arrived."""
        flights = {name: place for name, place in self.flights.items() if name != vm}
        vms, landing = self.vms, self.landing
        if vm in landing:
            vms = {**vms, vm: replace(vms[vm], numa=landing[vm])}
            landing = {name: nodes for name, nodes in landing.items() if name != vm}
        return replace(
            self,
            vms=vms,
            landing=landing,
            placement=MappingProxyType(as_dict(self.placement) | {vm: target}),
            flights=MappingProxyType(flights),
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Smoothed demand of one VM or host now. Rates, not counters; None is not known, never zero."""

    cpu: float  # reference cores, over the last reading's interval
    cpu_mean: float  # reference cores, mean over the policy's window
    memory: int  # bytes in use (host: all in use; VM: resident)
    steal: float = 0.0  # fraction of the time runnable vCPUs had to wait
    network: float | None = None  # bytes per second, both directions
    block: float | None = None  # bytes per second, both directions
    readings: int = 0  # how many readings the mean rests on
    since: float = 0.0  # time of the oldest of them
    dirty_rate: float | None = None  # bytes of its memory that a VM writes per second
    shortage: float = 0.0  # bytes of memory that it visibly lacks


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected CPU demand of one VM over the planning horizon, and the spread around it."""

    cpu: float  # reference cores
    spread: float  # standard deviation, reference cores
    usual: float | None = None  # mean of a day's hours, reference cores; None: seen for too short
    wavers: bool = False  # strays from that for longer than a moment, and comes back to it


class GapKind(StrEnum):
    """Why something about a host or VM is not known."""

    UNREACHABLE = "unreachable"
    STALE = "stale"
    NO_STATS = "no statistics"
    ABSURD = "absurd reading"
    WARMING_UP = "warming up"
    DUPLICATE_UUID = "duplicate host UUID"


@dataclass(frozen=True, slots=True)
class Gap:
    """Something a snapshot does not know. A host with a gap is neither source nor target."""

    subject: str  # "host" or "vm"
    name: str
    kind: GapKind
    detail: str
    since: float


class ExclusionKind(StrEnum):
    """Why a VM cannot be moved at all, whatever the target."""

    NOT_RUNNING = "not running"
    HOST_DEVICE = "host device"
    LOCAL_STORAGE = "local storage"
    SNAPSHOTS = "snapshots"
    UNSAFE_CACHE = "unsafe cache mode"
    OTHER_OWNER = "other owner"
    AMBIGUOUS_NAME = "ambiguous name"
    DEFINED_TWICE = "defined twice"  # shut off, and more than one host has its definition
    NO_STATS = "no statistics"
    HOST_GAP = "host not known"
    ABSURD = "absurd reading"
    SPLIT_BRAIN = "running twice"
    FOREIGN_JOB = "busy with a job"
    VETO = "veto"  # somebody else has just moved, paused or stopped it
    UNREADABLE_TAG = "unreadable tag"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A VM that no plan may move, and why."""

    vm: str
    kind: ExclusionKind
    detail: str


@dataclass(frozen=True, slots=True)
class SplitBrain:
    """One VM (one UUID) seen running on two hosts at once: the worst there is."""

    vm: str
    uuid: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as observed at one moment, with what is unknown.

    `loads` and `forecasts` are keyed by VM, `host_loads` by host. `overhead` is the CPU (reference
    cores) and memory (bytes) that a host uses beyond its VMs. A host with a gap has no entry in
    `host_loads`.
    """

    at: float
    cluster: Cluster
    loads: Mapping[str, Load]
    host_loads: Mapping[str, Load]
    forecasts: Mapping[str, Forecast]
    overhead: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    split_brains: tuple[SplitBrain, ...] = ()
    draining: frozenset[str] = frozenset()

    def unknown_hosts(self) -> frozenset[str]:
        """Hosts with a gap: neither source nor target of anything."""
        return frozenset(gap.name for gap in self.gaps if gap.subject == "host")
