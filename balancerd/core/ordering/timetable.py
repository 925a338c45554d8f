"""When each migration of a plan begins, so that the plan ends soonest within the limits.

List scheduling: whenever something ends, the most pressing migration that may start does. What
migrations contend for (the site's places, those out of and into a host, those on a link) is kept as
places with a limit each, and who must wait for one queues there: the graph that joins every two
migrations in contention would grow with the square of their number, and this grows with the number
itself.

The order in which a plan was made is good in itself: what is urgent comes first, and hosts are
emptied one after the other. It is kept where the plan ends about as soon by it; else those go first
that most work waits for, on the dependency graph or at a place.

How long a migration takes depends on its rate, and that on how many share its links when it
begins. (That others begin and end meanwhile is not reckoned with.)
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balancerd.core.policies.limits import Limits

PATIENCE = 1.05  # times the soonest end, by which the plan's own order may end instead

Place = tuple[str, int]  # what is contended for: the site, a host's way out or in, a link


@dataclass(frozen=True, slots=True)
class Job:
    """A migration between host rows over links by number; `weight`: as how many it counts."""

    source: int
    target: int
    links: tuple[int, ...] = ()
    weight: int = 1
    urgent: bool = False

    def places(self) -> tuple[Place, ...]:
        """All that it takes a place of."""
        links = tuple(("link", link) for link in self.links)
        return ("site", 0), ("out", self.source), ("in", self.target), *links


@dataclass(frozen=True, slots=True)
class Slot:
    """When a migration begins, in seconds after the first one, and how long it takes."""

    begin: float
    seconds: float
    rate: float  # bytes per second


@dataclass(frozen=True, slots=True)
class _Places:
    """All that some jobs contend for, by number: what each of them takes, and what each is for."""

    taken: tuple[tuple[int, ...], ...]  # by job; the site comes first
    limits: tuple[int, ...]  # by place

    @classmethod
    def of(cls, jobs: Sequence[Job], limits: Limits) -> "_Places":
        """The places of these jobs."""
        numbers: dict[Place, int] = {}
        taken = tuple(
            tuple([numbers.setdefault(place, len(numbers)) for place in job.places()])
            for job in jobs
        )
        return cls(taken, tuple(limit_of(place, limits) for place in numbers))


Lasts = Callable[[int, float], float]  # seconds that a job takes at a rate
Width = Callable[[int], float]  # bytes per second that migrations may use of a link


def timetable(
    jobs: Sequence[Job],
    after: Sequence[Sequence[int]],
    limits: Limits,
    width: Width,
    lasts: Lasts,
) -> list[Slot]:
    """The slot of each job. `after` names, for each, earlier ones that must have ended before."""
    after = [sorted(set(earlier)) for earlier in after]
    alone = [lasts(index, _alone(job, limits, width)) for index, job in enumerate(jobs)]
    in_order = [(False, 0.0, index) for index in range(len(jobs))]
    places = _Places.of(jobs, limits)
    table = _Timetable(jobs, after, places, limits, width, lasts, in_order).laid_out()
    pressing = _work_waiting(jobs, after, places, alone)
    if _end(table) <= PATIENCE * max([*pressing, _site_work(jobs, limits, alone)]):
        return table
    soonest = [(not job.urgent, -pressing[index], index) for index, job in enumerate(jobs)]
    sooner = _Timetable(jobs, after, places, limits, width, lasts, soonest).laid_out()
    return table if _end(table) <= PATIENCE * _end(sooner) else sooner


def _site_work(jobs: Sequence[Job], limits: Limits, seconds: Sequence[float]) -> float:
    """Seconds that all of it takes at least, with every place of the site in use."""
    work = sum(lasts * job.weight for lasts, job in zip(seconds, jobs, strict=True))
    return work / limits.per_site


def _end(slots: Sequence[Slot]) -> float:
    return max((slot.begin + slot.seconds for slot in slots), default=0.0)


def _alone(job: Job, limits: Limits, width: Width) -> float:
    """The rate of a job that has its links to itself."""
    return min([float(limits.bandwidth), *map(width, job.links)])


def _work_waiting(
    jobs: Sequence[Job], after: Sequence[Sequence[int]], places: _Places, seconds: Sequence[float]
) -> list[float]:
    """For each job the longest work, in seconds, that cannot be done before it is: those that
    depend on it one after the other, or its share of what has to pass one of its places."""
    work = list(seconds)
    passed = [0.0] * len(places.limits)
    shortest_first = sorted(range(len(jobs)), key=lambda i: (jobs[i].urgent, seconds[i], -i))
    for index in shortest_first:
        for place in places.taken[index][1:]:
            passed[place] += seconds[index] * jobs[index].weight
            work[index] = max(work[index], passed[place] / places.limits[place])
    for index in reversed(range(len(jobs))):
        for earlier in after[index]:
            work[earlier] = max(work[earlier], seconds[earlier] + work[index])
    return work


Key = tuple[bool, float, int]


class _Timetable:
    """The state of the simulation: who runs, who waits where. The least key starts first."""

    def __init__(
        self,
        jobs: Sequence[Job],
        after: Sequence[Sequence[int]],
        places: _Places,
        limits: Limits,
        width: Width,
        lasts: Lasts,
        keys: Sequence[Key],
    ) -> None:
        self._jobs, self._limits, self._width, self._lasts = jobs, limits, width, lasts
        self._keys, self._places = keys, places
        self._missing = [len(earlier) for earlier in after]
        self._dependents: list[list[int]] = [[] for _ in jobs]
        for index, earlier in enumerate(after):
            for other in earlier:
                self._dependents[other].append(index)
        self._used = [0] * len(places.limits)
        self._crossing: Counter[int] = Counter()  # migrations under way, by link
        self._waiting: dict[int, list[tuple[Key, int]]] = {}
        self._candidates: list[tuple[Key, int, int | None]] = []
        self._running: list[tuple[float, int]] = []
        self._slots: dict[int, Slot] = {}
        self._now = 0.0

    def laid_out(self) -> list[Slot]:
        """The slot of each job."""
        for index, missing in enumerate(self._missing):
            if not missing:
                self._offer(index, None)
        while self._running or self._candidates:
            self._start_all()
            self._end_one()
        return [self._slots[index] for index in range(len(self._jobs))]

    def _start_all(self) -> None:
        """Start what may start now, the most pressing first."""
        while self._candidates:
            _, index, origin = heapq.heappop(self._candidates)
            full = self._full(index)
            if full is None:
                self._start(index)
            else:
                heapq.heappush(self._waiting.setdefault(full, []), (self._keys[index], index))
            # One that is too heavy for what is free keeps its turn: lighter ones do not pass it.
            if origin is not None and origin != full and self._fits(origin, 1):
                self._offer_next(origin)

    def _end_one(self) -> None:
        """Let time pass until something ends; what waits for it, or for its places, is offered."""
        if not self._running:
            return
        self._now, index = heapq.heappop(self._running)
        job = self._jobs[index]
        for link in job.links:
            self._crossing[link] -= 1
        for place in self._places.taken[index]:
            self._used[place] -= job.weight
            self._offer_next(place)
        for later in self._dependents[index]:
            self._missing[later] -= 1
            if not self._missing[later]:
                self._offer(later, None)

    def _offer(self, index: int, origin: int | None) -> None:
        heapq.heappush(self._candidates, (self._keys[index], index, origin))

    def _offer_next(self, place: int) -> None:
        """Offer the first in a place's queue."""
        queue = self._waiting.get(place)
        if queue:
            self._offer(heapq.heappop(queue)[1], place)

    def _start(self, index: int) -> None:
        job = self._jobs[index]
        for place in self._places.taken[index]:
            self._used[place] += job.weight
        for link in job.links:
            self._crossing[link] += 1
        rate = self._rate(job)
        seconds = self._lasts(index, rate)
        self._slots[index] = Slot(self._now, seconds, rate)
        heapq.heappush(self._running, (self._now + seconds, index))

    def _rate(self, job: Job) -> float:
        """The cap, or an even share of the narrowest link, however heavy those on it are."""
        cap = float(self._limits.bandwidth)
        if not job.links:
            return cap
        return min(cap, *[self._width(link) / self._crossing[link] for link in job.links])

    def _full(self, index: int) -> int | None:
        """The first place that has no room for the job."""
        weight = self._jobs[index].weight
        for place in self._places.taken[index]:
            if not self._fits(place, weight):
                return place
        return None

    def _fits(self, place: int, weight: int) -> bool:
        """A job that is heavier than the limit may take an empty place whole."""
        used = self._used[place]
        return not used or used + weight <= self._places.limits[place]


def limit_of(place: Place, limits: Limits) -> int:
    """How many migrations a place is for."""
    match place[0]:
        case "site":
            return limits.per_site
        case "link":
            return limits.per_link
        case _:
            return limits.per_host


def waves(jobs: Sequence[Job], after: Sequence[Sequence[int]], limits: Limits) -> list[int]:
    """The earliest wave (from 1) of each job that the limits allow, as if all took equally long."""
    found: list[int] = []
    places = _Places.of(jobs, limits)
    used: list[dict[int, int]] = [{} for _ in places.limits]  # by place and wave
    first = [1] * len(places.limits)  # by place: the first wave in which there is room
    for job, taken, earlier in zip(jobs, places.taken, after, strict=True):
        wave = 1 + max([found[index] for index in earlier], default=0)
        wave = max(wave, *[first[place] for place in taken])
        while any(_is_full(used[p].get(wave, 0), job.weight, places.limits[p]) for p in taken):
            wave += 1
        for place in taken:
            here = used[place]
            here[wave] = here.get(wave, 0) + job.weight
            while here.get(first[place], 0) >= places.limits[place]:
                first[place] += 1
        found.append(wave)
    return found


def _is_full(used: int, weight: int, limit: int) -> bool:
    return bool(used) and used + weight > limit
