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

from balancerd.core.columns import Bools, Floats, Forecasts, Table, taken, total
from balancerd.core.units import DAY, HOUR

MEMORY = 3600.0  # seconds after which a reading weighs 1/e
UNSEEN_SHARE = 0.5  # of its size is expected of a VM that was never seen
FIRST_TRUST = 0.7  # weight of a single reading of a VM against the mean of all VMs
ENOUGH = 20  # VMs that make a crowd
SHORTLY = 300.0  # seconds: what is over after about so long is a peak, and no waver
LASTS = 0.5  # share of what a waver strays that is still there the next time
AS_USUAL = 2.0  # standard deviations by which a level may differ from what is usual


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a VM's demand: smoothed level, variance, and how long it was seen."""

    at: float
    level: float
    variance: float = 0.0
    span: float = 0.0
    strayed: float = 0.0  # from the level, of late
    waver: float = 0.0  # square of that in the mean of a day, each reading by itself
    lasting: float = 0.0  # the part of it that a reading has in common with those just before


@dataclass(frozen=True, eq=False)
class Pasts(Table[Past]):
    """The pasts of many VMs by columns; `at` is NaN for those that were never seen."""

    at: Floats
    level: Floats
    variance: Floats
    span: Floats
    strayed: Floats
    waver: Floats
    lasting: Floats

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
            np.array([past.strayed for past in values], dtype=np.float64),
            np.array([past.waver for past in values], dtype=np.float64),
            np.array([past.lasting for past in values], dtype=np.float64),
        )

    @property
    def columns(self) -> tuple[Floats, ...]:
        """All that is kept, in the order of `Past`."""
        kept = self.at, self.level, self.variance, self.span
        return (*kept, self.strayed, self.waver, self.lasting)

    def __getitem__(self, name: str) -> Past:
        row = self.row[name]
        return Past(*(float(column[row]) for column in self.columns))

    def among(self, names: tuple[str, ...]) -> "Pasts":
        """The pasts of these VMs, in their order."""
        if names == self.names:
            return self
        rows = self.rows(names)
        return Pasts(names, *(taken(column, rows) for column in self.columns))


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
    shares = levels[counted] / sizes[counted]
    if len(shares) < ENOUGH:
        return None
    mean = sum(shares.tolist()) / len(shares)
    apart = shares - mean
    return Crowd(mean, sqrt(sum((apart * apart).tolist()) / len(shares)))


def remember(pasts: Pasts, at: Floats, cpu: Floats) -> Pasts:
    """The pasts with one more reading each, in reference cores; none where `at` is NaN."""
    first = np.isnan(pasts.at) & ~np.isnan(at)
    later = at > pasts.at
    gap = np.where(later, at - pasts.at, 0.0)
    weight = 1.0 - np.exp(-gap / MEMORY)
    step = np.where(later, cpu - pasts.level, 0.0)
    variance = (1.0 - weight) * (pasts.variance + weight * step * step)
    slowly = gap / np.maximum(np.minimum(pasts.span + gap, DAY), gap + ~later)
    of_late = pasts.strayed + (1.0 - np.exp(-gap / SHORTLY)) * (step - pasts.strayed)
    return Pasts(
        pasts.names,
        np.where(first | later, at, pasts.at),
        np.where(first, cpu, pasts.level + weight * step),
        np.where(first, 0.0, variance),
        np.where(first, 0.0, pasts.span + gap),
        np.where(first, 0.0, of_late),
        np.where(first, 0.0, pasts.waver + slowly * (step * step - pasts.waver)),
        np.where(first, 0.0, pasts.lasting + slowly * (step * pasts.strayed - pasts.lasting)),
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
    usual: Floats | None = None,
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
    usual = np.full(len(sizes), np.nan) if usual is None else usual
    wavers = wavering(pasts, usual)
    level = np.where(wavers, usual, level)
    spread = np.where(wavers, np.sqrt(_foreseen(pasts)), spread)
    expected = level if turn is None else np.maximum(level + turn, 0.0)
    return Forecasts(
        pasts.names,
        np.where(never, safe, np.minimum(expected, sizes)),
        np.where(never, safe / 2, spread),
        usual,
        wavers,
    )


def _foreseen(pasts: Pasts) -> Floats:
    """The variance around what is usual, which is the mean of what was seen of a day, and itself
    off by what an hour's memory of so many hours leaves (Var = 2 τ / T of the waver's)."""
    span = np.minimum(np.maximum(pasts.span, HOUR), DAY)
    return np.asarray(pasts.waver * (1.0 + 2.0 * MEMORY / span))


def wavering(pasts: Pasts, usual: Floats) -> Bools:
    """Which VMs stray from what is usual for them, and will come back to it.

    A level that differs from it by more than it strays is one that changed, and so are all where
    together they differ by more than all stray. Where most of what the VMs of a site stray by is
    over by the next reading, what lasts of one is chance, or a change: there none wavers.
    """
    none = np.zeros(len(pasts.names), dtype=np.bool_)
    if total(pasts.lasting) <= LASTS * total(pasts.waver):
        return none
    lasts = pasts.lasting > LASTS * pasts.waver
    near = np.abs(pasts.level - usual) <= AS_USUAL * np.sqrt(pasts.waver)
    wavers = np.asarray(lasts & near)
    apart = abs(float((pasts.level - usual)[wavers].sum()))
    if apart > AS_USUAL * sqrt(float(pasts.waver[wavers].sum())):
        return none
    return wavers
