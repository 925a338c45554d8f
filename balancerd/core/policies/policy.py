"""What the operator wants: objective, thresholds, constraints, limits, power, and windows of time.

A policy says what, never how. The classes are the schema: field names are the keys of the TOML
file, text with a unit is turned into SI numbers here, and every error carries its path. Sources
of the defaults are in ARCHITECTURE.md ("Defaults").
"""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from balancerd.core.policies.ladder import Ladders
from balancerd.core.policies.quantity import Duration as Duration
from balancerd.core.policies.quantity import Fraction as Fraction
from balancerd.core.policies.quantity import Rate as Rate
from balancerd.core.policies.quantity import Schema as Schema
from balancerd.core.policies.quantity import Size as Size
from balancerd.core.policies.quantity import Text, TimeOfDay, Zone, end_of_day
from balancerd.core.policies.rule import ConstraintRule as ConstraintRule

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Mode(StrEnum):
    """How far balancerd may go on its own."""

    OBSERVE = "observe"
    ADVISE = "advise"
    ACT = "act"


class Objective(StrEnum):
    """What a good placement is."""

    SPREAD = "spread"  # equal headroom, worst host first
    PACK = "pack"  # few hosts, little power
    QUIET = "quiet"  # only repair overloads and broken rules
    DRAIN = "drain"  # only empty the hosts that are being drained
    DEFRAGMENT = "defragment"  # room in one piece for big VMs


class Engine(StrEnum):
    """What decides, once all that is urgent is decided."""

    BUILTIN = "builtin"
    EXACT = "exact"  # a solver, from the built-in plan on
    SHADOW = "shadow"  # the built-in plan, and what the solver would have had for it


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
                _ORDER,
                "thresholds must be in order: idle < landing <= release < overload, not {found}",
                {"found": found},
            )
        return self


LONGEST_REST = 3 * 86400.0  # seconds; what is remembered of the past follows from it
_ORDER = "threshold_order"
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


class Limits(Schema):
    """How much change is allowed."""

    per_site: Annotated[int, Field(ge=1)] = Field(4, description="migrations at once")
    per_host: Annotated[int, Field(ge=1)] = Field(
        1, description="migrations at once out of a host, and as many into it"
    )
    per_link: Annotated[int, Field(ge=1)] = Field(
        4, description="migrations at once over a link, each way"
    )
    storage_weight: Annotated[int, Field(ge=1)] = Field(
        4, description="as how many migrations one counts that copies disks"
    )
    link_share: Fraction = Field(
        0.9, description="share of what production leaves of a link that migrations may use"
    )
    per_plan: Annotated[int, Field(ge=1)] = Field(1000, description="moves in one plan")
    moves_per_host: Annotated[int, Field(ge=1)] = Field(
        50, description="pack: moves that emptying one more host may take"
    )
    per_vm_per_day: Annotated[int, Field(ge=1)] = Field(6, description="moves of one VM in 24 h")
    per_vm_per_week: Annotated[int, Field(ge=1)] = Field(20, description="the same in 7 days")
    link_bytes_per_day: Size | None = Field(
        None, description="bytes that migrations may send over a link in 24 h, each way"
    )
    bandwidth: Annotated[Rate, Field(gt=0)] = Field(100 * 2**20, description="cap of one migration")
    downtime: Duration = Field(
        0.5, description="the longest pause a migration may end with, on whatever ladder"
    )
    deadline: Duration = Field(
        300.0, description="a migration is given up after this, or three times its prediction"
    )
    stall: Duration = Field(
        60.0, description="a migration without progress for so long is given up"
    )
    cooldown: Duration = Field(
        1800.0, description="a VM that moved rests so long; doubled by each further move in a week"
    )
    cooldown_max: Annotated[Duration, Field(le=LONGEST_REST)] = Field(
        86400.0, description="the longest such rest, at most three days"
    )
    backoff: Duration = Field(
        300.0, description="a pair of hosts rests after a failure; doubled by each further one"
    )
    veto: Duration = Field(
        3600.0, description="a VM that somebody else moved, paused or stopped is left alone so long"
    )
    plan_life: Duration = Field(1800.0, description="an older plan is not carried out")
    gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.05,
        description="a plan has to better the score by this share; "
        "pack and quiet weigh their moves by `[costs]` instead",
    )
    benefit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        3.0, description="spread: moves have to spare VMs so many times the waiting that they cost"
    )
    drift: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="share by which demand may change beyond what is forecast, for `benefit`"
    )

    @model_validator(mode="after")
    def _rest_has_room(self) -> Self:
        if self.cooldown > self.cooldown_max:
            raise PydanticCustomError(_ORDER, "cooldown must not be longer than cooldown_max")
        return self


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


class Unlocked(StrEnum):
    """How to move a VM whose disks no lock is known to keep a second QEMU from."""

    HAND_OVER = "hand-over"  # it arrives paused, and goes on once its source is seen to be gone
    REFUSE = "refuse"
    PLAIN = "plain"  # like any other: where a manager of locks is known to be in force


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


class Rules(Schema):
    """Everything that a window of time may change."""

    mode: Mode = Field(Mode.ADVISE, description="how far balancerd may go on its own")
    objective: Objective = Field(Objective.SPREAD, description="what a good placement is")
    thresholds: Thresholds = Thresholds()
    detection: Detection = Detection()
    capacity: Capacity = Capacity()
    limits: Limits = Limits()
    costs: Costs = Costs()
    defragment: DefragmentRules = DefragmentRules()
    methods: Methods = Methods()
    power: PowerRules = PowerRules()
    ladder: Ladders = Ladders()


@dataclass(frozen=True, slots=True)
class Changes:
    """Marks a table of a window: any keys of `model`, given as they are written.

    What only makes sense together with the policy's own keys (an order of thresholds) is left to
    `Policy`, which sees both.
    """

    model: type[Schema]

    def check(self, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """The table itself; ValidationError for its errors, at their places within it."""
        try:
            self.model.model_validate_json(
                json.dumps(value, default=str), strict=True, context=info.context, by_name=False
            )
        except ValidationError as error:
            _raise_again(error, [line for line in error.errors() if line["type"] != _ORDER])
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(self.model.__pydantic_core_schema__)


def _raise_again(error: ValidationError, details: list[Any]) -> None:
    """Raise the error with these details of it only; not at all without any."""
    lines = [
        InitErrorDetails(
            type=detail["type"],
            loc=detail["loc"],
            input=detail["input"],
            ctx=detail.get("ctx", {}),
        )
        for detail in details
    ]
    if lines:
        raise ValidationError.from_exception_data(error.title, lines)


class Window(Schema):
    """A recurring span of wall-clock time in which a policy changes.

    `days` are those on which the window begins; one that ends before it begins runs past midnight,
    and one that ends when it begins lasts 24 hours. Where a clock change repeats an hour, both are
    meant; where it skips one, what lies in it does not happen.
    """

    name: Text = Field(description="what `status` calls it")
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = Field(
        DAYS, description="days on which it begins"
    )
    start: TimeOfDay = Field(alias="from", description='time of day, as in "22:00"')
    end: Annotated[TimeOfDay, BeforeValidator(end_of_day)] = Field(
        alias="to", description="time of day; before `from`: on the next day"
    )
    timezone: Zone = Field(description='IANA time zone, as in "Europe/Berlin"')
    mode: Mode | None = Field(None, description="as in the policy")
    objective: Objective | None = Field(None, description="as in the policy")
    thresholds: Annotated[dict[str, Any], Changes(Thresholds)] = Field(
        {}, description="keys of `[thresholds]`"
    )
    detection: Annotated[dict[str, Any], Changes(Detection)] = Field(
        {}, description="keys of `[detection]`"
    )
    capacity: Annotated[dict[str, Any], Changes(Capacity)] = Field(
        {}, description="keys of `[capacity]`"
    )
    limits: Annotated[dict[str, Any], Changes(Limits)] = Field({}, description="keys of `[limits]`")
    costs: Annotated[dict[str, Any], Changes(Costs)] = Field({}, description="keys of `[costs]`")
    defragment: Annotated[dict[str, Any], Changes(DefragmentRules)] = Field(
        {}, description="keys of `[defragment]`"
    )
    methods: Annotated[dict[str, Any], Changes(Methods)] = Field(
        {}, description="keys of `[methods]`"
    )
    power: Annotated[dict[str, Any], Changes(PowerRules)] = Field(
        {}, description="keys of `[power]`"
    )
    ladder: Annotated[dict[str, Any], Changes(Ladders)] = Field(
        {}, description="keys of `[ladder]`"
    )

    def contains(self, now: float) -> bool:
        """Whether the moment lies in the window, by the wall clock of its zone."""
        local = datetime.fromtimestamp(now, ZoneInfo(self.timezone))
        today, clock = DAYS[local.weekday()], local.time()
        yesterday = DAYS[(local - timedelta(days=1)).weekday()]
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        late = today in self.days and clock >= self.start
        return late or (yesterday in self.days and clock < self.end)

    def changes(self) -> dict[str, Any]:
        """What the window puts in place of the policy's own rules; tables are merged key by key."""
        return {name: value for name in _RULES if (value := getattr(self, name))}


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, tables key by key."""
    return base | {
        key: _merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in changes.items()
    }


class Policy(Rules):
    """A policy file. `at` gives the rules in force at a moment."""

    summary: Text = Field(description="what the policy is for, in one line")
    engine: Engine = Field(
        Engine.BUILTIN,
        description='what decides about "pack" and "quiet"; "exact" and "shadow" need the extra '
        "balancerd[optimizer]",
    )
    exact: Exact = Exact()
    constraint: tuple[ConstraintRule, ...] = ()
    window: tuple[Window, ...] = ()
    name: str = Field("", description="what plans call it; without it, the file's name")
    _variants: tuple[Rules, ...] = PrivateAttr(default=())

    @field_validator("constraint")
    @classmethod
    def _named(cls, rules: tuple[ConstraintRule, ...]) -> tuple[ConstraintRule, ...]:
        """Rules without a name are called by their place in the file."""
        return tuple(
            rule if rule.name else rule.model_copy(update={"name": f"constraint[{index}]"})
            for index, rule in enumerate(rules)
        )

    @field_validator("window")
    @classmethod
    def _windows_fit(cls, windows: tuple[Window, ...], info: ValidationInfo) -> tuple[Window, ...]:
        """Each window's rules have to be valid as a whole, whatever else is wrong in the file."""
        _in_force({name: info.data[name] for name in _RULES if name in info.data}, windows)
        twice = [name for name, count in Counter(w.name for w in windows).items() if count > 1]
        if twice:
            raise ValueError(f'two windows have the name "{twice[0]}"')
        return windows

    def model_post_init(self, _: Any) -> None:
        """Make the rules of each window once, not at every question."""
        self._variants = _in_force({name: getattr(self, name) for name in _RULES}, self.window)

    def window_at(self, now: float) -> Window | None:
        """The window that counts at a moment: the first in the file that contains it."""
        return next((window for window in self.window if window.contains(now)), None)

    def at(self, now: float) -> "Policy":
        """The policy as it stands at a moment; its windows are kept, its rules are the window's."""
        for window, rules in zip(self.window, self._variants, strict=True):
            if window.contains(now):
                return self.model_copy(update={name: getattr(rules, name) for name in _RULES})
        return self


_RULES = tuple(Rules.model_fields)
_VARIANTS = TypeAdapter(tuple[Rules, ...])


def _in_force(own: dict[str, Any], windows: tuple[Window, ...]) -> tuple[Rules, ...]:
    """The rules during each window; ValidationError where they do not fit the policy's own."""
    base = Rules.model_construct(**own).model_dump()
    return _VARIANTS.validate_python([_merged(base, window.changes()) for window in windows])
