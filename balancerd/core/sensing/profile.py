"""What VMs use at each hour of the day and the week, and how far that can be relied on.

Kept are the means of a week's hours, and a few numbers of the whole site that say what they are
worth: how much of what they foresaw came, for the site as a whole and for what VMs turn beside it
(two slopes through the origin), and how far VMs err together (the intraclass correlation of what
was left over). One number for all VMs needs a hundredth of the history that one for each would.

An hour counts once it was seen on two days; its own day of the week counts from the second week on.
Times are of the epoch: where clocks change, profiles lag an hour behind for some weeks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp
from typing import Self

import numpy as np
from numpy.typing import NDArray

from balancerd.core.columns import Floats, Ints, taken
from balancerd.core.same import Same
from balancerd.core.units import DAY, HOUR

WEEK_OF_HOURS, DAY_OF_HOURS = 168, 24
DAYS = 2  # on which an hour of the day has to be seen
WEEKS = 2  # in which an hour of the week has to be seen
WEEKS_KEPT = 4  # an hour's mean is of about so many weeks
FORGETS = exp(-HOUR / (14 * DAY))  # per hour, what the site's numbers rest on
ERROR_WEIGHT = 0.05  # of one hour's error in a VM's usual one
OUTLIER = 3.0  # errors count up to so many times the usual one
PROFILED = 28 * DAY  # what is read again of a record
HOURS_TOLD = 24  # before VMs are said to err together
HOURS_USUAL = 2  # that have to be seen of a day before a VM has a usual use
MOST_TOGETHER = 0.5

Cells = NDArray[np.float32]
Counts = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Trust:
    """How much of what was foreseen came: the slope of a line through the origin."""

    foreseen: float = 0.0  # sum of what came times what was foreseen
    squares: float = 0.0  # sum of what was foreseen, squared

    def learn(self, foreseen: Floats, came: Floats) -> "Trust":
        """One more hour."""
        return Trust(
            FORGETS * self.foreseen + float(foreseen @ came),
            FORGETS * self.squares + float(foreseen @ foreseen),
        )

    @property
    def share(self) -> float:
        """From 0, nothing, to 1, all of it."""
        return min(max(self.foreseen / self.squares, 0.0), 1.0) if self.squares else 0.0


@dataclass(frozen=True, slots=True)
class Together:
    """How far VMs err together: the sum of products of errors, and what it were, were all alike."""

    products: float = 0.0
    most: float = 0.0
    hours: int = 0

    def learn(self, errors: Floats) -> "Together":
        """One more hour; errors are in units of what is usual."""
        count, power = len(errors), float(errors @ errors)
        return Together(
            FORGETS * self.products + float(errors.sum()) ** 2 - power,
            FORGETS * self.most + max(count - 1, 0) * power,
            self.hours + bool(count),
        )

    @property
    def share(self) -> float:
        """The correlation of two VMs' errors; none before a day was measured."""
        if self.hours < HOURS_TOLD or not self.most:
            return 0.0
        return min(max(self.products / self.most, 0.0), MOST_TOGETHER)


@dataclass(frozen=True, eq=False)
class Profile:
    """The profiles of many VMs; entry i of each column is of `names[i]`, NaN is not known."""

    names: tuple[str, ...]
    cells: Cells  # hours of the week × VMs: mean use, reference cores
    weeks: Counts  # in how many weeks each was seen
    hour: int  # that is being read now, in hours since the epoch
    total: Floats  # sum of its readings so far
    readings: Ints
    last: Floats  # mean of the hour before
    foreseen: Floats  # what was usual for that hour before it came
    error: Floats  # usual squared error of the next hour's mean
    whole: Trust  # in the turns of the site as a whole
    own: Trust  # in what VMs turn beside that
    together: Together

    @classmethod
    def none(cls) -> Self:
        """Of nobody."""
        empty = np.empty(0)
        cells = np.empty((WEEK_OF_HOURS, 0), dtype=np.float32)
        weeks = np.empty((WEEK_OF_HOURS, 0), dtype=np.uint8)
        no_readings = np.empty(0, dtype=np.int64)
        return cls(
            (),
            cells,
            weeks,
            -1,
            empty,
            no_readings,
            empty,
            empty,
            empty,
            Trust(),
            Trust(),
            Together(),
        )

    def among(self, names: tuple[str, ...]) -> "Profile":
        """The profiles of these VMs, in their order; of those not known, empty ones."""
        if names == self.names:
            return self
        row = {name: index for index, name in enumerate(self.names)}
        rows = np.array([row.get(name, -1) for name in names], dtype=np.int64)
        unseen = np.full((WEEK_OF_HOURS, 1), np.nan, dtype=np.float32)
        never = np.zeros((WEEK_OF_HOURS, 1), dtype=np.uint8)
        return Profile(
            names,
            np.append(self.cells, unseen, axis=1)[:, rows],
            np.append(self.weeks, never, axis=1)[:, rows],
            self.hour,
            np.append(self.total, 0.0)[rows],
            np.append(self.readings, 0)[rows],
            taken(self.last, rows),
            taken(self.foreseen, rows),
            taken(self.error, rows),
            self.whole,
            self.own,
            self.together,
        )

    def read(self, at: float, cpu: Floats) -> "Profile":
        """With one more reading of each VM at a time, NaN where there is none."""
        hour = int(at // HOUR)
        begun = self if hour <= self.hour else self._close(hour)
        seen = ~np.isnan(cpu)
        total = begun.total + np.where(seen, cpu, 0.0)
        return replace(begun, total=total, readings=begun.readings + seen)

    def _close(self, hour: int) -> "Profile":
        """The hour that was read is over; the next is begun."""
        none = np.zeros(len(self.names), dtype=np.int64)
        if not self.readings.any():
            return replace(self, hour=hour)
        means = np.where(self.readings > 0, self.total / np.maximum(self.readings, 1), np.nan)
        folded = self.fold(self.hour, means)
        last = folded.last if hour == self.hour + 1 else np.full(len(means), np.nan)
        return replace(folded, hour=hour, total=0.0 * self.total, readings=none, last=last)

    def fold(self, hour: int, means: Floats) -> "Profile":
        """With the mean of each VM in a whole hour, the next after `last`."""
        usual = self.usual(hour)
        came = means - self.last
        turn = np.where(np.isnan(came), np.nan, usual - self.foreseen)
        whole = _in_common(turn, self.foreseen)
        told = ~np.isnan(turn)
        error = came - self._believed(turn, self.foreseen)
        known = ~np.isnan(error) & (self.error > 0)
        errors = np.clip(error[known] / np.sqrt(self.error[known]), -OUTLIER, OUTLIER)
        squares = self.error + ERROR_WEIGHT * (error**2 - self.error)
        usually = np.where(np.isnan(self.error), error**2, squares)
        cells, weeks = self._noted(hour, means)
        return replace(
            self,
            cells=cells,
            weeks=weeks,
            last=means,
            foreseen=usual,
            error=np.where(np.isnan(error), self.error, usually),
            whole=self.whole.learn(np.nansum(turn, keepdims=True), came[told].sum(keepdims=True)),
            own=self.own.learn((turn - whole)[told], (came - _in_common(came, means))[told]),
            together=self.together.learn(errors),
        )

    def _noted(self, hour: int, means: Floats) -> tuple[Cells, Counts]:
        """The table with one hour's means in it."""
        cells, weeks, row = self.cells.copy(), self.weeks.copy(), hour % WEEK_OF_HOURS
        seen = ~np.isnan(means)
        weeks[row] = np.minimum(weeks[row] + seen, WEEKS_KEPT)
        old = np.where(np.isnan(cells[row]), means, cells[row])
        new = old + (means - old) / np.maximum(weeks[row], 1)
        cells[row] = np.where(seen, new, cells[row])
        return cells, weeks

    def usual(self, hour: int) -> Floats:
        """What VMs use in an hour like this one; NaN for those not seen on two days."""
        weeks = self.weeks[hour % DAY_OF_HOURS :: DAY_OF_HOURS]
        days = weeks.sum(axis=0, dtype=np.int64)
        cells = self.cells[hour % DAY_OF_HOURS :: DAY_OF_HOURS]
        total = np.where(weeks > 0, cells * weeks, 0.0).sum(axis=0)
        usual = np.where(days >= DAYS, total / np.maximum(days, 1), np.nan)
        same = self.weeks[hour % WEEK_OF_HOURS]
        weekly = (same * self.cells[hour % WEEK_OF_HOURS] + usual) / (same + 1.0)
        return np.where(same >= WEEKS, weekly, usual)

    def of_a_day(self) -> Floats:
        """What VMs use on a day like the last: the mean of its hours, as far as they were seen."""
        return _of_a_day(Same(self.cells), self.hour)

    def turn(self, since: float, now: float, until: float) -> Floats:
        """By how much use is expected to differ from a level that is of `since`, in cores.

        Taken at whichever of `now` and `until` the whole site asks for more.
        """
        if not (self.whole.squares or self.own.squares):
            return np.zeros(len(self.names))
        before = self._at(since)
        turns = [self._believed(self._at(at) - before, before) for at in (now, until)]
        return max(turns, key=lambda turn: float(turn.sum()))

    def _believed(self, turn: Floats, usual: Floats) -> Floats:
        """What is to be expected of a turn that the profiles foresee."""
        whole = _in_common(turn, usual)
        return np.nan_to_num(self.whole.share * whole + self.own.share * (turn - whole))

    def _at(self, at: float) -> Floats:
        """What VMs usually use at a time: between the middles of two hours."""
        middle = at / HOUR - 0.5
        hour = int(middle // 1)
        return self.usual(hour) + (middle - hour) * (self.usual(hour + 1) - self.usual(hour))


@lru_cache(maxsize=1)
def _of_a_day(cells: Same[Cells], hour: int) -> Floats:
    """The means of the day's hours before one; they change when an hour is closed."""
    day = cells.value[np.arange(hour - DAY_OF_HOURS, hour) % WEEK_OF_HOURS]
    seen = (~np.isnan(day)).sum(axis=0)
    mean = np.nansum(day, axis=0, dtype=np.float64) / np.maximum(seen, 1)
    return np.where(seen >= HOURS_USUAL, mean, np.nan)


def _in_common(turn: Floats, use: Floats) -> Floats:
    """The site's turn as a whole, divided among the VMs after their use."""
    weight = np.where(np.isnan(turn), 0.0, use)
    total = float(weight.sum())
    return weight * (float(np.nansum(turn)) / total) if total > 0 else 0.0 * weight


def recalled(hours: Iterable[tuple[float, Mapping[str, float]]]) -> Profile:
    """The profile of a record: when each hour began, and each VM's mean in it, oldest first."""
    profile = Profile.none()
    for begin, means in hours:
        new = tuple(sorted(means.keys() - set(profile.names)))
        known = profile.among((*profile.names, *new)) if new else profile
        hour = int(begin // HOUR)
        if hour != known.hour:
            known = replace(known, last=np.full(len(known.names), np.nan))
        values = np.array([means.get(name, np.nan) for name in known.names], dtype=np.float64)
        profile = replace(known.fold(hour, values), hour=hour + 1)
    return profile


def inflated(variance: Floats, together: float, crowd: float) -> Floats:
    """Variances that, added up over `crowd` VMs, hold their common part too.

    The design effect of a cluster sample (Kish 1965, "Survey Sampling"): exact for VMs that are
    alike.
    """
    return variance * (1.0 + together * max(crowd - 1.0, 0.0))
