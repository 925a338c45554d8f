"""The tables of a policy file but its limits and ladders: a class each, field names are keys.

Sources of the defaults are in ARCHITECTURE.md ("Defaults").
"""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from balancerd.core.policies.choices import Unlocked
from balancerd.core.policies.quantity import ORDER, Duration, Fraction, Schema, Size


class Band(Schema):
    """The dual threshold of one resource, as fractions of a host's capacity."""

    overload: Fraction = Field(description="a host above it, now and in the mean, is relieved")
    release: Fraction = Field(description="unloading stops below it")
    landing: Fraction = Field(description="no target may end above it")
    idle: Annotated[float, Field(ge=0, lt=1)] = Field(description="a host below it may be emptied")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.idle < self.landing <= self.release < self.overload:
            found = f"{self.idle:g}, {self.landing:g}, {self.release:g}, {self.overload:g}"
            raise PydanticCustomError(
                ORDER,
                "thresholds must be in order: idle < landing <= release < overload, not {found}",
                {"found": found},
            )
        return self


CPU_BAND = Band(overload=0.80, release=0.70, landing=0.65, idle=0.30)
MEMORY_BAND = Band(overload=0.92, release=0.88, landing=0.85, idle=0.30)


def _over(default: Band) -> BeforeValidator:
    """Keys that a file leaves out keep their default."""

    def fill(value: Any) -> Any:
        return default.model_dump() | value if isinstance(value, dict) else value

    return BeforeValidator(fill)


class Thresholds(Schema):
    """One band per resource, and how unequal hosts may be."""

    cpu: Annotated[Band, _over(CPU_BAND)] = CPU_BAND
    memory: Annotated[Band, _over(MEMORY_BAND)] = MEMORY_BAND
    imbalance: Annotated[float, Field(ge=0, le=1)] = Field(
        0.15, description="spread: act once a host is further than this above the mean use"
    )
    fill: Fraction = Field(
        1.0, description="pack: how full a host's CPU is made, as a share of landing"
    )
    margin: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.15,
        description="pack: share of that left free where emptying a host takes all of "
        "moves_per_host; less for fewer moves",
    )


class Detection(Schema):
    """From readings to a verdict."""

    window: Duration = Field(300.0, description="overload must hold now and as mean over this span")
    wavers: bool = Field(
        default=True,
        description="a host whose load only wavers over `overload`, and usually is well below, is "
        "left in peace; false: it is relieved like any other",
    )
    waver_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of the time that a host may be full as loads come and go: with room for "
        "that it is left in peace though VMs wait, without it relieved until it has room for a "
        "tenth of it; peaks that are over at once are relieved all the same. 0: so is all",
    )
    warm_up: Duration = Field(120.0, description="a VM seen for less has no load to go by yet")
    trusted_after: Duration = Field(
        1800.0, description="a VM seen for less counts, in part, at half its size"
    )
    horizon: Duration = Field(
        3600.0, description="how far ahead demand is expected, and a plan's gain counted"
    )
    stale_after: Duration = Field(90.0, description="an older reading is a gap")
    unknown_hosts: Fraction = Field(
        0.3, description="with a larger share of hosts unknown nothing is planned"
    )
    steal: Fraction = Field(
        0.10, description="vCPUs waiting for more of the time: overload, whatever CPU says"
    )
    shortage: Fraction = Field(
        0.05,
        description="a host or its VMs visibly lacking more of its memory than it has free (guests "
        "that swap while their balloon holds memory; tasks of the host that wait for it): overload",
    )


class Capacity(Schema):
    """What a host can carry at most."""

    cpu_overcommit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        8.0, description="vCPUs per core"
    )
    vms_per_host: Annotated[int, Field(ge=1)] | None = Field(
        None, description="VMs that a host takes at most"
    )
    memory_reserve: Size = Field(0, description="memory kept for the host itself")
    memory_reserve_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="the same as a share of the host's memory; the larger of the two counts"
    )
    enforce_memory: bool = Field(
        default=True, description="false only for simulated sites that leave memory out"
    )
    spread_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        2.0, description="standard deviations of the forecast kept free of CPU"
    )


class DefragmentRules(Schema):
    """For which size of VM objective "defragment" makes room, and how hard it tries."""

    vcpus: Annotated[int, Field(ge=0)] = Field(
        0,
        description="vCPUs of the VM that room is made for; 0: the largest size that at least one "
        "VM in a hundred has",
    )
    memory: Size = Field(
        0, description="memory of that VM, used only with `vcpus`; 0: it is not looked at"
    )
    worth: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="such VMs that each move has to make room for, on average"
    )


class Costs(Schema):
    """What changes and states cost against each other, in units of the operator's choice."""

    move: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="one migration; a VM's tag `move-cost` names its own instead"
    )
    gib: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.05, description="each GiB that a migration sends, on top of `move`"
    )
    host: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        25.0, description="pack: a host that carries VMs"
    )
    watt: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.3, description="pack: each watt of it beyond what its load would draw elsewhere"
    )
    crowding: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="quiet: each reference core expected on a host above `crowded`"
    )
    crowded: Fraction = Field(0.65, description="quiet: share of a host's CPU that costs nothing")


class Methods(Schema):
    """By which methods VMs may be moved, beside pre-copy."""

    auto_converge: bool = Field(
        default=True, description="slow a VM down that writes faster than it can be copied"
    )
    post_copy: bool = Field(
        default=False,
        description="let such a VM run on the target before its memory is there, if its tag "
        "`post-copy` says so, too; a failure half-way loses it",
    )
    storage: bool = Field(
        default=False,
        description="copy disks along that only one host has; the old images stay where they are",
    )
    overlay: bool = Field(
        default=False,
        description="of a local disk that lies on a base image copy only what lies on top, if the "
        "VM's tag `overlay` says so, too; that the target's base is the same is judged by its "
        "size, its time of change and samples, and one that differs all the same ruins the disk",
    )
    unlocked: Unlocked = Field(
        default=Unlocked.HAND_OVER,
        description="how to move a VM whose disks no lock is known to keep a second QEMU from: it "
        "arrives paused and goes on once its source is seen to be gone (`hand-over`), not at all "
        "(`refuse`), or like any other (`plain`, for hosts with lockd or sanlock)",
    )
    cold: bool = Field(
        default=True,
        description="let VMs that are shut off follow a drain; one that runs is never shut down",
    )


class PowerRules(Schema):
    """Whether idle hosts may sleep, and what always stays awake."""

    sleep_idle: bool = Field(default=False, description="put empty hosts to sleep")
    keep_on: Annotated[int, Field(ge=1)] = Field(1, description="hosts that are never put to sleep")
    reserve: Annotated[int, Field(ge=0)] = Field(
        1,
        description="hosts that may fail: what they carry has room, and each one's VMs elsewhere",
    )
    idle_for: Duration = Field(600.0, description="a host sleeps only after it was empty so long")
    min_on: Duration = Field(1800.0, description="after waking, a host stays on so long")
    min_off: Duration = Field(
        600.0, description="after going to sleep, a host stays off so long; overload overrides it"
    )
    wake_any: bool = Field(
        default=False,
        description="wake also hosts that something other than balancerd switched off",
    )


class Exact(Schema):
    """What the solver of the exact engine may take, each time."""

    seconds: Annotated[Duration, Field(gt=0, le=60)] = Field(
        10.0, description="time to find something better than the built-in plan"
    )
    memory: Annotated[Size, Field(gt=0)] = Field(
        2 * 2**30, description="memory; a program too large for it leaves the built-in plan"
    )
