"""From raw counters to rates: what all VMs, or all hosts, ask for now.

A counter that went backwards was reset (the VM was started again, or arrived from another host);
the first reading after that only sets a new base. A reading that cannot be true is a `Doubt`, a
value, and leaves the subject's track as it was.

Everything is columns: entry i is of the i-th subject, and NaN is what is not known. VMs and hosts
are followed alike; what is particular to either is in how `counters` reads them.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from balancerd.core.columns import Bools, Floats, Ints, Loads, rows_where, taken
from balancerd.core.sensing.counters import Doubt, Seen

Column = TypeVar("Column", Floats, Ints)


@dataclass(frozen=True, slots=True)
class Points:
    """Rates, oldest first, and the spans of time they are the means of; `at` is a span's end.

    All of it is in one array: the figures in that order, a row for each reading, a column for each
    subject.
    """

    figures: Floats

    @classmethod
    def none(cls, subjects: int) -> "Points":
        """No reading yet of so many."""
        return cls(np.empty((3, 0, subjects)))

    @classmethod
    def one(cls, at: Floats, span: Floats, cpu: Floats) -> "Points":
        """A single reading of each subject."""
        return cls(np.array(((at,), (span,), (cpu,))))

    @property
    def at(self) -> Floats:
        """When each span of time ended; NaN where no rate is known."""
        at: Floats = self.figures[0]
        return at

    @property
    def span(self) -> Floats:
        """Seconds."""
        span: Floats = self.figures[1]
        return span

    @property
    def cpu(self) -> Floats:
        """Reference cores."""
        cpu: Floats = self.figures[2]
        return cpu

    def of(self, rows: Ints) -> "Points":
        """Those of these subjects; NaN for row -1."""
        nothing = np.full((*self.figures.shape[:2], 1), np.nan)
        return Points(np.concatenate((self.figures, nothing), axis=2)[:, :, rows])

    def after(self, begin: float) -> "Points":
        """The readings of which at least one is later."""
        late = (self.at > begin).any(axis=1)
        return self if late.all() else Points(self.figures[:, late])

    def then(self, newest: "Points") -> "Points":
        """With another reading."""
        return Points(np.concatenate((self.figures, newest.figures), axis=1))


@dataclass(frozen=True, slots=True)
class Tracks:
    """The last counters of many subjects, their recent rates, and what these came to.

    `at` is NaN for those without counters yet, and `loads.cpu` for those without a rate. Points
    that are not later than `void` do not count any more.
    """

    place: tuple[str, ...]
    at: Floats
    cpu_seconds: Floats
    steal_seconds: Floats
    network: Floats
    block: Floats
    strained_seconds: Floats
    void: Floats
    points: Points
    loads: Loads

    @classmethod
    def none(cls) -> "Tracks":
        """Of nobody."""
        empty = np.empty(0)
        tracks = empty, empty, empty, empty, empty, empty, empty
        return cls((), *tracks, Points.none(0), Loads.of({}))

    @property
    def names(self) -> tuple[str, ...]:
        """Whose tracks these are, in order."""
        return self.loads.names

    def of(self, names: tuple[str, ...]) -> "Tracks":
        """The tracks of these subjects, in their order; of those not known, empty ones."""
        if names == self.names:
            return self
        rows = self.loads.rows(names)
        place = (*self.place, "")
        return Tracks(
            place=tuple(place[index] for index in rows.tolist()),
            at=taken(self.at, rows),
            cpu_seconds=taken(self.cpu_seconds, rows),
            steal_seconds=taken(self.steal_seconds, rows),
            network=taken(self.network, rows),
            block=taken(self.block, rows),
            strained_seconds=taken(self.strained_seconds, rows),
            void=taken(self.void, rows),
            points=self.points.of(rows),
            loads=_taken_loads(self.loads, names, rows),
        )

    def forget(self, names: Collection[str]) -> "Tracks":
        """The same, but what was measured of these before tells nothing of now."""
        rows = [self.loads.row[name] for name in names if name in self.loads.row]
        void = self.void.copy()
        void[rows] = self.at[rows]
        return replace(self, void=void)


def _taken_loads(loads: Loads, names: tuple[str, ...], rows: Ints) -> Loads:
    return Loads(
        names,
        taken(loads.cpu, rows),
        taken(loads.cpu_mean, rows),
        np.append(loads.memory, 0)[rows],
        taken(loads.steal, rows),
        taken(loads.network, rows),
        taken(loads.block, rows),
        np.append(loads.readings, 0)[rows],
        taken(loads.since, rows),
        taken(loads.dirty_rate, rows),
        taken(loads.shortage, rows),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """What one more reading adds: whose counters are a new base, whose rates are known by it."""

    taken: Bools
    lost: Bools  # measured before, and void now
    newest: Points  # one reading; NaN where no rate is known
    doubts: dict[str, Doubt]


@dataclass(frozen=True, slots=True)
class _Choice:
    """New figures for some subjects, and for the others old ones."""

    which: Bools
    everybody: bool

    @classmethod
    def of(cls, which: Bools) -> "_Choice":
        """For these subjects, which mostly are all."""
        return cls(which, bool(which.all()))

    def __call__(self, new: Column, old: Column) -> Column:
        return new if self.everybody else np.where(self.which, new, old)


def follow(tracks: Tracks, seen: Seen, window: float) -> tuple[Tracks, dict[str, Doubt]]:
    """The tracks of those seen, with one more reading; `window` is in seconds.

    Who is not among `seen.names` is forgotten. A doubtful reading changes nothing.
    """
    old = tracks.of(seen.names)
    step = _step(old, seen)
    fresh = step.taken
    void = np.where(step.lost, seen.at, old.void)
    points = _recent(old.points, seen, window).then(step.newest)
    begin = np.fmax(step.newest.at[0] - window, void)
    newer = _Choice.of(fresh)
    followed = Tracks(
        place=_where(fresh, seen.place, old.place),
        at=newer(seen.at, old.at),
        cpu_seconds=newer(seen.cpu_seconds, old.cpu_seconds),
        steal_seconds=newer(seen.steal_seconds, old.steal_seconds),
        network=newer(seen.network, old.network),
        block=newer(seen.block, old.block),
        strained_seconds=newer(seen.strained_seconds, old.strained_seconds),
        void=void,
        points=points,
        loads=_loads(old, seen, step, points, begin),
    )
    return followed, step.doubts


def _step(old: Tracks, seen: Seen) -> _Step:
    newer = seen.told & ~(seen.at <= old.at)
    based = newer & ~np.isnan(old.at)
    used = seen.cpu_seconds - old.cpu_seconds
    here = _alike(old.place, seen.place)
    grown = based & here & (used >= 0)
    span = np.where(grown, seen.at - old.at, 1.0)
    cpu = used / span * seen.core
    doubtful = grown & (cpu > seen.most)
    measured = grown & ~doubtful
    return _Step(
        taken=newer & ~doubtful,
        lost=based & ~grown & seen.forgets,
        newest=Points.one(np.where(measured, seen.at, np.nan), span, np.minimum(cpu, seen.size)),
        doubts={
            seen.names[row]: Doubt(f"used {cpu[row]:.1f} cores of {seen.size[row]:.1f}")
            for row in rows_where(doubtful).tolist()
        },
    )


def _alike(one: tuple[str, ...], other: tuple[str, ...]) -> Bools:
    if one is other:
        return np.ones(len(one), dtype=np.bool_)
    return np.array([a == b for a, b in zip(one, other, strict=True)], dtype=np.bool_)


def _where(which: Bools, new: tuple[str, ...], old: tuple[str, ...]) -> tuple[str, ...]:
    if new is old or which.all():
        return new
    pairs = zip(which.tolist(), new, old, strict=True)
    return tuple(here if new_one else there for new_one, here, there in pairs)


def _recent(points: Points, seen: Seen, window: float) -> Points:
    """The points of which at least one may still be within the window that ends now."""
    if not seen.told.any():
        return points
    return points.after(float(seen.at[seen.told].min()) - window)


def _loads(old: Tracks, seen: Seen, step: _Step, points: Points, begin: Floats) -> Loads:
    """Means over the newest point and those later than `begin`; over time, so that a long gap
    weighs as much as the many readings it swallowed. Without a rate the load stays what it was."""
    known = ~np.isnan(step.newest.at[0])
    inside = points.at > begin
    inside[-1] = known
    total = np.where(inside, points.cpu * points.span, 0.0).sum(axis=0)
    length = np.where(inside, points.span, 0.0).sum(axis=0)
    since = np.where(inside, points.at - points.span, np.inf).min(axis=0)
    before, span = old.loads, step.newest.span[0]
    network, block = _rate(old.network, seen.network, span), _rate(old.block, seen.block, span)
    newer = _Choice.of(known)
    return Loads(
        names=seen.names,
        cpu=newer(step.newest.cpu[0], np.where(step.lost, np.nan, before.cpu)),
        cpu_mean=newer(total / np.where(known, length, 1.0), before.cpu_mean),
        memory=newer(seen.memory, before.memory),
        steal=newer(_steal(old, seen, span), before.steal),
        network=newer(network, before.network),
        block=newer(block, before.block),
        readings=newer(inside.sum(axis=0), before.readings),
        since=newer(since, before.since),
        dirty_rate=newer(seen.dirty_rate, before.dirty_rate),
        shortage=newer(_shortage(old, seen, span), before.shortage),
    )


def _steal(old: Tracks, seen: Seen, span: Floats) -> Floats:
    """Share of the time that vCPUs stood ready and were not run; 0 where that is not told."""
    waited = np.maximum(seen.steal_seconds - old.steal_seconds, 0.0)
    share = np.minimum(waited / (span * np.maximum(seen.size / seen.core, 1.0)), 1.0)
    return np.where(np.isnan(share), 0.0, share)


def _shortage(old: Tracks, seen: Seen, span: Floats) -> Floats:
    """Bytes of memory lacked, by the share of the time that this showed; 0 where it is not told."""
    strained = (seen.strained_seconds - old.strained_seconds) / span
    lacked = np.minimum(np.maximum(strained, 0.0), 1.0) * np.maximum(seen.lacking, 0.0)
    return np.where(np.isnan(lacked), 0.0, lacked)


def _rate(before: Floats, after: Floats, span: Floats) -> Floats:
    """Bytes per second; NaN where a counter is missing or was reset."""
    return np.where(after < before, np.nan, (after - before) / span)
