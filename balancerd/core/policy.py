"""What the operator wants: objective, thresholds, constraints, limits, power, and windows of time.

A policy says what, never how. The classes are the schema: field names are the keys of the TOML
file, text with a unit is turned into SI numbers here, and every error carries its path. Sources
of the defaults are in ARCHITECTURE.md ("Defaults").
"""

from datetime import datetime, time, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from balancerd.core.units import parse_duration, parse_rate, parse_size


def _text(parse: Any) -> BeforeValidator:
    """Numbers pass only from defaults and code; a file has to write the unit."""

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, bool | int):
            raise ValueError("a unit is missing")
        return value

    return BeforeValidator(convert)


def _time_of_day(value: Any) -> Any:
    if isinstance(value, time):
        return value
    try:
        if value == "24:00":
            return time(0, 0)
        return datetime.strptime(value, "%H:%M").time()
    except (TypeError, ValueError):
        raise ValueError(f'"{value}" is not a time of day; write for example "22:00"') from None


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f'"{name}" is not an IANA time zone; write for example "Europe/Berlin"'
        ) from None
    return name


Duration = Annotated[float, _text(parse_duration), Field(ge=0, allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(lambda v: parse_size(v) if isinstance(v, str) else v)]
Rate = Annotated[int, BeforeValidator(lambda v: parse_rate(v) if isinstance(v, str) else v)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Zone = Annotated[str, AfterValidator(_zone)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Schema(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


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


class Band(Schema):
    """The dual threshold of one resource, as fractions of a host's capacity."""

    overload: Fraction
    release: Fraction
    landing: Fraction
    idle: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.idle < self.landing <= self.release < self.overload:
            raise ValueError(
                "thresholds must be in order: idle < landing <= release < overload, not "
                f"{self.idle:g}, {self.landing:g}, {self.release:g}, {self.overload:g}"
            )
        return self


class Thresholds(Schema):
    """One band per resource."""

    cpu: Band = Band(overload=0.80, release=0.70, landing=0.65, idle=0.30)
    memory: Band = Band(overload=0.92, release=0.88, landing=0.85, idle=0.30)


class Detection(Schema):
    """From readings to a verdict."""

    window: Duration = 300.0  # overload must hold now and as the mean over this span
    warm_up: Duration = 120.0  # a VM's load is not believed before it was seen this long
    stale_after: Duration = 90.0  # a reading older than this is a gap
    unknown_hosts: Fraction = 0.3  # with a larger share of hosts unknown nothing is planned
    steal: Fraction = (
        0.10  # vCPUs waiting more than this share of the time: overload, whatever CPU says
    )


class Capacity(Schema):
    """What a host can carry at most."""

    cpu_overcommit: Annotated[float, Field(gt=0)] = 8.0  # vCPUs per core
    memory_reserve: Size = 0  # bytes kept for the host itself
    memory_reserve_share: Annotated[float, Field(ge=0, lt=1)] = 0.05  # the larger of the two counts
    enforce_memory: bool = True  # false only for simulated sites that leave memory out
    spread_factor: Annotated[float, Field(ge=0)] = 2.0  # standard deviations kept free of CPU


class Limits(Schema):
    """How much change is allowed."""

    per_site: Annotated[int, Field(ge=1)] = 4  # migrations at once
    per_host: Annotated[int, Field(ge=1)] = 1  # in, and as many out
    per_link: Annotated[int, Field(ge=1)] = 2
    per_plan: Annotated[int, Field(ge=1)] = 1000  # moves
    per_vm_per_day: Annotated[int, Field(ge=1)] = 6  # moves
    bandwidth: Rate = 100 * 2**20  # bytes per second for one migration
    downtime: Duration = 0.3  # the longest pause a migration may end with
    deadline: Duration = 300.0  # floor; three times the prediction where that is longer
    stall: Duration = 60.0  # a migration without progress for this long is given up
    cooldown: Duration = 1800.0  # a VM that moved rests; doubled by each further move in a week
    cooldown_max: Duration = 86400.0
    backoff: Duration = 300.0  # a pair of hosts rests after a failure; doubled by each further one
    plan_life: Duration = 1800.0  # a plan older than this is not carried out
    gain: Annotated[float, Field(ge=0)] = 0.05  # a plan has to better the score by this share


class PowerRules(Schema):
    """Whether idle hosts may sleep, and what always stays awake."""

    sleep_idle: bool = False
    keep_on: Annotated[int, Field(ge=1)] = 1  # hosts
    reserve: Annotated[int, Field(ge=0)] = 1  # empty or spare hosts kept on beyond the need
    idle_for: Duration = 600.0  # a host sleeps only after it was empty this long
    min_on: Duration = 1800.0  # after waking
    min_off: Duration = 600.0  # after going to sleep; an overload elsewhere overrides it


class ConstraintRule(Schema):
    """One rule about VMs and hosts, named by globs. Which keys count depends on `kind`."""

    kind: Literal["together", "apart", "pin", "avoid", "exclude"]
    vms: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    scope: Literal["host", "rack"] = "host"
    name: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "exclude":
            if not (self.vms or self.hosts):
                raise ValueError('"exclude" needs vms, hosts or both')
        elif not self.vms:
            raise ValueError(f'"{self.kind}" needs vms')
        if self.kind in ("pin", "avoid") and not self.hosts:
            raise ValueError(f'"{self.kind}" needs hosts')
        if self.kind in ("together", "apart") and self.hosts:
            raise ValueError(f'"{self.kind}" takes no hosts')
        return self


class Rules(Schema):
    """Everything that a window of time may change."""

    mode: Mode = Mode.ADVISE
    objective: Objective = Objective.SPREAD
    thresholds: Thresholds = Thresholds()
    detection: Detection = Detection()
    capacity: Capacity = Capacity()
    limits: Limits = Limits()
    power: PowerRules = PowerRules()


class Window(Schema):
    """A recurring span of wall-clock time in which a policy changes.

    `days` are those on which the window begins; one that ends before it begins runs past midnight,
    and one that ends when it begins lasts 24 hours.
    """

    name: str
    days: tuple[Day, ...] = DAYS
    start: TimeOfDay = Field(alias="from")
    end: TimeOfDay = Field(alias="to")
    timezone: Zone
    mode: Mode | None = None
    objective: Objective | None = None
    thresholds: dict[str, Any] = {}
    detection: dict[str, Any] = {}
    capacity: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    power: dict[str, Any] = {}

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
        fields = ("mode", "objective", "thresholds", "detection", "capacity", "limits", "power")
        return {name: value for name in fields if (value := getattr(self, name))}


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

    summary: str
    constraint: tuple[ConstraintRule, ...] = ()
    window: tuple[Window, ...] = ()
    name: str = ""
    _variants: tuple[Rules, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _windows_are_valid(self) -> Self:
        base = self.model_dump(include=set(Rules.model_fields))
        for index, window in enumerate(self.window):
            try:
                rules = Rules.model_validate(_merged(base, window.changes()))
            except ValueError as error:
                raise _WindowError(index, error) from None
            self._variants = (*self._variants, rules)
        return self

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


class _WindowError(ValueError):
    """An error inside a window's changes, with the window's place in the file."""

    def __init__(self, index: int, cause: ValueError) -> None:
        super().__init__(f"window[{index}]: {cause}")
        self.index, self.cause = index, cause


def matches(name: str, globs: tuple[str, ...]) -> bool:
    """Whether a VM's or host's name is meant by any of the globs."""
    return any(fnmatchcase(name, glob) for glob in globs)
