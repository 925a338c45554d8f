"""Expected CPU demand of a VM over the planning horizon, and its spread.

What little is known of a VM is filled up from the others: measured shares of size are alike
enough across a site that the mean of all says more than a guess (shrinkage; Efron & Morris 1975,
"Data analysis using Stein's estimator"). Without enough others, a safe share of its size.

Level and variance are followed by exponential smoothing with a time constant (Finch 2009,
"Incremental calculation of weighted mean and variance"), so one reading costs the same however
long the past is. What `profile` knows of the time of day is added to the level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from balancerd.core.columns import Floats, Forecasts, Table, taken

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


@dataclass(frozen=True, eq=False)
class Pasts(Table[Past]):
    """The pasts of many VMs by columns; `at` is NaN for those that were never seen."""

    at: Floats
    level: Floats
    variance: Floats
    span: Floats

    @classmethod
    def of(cls, pasts: Mapping[str, Past]) -> "Pasts":
        """The same pasts by columns; nothing to do where they are that already."""
        if isinstance(pasts, Pasts):
            return pasts
        values = list(pasts.values())
        return cls(
            tuple(pasts),
            np.array([past.at for past in values], dtype=np.float64),
            np.array([past.level for past in values], dtype=np.float64),
            np.array([past.variance for past in values], dtype=np.float64),
            np.array([past.span for past in values], dtype=np.float64),
        )

    def __getitem__(self, name: str) -> Past:
        row = self.row[name]
        columns = (self.at, self.level, self.variance, self.span)
        return Past(*(float(column[row]) for column in columns))

    def among(self, names: tuple[str, ...]) -> "Pasts":
        """The pasts of these VMs, in their order."""
        if names == self.names:
            return self
        rows = self.rows(names)
        columns = (self.at, self.level, self.variance, self.span)
        return Pasts(names, *(taken(column, rows) for column in columns))


@dataclass(frozen=True, slots=True)
class Crowd:
    """What VMs of a site ask for, as shares of their size: mean and standard deviation."""

    share: float
    spread: float


def crowd(levels: Floats, sizes: Floats) -> Crowd | None:
    """The crowd of VMs with these levels and sizes in reference cores; None of too few.

    VMs that were never seen (NaN) and sizes that cannot be do not count.
    """
    counted = ~np.isnan(levels) & (sizes > 0)
    shares = (levels[counted] / sizes[counted]).tolist()
    if len(shares) < ENOUGH:
        return None
    mean = sum(shares) / len(shares)
    return Crowd(mean, sqrt(sum((share - mean) ** 2 for share in shares) / len(shares)))


def remember(pasts: Pasts, at: Floats, cpu: Floats) -> Pasts:
    """The pasts with one more reading each, in reference cores; none where `at` is NaN."""
    first = np.isnan(pasts.at) & ~np.isnan(at)
    later = at > pasts.at
    gap = np.where(later, at - pasts.at, 0.0)
    weight = 1.0 - np.exp(-gap / MEMORY)
    step = np.where(later, cpu - pasts.level, 0.0)
    variance = (1.0 - weight) * (pasts.variance + weight * step * step)
    return Pasts(
        pasts.names,
        np.where(first | later, at, pasts.at),
        np.where(first, cpu, pasts.level + weight * step),
        np.where(first, 0.0, variance),
        np.where(first, 0.0, pasts.span + gap),
    )


def taking_in(pasts: Pasts, at: float, cpu: Mapping[str, float]) -> Pasts:
    """The pasts with a reading of these VMs, in reference cores; of VMs not known yet too."""
    new = tuple(name for name in cpu if name not in pasts)
    known = pasts.among((*pasts.names, *new)) if new else pasts
    rates = np.array([cpu.get(name, np.nan) for name in known.names], dtype=np.float64)
    return remember(known, np.where(np.isnan(rates), np.nan, at), rates)


def expect(
    pasts: Pasts,
    sizes: Floats,
    trusted_after: float,
    others: Crowd | None = None,
    turn: Floats | None = None,
) -> Forecasts:
    """The forecasts of VMs of these sizes, in reference cores.

    A past shorter than `trusted_after` seconds leans on the others, or without them on a safe
    share of the size, the more so the shorter it is. What was never seen counts at the safe share.
    `turn` is by how much they are expected to differ from their level.
    """
    safe = sizes * UNSEEN_SHARE
    seen = np.minimum(pasts.span / trusted_after, 1.0) if trusted_after else np.ones(len(sizes))
    if others is None:
        level = seen * pasts.level + (1.0 - seen) * np.maximum(pasts.level, safe)
        spread = seen * np.sqrt(pasts.variance) + (1.0 - seen) * safe / 2
    else:
        trust = FIRST_TRUST + (1.0 - FIRST_TRUST) * seen
        level = trust * pasts.level + (1.0 - trust) * others.share * sizes
        variance = trust * pasts.variance + (1.0 - trust) * (others.spread * sizes) ** 2
        spread = np.sqrt(variance)
    never = np.isnan(pasts.at)
    expected = level if turn is None else np.maximum(level + turn, 0.0)
    return Forecasts(
        pasts.names,
        np.where(never, safe, np.minimum(expected, sizes)),
        np.where(never, safe / 2, spread),
        np.full(len(sizes), np.nan),
    )
