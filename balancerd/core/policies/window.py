"""The rules that may change, and the recurring spans of wall-clock time that change them."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from balancerd.core.policies.choices import Mode, Objective
from balancerd.core.policies.ladder import Ladders
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.quantity import ORDER, Schema, Text, TimeOfDay, Zone, end_of_day
from balancerd.core.policies.tables import (
    Capacity,
    Costs,
    DefragmentRules,
    Detection,
    Methods,
    PowerRules,
    Thresholds,
)

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


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


RULES = tuple(Rules.model_fields)


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
            _raise_again(error, [line for line in error.errors() if line["type"] != ORDER])
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
        return {name: value for name in RULES if (value := getattr(self, name))}
