"""Seeded demand that looks like a site's: people by day, jobs by night, idle VMs, bursts.

Shapes follow what was found in public VM traces: most VMs idle most of the time, heavy tails in
how long and how high a burst is, a daily and a weekly rhythm shared by the VMs of one service.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from balancerd.adapters.sim.load import Floats, Table
from balancerd.core.units import DAY, HOUR

IDLE, OFFICE, NIGHTLY, STEADY = range(4)
KIND_SHARES = (0.25, 0.45, 0.10, 0.20)
GROUP_SIZE = 8  # VMs of one service on average; they swell and ebb together
WEEKEND = 0.45  # of a working day's office load
BURST_MEAN_GAP = 8 * HOUR
BURST_TAIL = 1.5  # Pareto exponent of a burst's length: finite mean, infinite variance
BURST_SHORTEST = 600.0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a generated span begins, and its steps."""

    start: float  # seconds since the epoch; day and week are UTC's
    step: float
    steps: int

    def times(self) -> Floats:
        """The middle of each step."""
        middles: Floats = self.start + (np.arange(self.steps, dtype=np.float64) + 0.5) * self.step
        return middles


def generate(
    sizes: Floats, start: float, duration: float, step: float, level: float, seed: int
) -> Table:
    """Demand of VMs of these sizes (reference cores).

    `level` is the mean share of its size that an office VM asks for in working hours. The same
    arguments give the same table.
    """
    random = np.random.default_rng(seed)
    rhythm = Rhythm(start, step, ceil(duration / step))
    kinds = random.choice(len(KIND_SHARES), size=len(sizes), p=KIND_SHARES)
    weights = random.lognormal(-0.08, 0.4, size=len(sizes))  # mean 1: some VMs are always busier
    base = _profiles(rhythm)[:, kinds] * weights * level
    groups = random.integers(0, max(len(sizes) // GROUP_SIZE, 1), size=len(sizes))
    swell = _noise(random, rhythm, groups.max() + 1, 0.12)[:, groups]
    own = _noise(random, rhythm, len(sizes), 0.20)
    bursts = _bursts(random, rhythm, len(sizes)) * (kinds != IDLE)
    shares = np.clip(base * np.exp(swell + own) + bursts, 0.005, 1.0)
    return Table(step, shares * sizes)


def _profiles(rhythm: Rhythm) -> Floats:
    """Expected demand of each kind over time, relative to the level (steps x kinds)."""
    times = rhythm.times()
    hour = (times % DAY) / HOUR
    weekday = (times // DAY + 3) % 7  # the epoch began on a Thursday; 0 is Monday
    working = 0.5 * (np.tanh((hour - 8.0) / 0.8) - np.tanh((hour - 18.5) / 1.2))
    lunch = 0.15 * np.exp(-(((hour - 12.5) / 0.7) ** 2))
    office = 0.15 + 0.95 * (working - lunch).clip(0) * np.where(weekday < 5, 1.0, WEEKEND)
    nightly = 0.08 + 1.2 * ((hour >= 1.0) & (hour < 4.5))
    flat = np.ones_like(times)
    return np.column_stack([0.06 * flat, office, nightly, 0.5 * flat])


def _noise(random: np.random.Generator, rhythm: Rhythm, columns: int, spread: float) -> Floats:
    """Autoregressive noise of the given standard deviation; forgets half of itself in an hour."""
    memory = 0.5 ** (rhythm.step / HOUR)
    shocks: Floats = random.standard_normal((rhythm.steps, columns))
    shocks *= spread * (1 - memory**2) ** 0.5
    shocks[0] = random.standard_normal(columns) * spread
    for index in range(1, rhythm.steps):
        shocks[index] += memory * shocks[index - 1]
    return shocks


def _bursts(random: np.random.Generator, rhythm: Rhythm, columns: int) -> Floats:
    """Rare spans of high demand, with heavy-tailed lengths and heights."""
    table = np.zeros((rhythm.steps, columns))
    span = rhythm.step * rhythm.steps
    counts: NDArray[np.int_] = random.poisson(span / BURST_MEAN_GAP, size=columns)
    for column, count in enumerate(counts):
        begins = random.uniform(0, span, size=count)
        lengths = BURST_SHORTEST * (1 + random.pareto(BURST_TAIL, size=count))
        heights = 0.15 * (1 + random.pareto(2.0, size=count))
        for begin, length, height in zip(begins, lengths.clip(max=6 * HOUR), heights, strict=True):
            first, last = int(begin / rhythm.step), int((begin + length) / rhythm.step)
            np.maximum(table[first : last + 1, column], height, out=table[first : last + 1, column])
    return table
