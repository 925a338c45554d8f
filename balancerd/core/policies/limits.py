"""How much change a policy allows."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from balancerd.core.policies.quantity import ORDER, Duration, Fraction, Rate, Schema, Size

LONGEST_REST = 3 * 86400.0  # seconds; what is remembered of the past follows from it


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
    moves_per_peak: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="moves that relieving a host of CPU may take where it is not expected to stay "
        "so busy; what takes more is sat out. Without it, as many as it needs",
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
    clock_skew: Duration = Field(
        60.0,
        description="a VM that runs does not move between hosts whose clocks differ by more, "
        "as far as they are known",
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
            raise PydanticCustomError(ORDER, "cooldown must not be longer than cooldown_max")
        return self
