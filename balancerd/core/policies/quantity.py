"""Quantities and names as a TOML file writes them, as types of pydantic fields.

Text with a unit is turned into SI numbers here, at the door; every refusal says what to write.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import time
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from balancerd.core.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

ORDER = "threshold_order"  # type of an error that compares keys of one table with each other


class Schema(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def refuse(complaints: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
    """Raise a ValidationError of several complaints, each with its place below the validated value.

    For validators that compare parts of a document with each other. Without complaints: nothing.
    """
    lines = [
        InitErrorDetails(
            type=PydanticCustomError("complaint", "{text}", {"text": text}), loc=place, input=None
        )
        for place, text in complaints
    ]
    if lines:
        raise ValidationError.from_exception_data("document", lines)


@dataclass(frozen=True, slots=True)
class Unit:
    """A quantity that a file writes as text with a unit and the code holds as an SI number.

    Numbers pass from code and defaults; where the validation's context says `from_file`, the unit
    has to be written.
    """

    noun: str
    example: str
    parse: Callable[[str], float]
    format: Callable[[float], str]

    def read(self, value: Any, info: ValidationInfo) -> Any:
        """The number that a value stands for; ValueError otherwise."""
        if isinstance(value, str):
            try:
                return self.parse(value)
            except OverflowError:
                raise ValueError(f'"{value[:20]}…" is too large') from None
        if isinstance(value, bool) or (info.context or {}).get("from_file"):
            raise ValueError(f"must be a {self.noun} with its unit, for example {self.example}")
        return value


DURATION = Unit("duration", '"90s", "30m" or "1h30m"', parse_duration, format_duration)
SIZE = Unit("size", '"4 GiB" or "500 MB"', parse_size, format_size)
RATE = Unit("rate", '"100 MiB/s" or "1 Gbit/s"', parse_rate, lambda rate: format_size(rate) + "/s")


def _time_of_day(value: Any) -> Any:
    if isinstance(value, time):
        return value
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'"{value}" is not a time of day; write for example "22:00"')
    return time(int(match[1]), int(match[2]))


def end_of_day(value: Any) -> Any:
    """A day may end at "24:00", which no clock shows."""
    return time(0, 0) if value == "24:00" else value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f'"{name}" is not an IANA time zone; write for example "Europe/Berlin"'
        ) from None
    return name


Duration = Annotated[
    float, BeforeValidator(DURATION.read), DURATION, Field(ge=0, allow_inf_nan=False)
]
Size = Annotated[int, BeforeValidator(SIZE.read), SIZE, Field(ge=0)]
Rate = Annotated[int, BeforeValidator(RATE.read), RATE, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Zone = Annotated[str, AfterValidator(_zone)]
Text = Annotated[str, Field(min_length=1)]
