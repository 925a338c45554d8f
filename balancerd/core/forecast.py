"""Expected CPU demand of a VM over the planning horizon, and its spread.

What little is known of a VM is filled up from the others: measured shares of size are alike
enough across a site that the mean of all says more than a guess (shrinkage; Efron & Morris 1975,
"Data analysis using Stein's estimator"). Without enough others, a safe share of its size.

Level and variance are followed by exponential smoothing with a time constant (Finch 2009,
"Incremental calculation of weighted mean and variance"), so one reading costs the same however
long the past is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, sqrt

from balancerd.core.model import Forecast

MEMORY = 3600.0  # seconds after which a reading weighs 1/e
UNSEEN_SHARE = 0.5  # of its size is expected of a VM that was never seen
FIRST_TRUST = 0.7  # weight of a single reading of a VM against the mean of all VMs
ENOUGH = 20  # VMs that make a crowd


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a VM's demand: smoothed level, variance, and how long it was seen."""

    at: float
    level: float
    variance: float = 0.0
    span: float = 0.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """What VMs of a site ask for, as shares of their size: mean and standard deviation."""

    share: float
    spread: float


def crowd(levels: Iterable[tuple[float, float]]) -> Crowd | None:
    """The crowd of (level, size) pairs in reference cores; None of too few."""
    shares = [level / size for level, size in levels if size > 0]
    if len(shares) < ENOUGH:
        return None
    mean = sum(shares) / len(shares)
    return Crowd(mean, sqrt(sum((share - mean) ** 2 for share in shares) / len(shares)))


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


def expect(
    past: Past | None, size: float, trusted_after: float, others: Crowd | None = None
) -> Forecast:
    """The forecast of a VM of this size, in reference cores.

    A past shorter than `trusted_after` seconds leans on the others, or without them on a safe
    share of the size, the more so the shorter it is. What was never seen counts at the safe share.
    """
    if past is not None and others is not None:
        return _among(past, size, trusted_after, others)
    if past is None:
        return Forecast(size * UNSEEN_SHARE, size * UNSEEN_SHARE / 2)
    trust = min(past.span / trusted_after, 1.0) if trusted_after else 1.0
    level = trust * past.level + (1.0 - trust) * max(past.level, size * UNSEEN_SHARE)
    spread = trust * sqrt(past.variance) + (1.0 - trust) * size * UNSEEN_SHARE / 2
    return Forecast(min(level, size), spread)


def _among(past: Past, size: float, trusted_after: float, others: Crowd) -> Forecast:
    """A forecast between the VM's own past and what the others do."""
    seen = min(past.span / trusted_after, 1.0) if trusted_after else 1.0
    trust = FIRST_TRUST + (1.0 - FIRST_TRUST) * seen
    level = trust * past.level + (1.0 - trust) * others.share * size
    variance = trust * past.variance + (1.0 - trust) * (others.spread * size) ** 2
    return Forecast(min(level, size), sqrt(variance))
