"""Expected CPU demand of a VM over the planning horizon, and its spread.

Level and variance are followed by exponential smoothing with a time constant (Finch 2009,
"Incremental calculation of weighted mean and variance"), so one reading costs the same however
long the past is.
"""

from dataclasses import dataclass
from math import exp, sqrt

from balancerd.core.model import Forecast

MEMORY = 3600.0  # seconds after which a reading weighs 1/e
UNSEEN_SHARE = 0.5  # of its size is expected of a VM that was never seen


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a VM's demand: smoothed level, variance, and how long it was seen."""

    at: float
    level: float
    variance: float = 0.0
    span: float = 0.0


def remember(past: Past | None, at: float, cpu: float) -> Past:
    """The past with one more reading, in reference cores."""
    if past is None:
        return Past(at, cpu)
    if at <= past.at:
        return past
    weight = 1.0 - exp(-(at - past.at) / MEMORY)
    step = cpu - past.level
    return Past(
        at,
        past.level + weight * step,
        (1.0 - weight) * (past.variance + weight * step * step),
        past.span + at - past.at,
    )


def expect(past: Past | None, size: float, trusted_after: float) -> Forecast:
    """The forecast of a VM of this size, in reference cores.

    A past shorter than `trusted_after` seconds leans on a safe share of the size, the more so the
    shorter it is.
    """
    if past is None:
        return Forecast(size * UNSEEN_SHARE, size * UNSEEN_SHARE / 2)
    trust = min(past.span / trusted_after, 1.0) if trusted_after else 1.0
    level = trust * past.level + (1.0 - trust) * max(past.level, size * UNSEEN_SHARE)
    spread = trust * sqrt(past.variance) + (1.0 - trust) * size * UNSEEN_SHARE / 2
    return Forecast(min(level, size), spread)
