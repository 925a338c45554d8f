"""The scenario file: what a simulated site is made of, as frozen values.

The classes are the schema, like those of a policy: field names are the keys of the TOML file, and
text with a unit becomes SI numbers here. Read with `documents.load(path, Scenario)`.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from balancerd.core.policies.quantity import Duration, Fraction, Rate, Schema, Size
from balancerd.core.units import DAY, MINUTE, parse_time

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _moment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_time(value)
    except ValueError:
        raise ValueError(
            f'"{value}" is not a time with offset; write for example "2026-03-02T00:00:00+01:00"'
        ) from None


def _name_pattern(text: str) -> str:
    try:
        if (text % 0) != (text % 1):
            return text
    except (TypeError, ValueError):
        pass
    raise ValueError(f'"{text}" does not number its names; write for example "h%03d"')


Phase = Literal["start", "perform", "gap", "post-copy", "finish"]
Moment = Annotated[float, BeforeValidator(_moment)]
NamePattern = Annotated[str, AfterValidator(_name_pattern)]


class Hosts(Schema):
    """Hosts of one kind. Names count from `first` in steps of `step`."""

    name: NamePattern
    count: Count
    first: Annotated[int, Field(ge=0)] = 0
    step: Count = 1
    cores: Count
    speed: Positive = 1.0  # reference cores that one core is worth
    memory: Size
    power_curve: tuple[Annotated[float, Field(ge=0)], ...] = ()  # W at equal steps, 0 to 100 %
    cpu_model: str = ""

    @model_validator(mode="after")
    def _curve_is_complete(self) -> Self:
        if len(self.power_curve) == 1:
            raise ValueError("power_curve needs the watts at 0 % and at 100 % at least")
        return self


class Flavour(Schema):
    """VMs of one size, and how their memory behaves while it is copied."""

    name: str = ""
    vcpus: Count = 1
    cpu: Positive  # the most it can use, reference cores
    memory: Size
    count: Count | None = None  # of VMs; without it the VMs are divided equally, in order
    dirty_rate: Rate = 0  # bytes per second written at full CPU use
    working_set: Share = 0.25  # share of memory that is written again and again
    local_disk: Size = 0  # a disk that only the VM's host has
    on_top: Size = 0  # what that disk holds on top of a base image; 0: it lies on none
    autostart: bool = False  # its definition starts it with its host
    tags: dict[str, str] = Field(default_factory=dict)  # what the VMs say of themselves


class VMs(Schema):
    """Names of the VMs, where the load does not bring its own."""

    name: NamePattern = "vm%03d"
    count: Count | None = None


class Network(Schema):
    """Links: each host to its rack, each rack to the core; without racks each host to the core."""

    host: Rate = 125_000_000  # bytes per second, each way
    rack: Rate = 1_250_000_000
    racks: Annotated[int, Field(ge=0)] = 0
    rack_name: NamePattern = "rack%d"


class LoadKind(StrEnum):
    """Where demand comes from."""

    TRACE = "trace"  # a directory in PlanetLab form
    RECORDED = "recorded"  # a samples.db
    GENERATED = "generated"


class Load(Schema):
    """Demand for CPU: a step function of time."""

    kind: LoadKind = LoadKind.GENERATED
    step: Annotated[Duration, Field(gt=0)] = 300.0
    path: str = ""  # of the trace directory or record; --trace and --record go before it
    seed: int = 1
    level: Fraction = 0.35  # mean demand by day of a busy VM, as share of its size


class Placement(Schema):
    """Where VMs are at the start. Random: as on a site that grew without a plan."""

    rule: Literal["best-fit", "random"] = "best-fit"
    memory_limit: Fraction = 1.0  # of a host's memory that is filled at most
    seed: int = 1


class Migration(Schema):
    """How the site's hypervisors migrate."""

    bandwidth: Rate | None = None  # the most one migration gets, bytes per second
    cpu_loss: Share = 0.10  # of what the VM gets meanwhile
    setup: Duration = 0.0  # before the first byte
    switch_over: Duration = 0.0  # pause beyond the copying of the last pages
    disk_locks: bool = True  # without them a VM may come to run twice when a host fails
    locks_shown: bool = True  # whether hypervisors tell of them


class PowerTimes(Schema):
    """How hosts go on and off. `follows_vms`: at once, with the first and the last VM."""

    boot: Duration = 120.0
    shutdown: Duration = 30.0
    follows_vms: bool = False
    start_empty_off: bool = False  # hosts without a VM are off at the start


class FaultKind(StrEnum):
    """What a scenario can let go wrong."""

    HOST_CRASH = "host-crash"
    VM_CRASH = "vm-crash"  # its process dies; it is started again where it was
    UNREACHABLE = "unreachable"  # its hypervisor's daemon hangs
    DAEMON_KILLED = "daemon-killed"  # and started again when the fault ends
    FROZEN_COUNTERS = "frozen-counters"
    ABSURD_READING = "absurd-reading"
    MIGRATION_FAILS = "migration-fails"
    NETWORK_CUT = "network-cut"
    TARGET_FULL = "target-full"  # it has no memory for another VM
    STORAGE_FULL = "storage-full"  # it has no room for another local disk
    POWER_ON_FAILS = "power-on-fails"
    CLOCK_SET = "clock-set"  # its clock is ahead of the others', or behind
    BASE_CHANGED = "base-changed"  # its base images are not those of the others any more
    POWER_OFF_FAILS = "power-off-fails"  # it hangs in its shutdown, and is back after that


class Fault(Schema):
    """One fault: at a time, or again and again at a rate. Without a name it strikes any host (or
    VM)."""

    kind: FaultKind
    host: str = ""
    vm: str = ""  # of vm-crash
    at: Duration | None = None  # since the start
    lasts: Duration = 10 * MINUTE
    per_day: Annotated[float, Field(gt=0)] | None = None  # mean number, at random times
    chance: Share = 1.0  # of migration-fails: the share of migrations it strikes
    phase: Phase = "perform"  # of migration-fails: when

    @model_validator(mode="after")
    def _one_way_of_saying_when(self) -> Self:
        if self.at is not None and self.per_day is not None:
            raise ValueError("a fault has either at or per_day, not both")
        always = self.kind is FaultKind.MIGRATION_FAILS
        if self.at is None and self.per_day is None and not always:
            raise ValueError("a fault needs at or per_day")
        return self


class Scenario(Schema):
    """A simulated site and its load, for a span of time."""

    name: str
    summary: str = ""
    start: Moment
    duration: Annotated[Duration, Field(gt=0)] = DAY
    cycle: Annotated[Duration, Field(gt=0)] = 60.0  # between two decisions
    settle: Duration = 0.0  # so long after a look comes the cycle that goes by the load since
    memory: Literal["free", "enforced"] = "enforced"
    hosts: Annotated[tuple[Hosts, ...], Field(min_length=1)]
    flavours: Annotated[tuple[Flavour, ...], Field(min_length=1)]
    vms: VMs = VMs()
    network: Network = Network()
    placement: Placement = Placement()
    load: Load = Load()
    migration: Migration = Migration()
    power: PowerTimes = PowerTimes()
    faults: tuple[Fault, ...] = ()
    seed: int = 1  # of the faults

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        counted = [flavour.count is not None for flavour in self.flavours]
        if any(counted) and not all(counted):
            raise ValueError("either every flavour has a count or none has")
        if self.vms.count and all(counted):
            raise ValueError("vms.count is the sum of the flavours' counts; leave it out")
        if self.load.kind is LoadKind.GENERATED and not (self.vms.count or all(counted)):
            raise ValueError("generated load needs vms.count or a count for every flavour")
        return self

    @property
    def vm_count(self) -> int | None:
        """How many VMs the file asks for; None where the load decides it."""
        if self.vms.count:
            return self.vms.count
        counts = [flavour.count for flavour in self.flavours if flavour.count]
        return sum(counts) if counts else None
