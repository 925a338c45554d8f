"""How many migrations at once, and how fast each may go.

Limits count migrations out of and into each host, over each link and on the whole site; one that
copies disks counts as several. The bandwidth is max-min fair: each link gives migrations a share of
what production leaves of it, divided evenly among those that cross it; what one cannot use, because
it is at its cap or narrower elsewhere, goes to the others. It is divided anew as migrations start
and end and as production changes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

from balancerd.core.executing.execution import (
    UNDER_WAY,
    Stage,
    Task,
    Tasks,
    TasksInHand,
    View,
)
from balancerd.core.executing.messages import Command, SetBandwidth
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import Snapshot
from balancerd.core.moving.method import weight
from balancerd.core.moving.topology import Topology, free_now, topology_of
from balancerd.core.plan import Move, Refusal
from balancerd.core.policies.limits import Limits
from balancerd.core.same import Same
from balancerd.core.units import DAY, format_size

WORTH_TELLING = 0.10  # a cap is changed only by more than this share of it
TELL_AGAIN = 5.0  # seconds between two changes of one migration's cap
_BEGUN = frozenset({Stage.RUNNING, Stage.VERIFYING, Stage.SETTLING})


@dataclass(frozen=True, slots=True)
class Transfer:
    """A migration as the links see it: the numbers of those it crosses, and bytes per second."""

    path: tuple[int, ...]
    cap: float


def shares(transfers: Sequence[Transfer], room: Mapping[int, float]) -> tuple[float, ...]:
    """The rate of each transfer, bytes per second; `room` is what each link has for them all.

    Max-min fair (Bertsekas and Gallager, Data Networks, 6.5.2): all rates rise together until a
    cap or a full link holds some of them; the others rise on.
    """
    rates = [0.0] * len(transfers)
    left = dict(room)
    rising = set(range(len(transfers)))
    while rising:
        crossing = Counter(link for index in rising for link in transfers[index].path)
        offers = {
            index: min([transfers[index].cap, *_evenly(transfers[index].path, left, crossing)])
            for index in rising
        }
        lowest = min(offers.values())
        held = {index for index in rising if offers[index] <= lowest * (1.0 + 1e-12)}
        for index in held:
            rates[index] = offers[index]
            for link in transfers[index].path:
                left[link] = max(0.0, left[link] - offers[index])
        rising -= held
    return tuple(rates)


def _evenly(
    path: Iterable[int], left: Mapping[int, float], crossing: Mapping[int, int]
) -> list[float]:
    return [left[link] / crossing[link] for link in path]


@dataclass(slots=True)
class Traffic:
    """Migrations under way, those of others included, by weight: in all, out of and into each
    host, over each link."""

    topology: Topology
    limits: Limits
    site: int = 0
    outgoing: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    incoming: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    links: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, tasks: Tasks, view: View) -> "Traffic":
        """All that is under way now."""
        limits = view.policy.limits
        traffic = cls(topology_of(view.snapshot.cluster), limits)
        for task in tasks.moves_under_way():
            traffic.add(task.move.source, task.move.target, weight(task.move.method, limits))
        for source, target in _foreign(tasks, view):
            traffic.add_foreign(source, target)
        return traffic

    def add(self, source: str, target: str, heavy: int) -> None:
        """One more is under way."""
        self.site += heavy
        self.outgoing[source] += heavy
        self.incoming[target] += heavy
        for link in _path(self.topology, source, target):
            self.links[link] += heavy

    def add_foreign(self, one: str, other: str) -> None:
        """One of others' is under way between two hosts, and counts each way: which way it goes is
        not to be seen, for in post-copy a VM runs where it is going."""
        self.add(one, other, 1)
        self.add(other, one, 1)
        self.site -= 1

    def admit(self, move: Move) -> None:
        """A move starts."""
        self.add(move.source, move.target, weight(move.method, self.limits))

    def full_hosts(self) -> tuple[Set[str], Set[str]]:
        """The hosts out of which no move may start before others end, and those into which."""
        most = self.limits.per_host
        return (
            {host for host, count in self.outgoing.items() if _exceeds(count, 1, most)},
            {host for host, count in self.incoming.items() if _exceeds(count, 1, most)},
        )

    def is_full(self, move: Move) -> bool:
        """Whether a move has to wait for others to end. One that is heavier than a limit may go
        alone."""
        heavy, limits = weight(move.method, self.limits), self.limits
        if (
            _exceeds(self.site, heavy, limits.per_site)
            or _exceeds(self.outgoing[move.source], heavy, limits.per_host)
            or _exceeds(self.incoming[move.target], heavy, limits.per_host)
        ):
            return True
        crossing = _path(self.topology, move.source, move.target)
        return any(_exceeds(self.links[link], heavy, limits.per_link) for link in crossing)


def _exceeds(count: int, more: int, limit: int) -> bool:
    return count > 0 and count + more > limit


def divided(tasks: Tasks, view: View) -> dict[int, int]:
    """What each migration under way may send by now, bytes per second, by the task's number."""
    own = tasks.moves_under_way()
    if not own:
        return {}
    ways = [(task.move.source, task.move.target) for task in own]
    ways += _foreign(tasks, view)
    rates = _rates(tuple(ways), Same(view.snapshot), Same(view.policy.limits))
    return {task.action.number: rate for task, rate in zip(own, rates, strict=False)}


@lru_cache(maxsize=2)
def _rates(
    ways: tuple[tuple[str, str], ...], seen: Same[Snapshot], by: Same[Limits]
) -> tuple[int, ...]:
    """What each migration between these hosts may send; they are the same at most steps."""
    topology, free, limits = topology_of(seen.value.cluster), free_now(seen.value), by.value
    transfers = [Transfer(_path(topology, *way), float(limits.bandwidth)) for way in ways]
    crossed = {link for transfer in transfers for link in transfer.path}
    rates = shares(transfers, {link: float(free[link]) * limits.link_share for link in crossed})
    return tuple(max(1, int(rate)) for rate in rates)


def divide(tasks: Tasks, view: View) -> tuple[TasksInHand, list[Command]]:
    """The tasks with their caps of now, and commands for migrations that run with another one."""
    changed = tasks.in_hand()
    commands: list[Command] = []
    for number, rate in divided(tasks, view).items():
        task = tasks[number]
        if task.stage not in _BEGUN:
            changed[number] = task if task.bandwidth == rate else altered(task, bandwidth=rate)
        elif _is_due(task, rate, view.now):
            changed[number] = altered(task, bandwidth=rate, limited=view.now)
            commands.append(SetBandwidth(number, task.move.vm, task.move.source, rate))
    return changed, commands


def _is_due(task: Task, rate: int, now: float) -> bool:
    """Whether a running migration has to be told; only one that is known to be ours is."""
    if task.stage is not Stage.RUNNING or not task.ours or now - task.limited < TELL_AGAIN:
        return False
    return abs(rate - task.bandwidth) > WORTH_TELLING * task.bandwidth


def over_budget(move: Move, tasks: Iterable[Task], since: float, view: View) -> Refusal | None:
    """Why a move would send too much over a link within a day; None if it would not.

    What the plan itself, made at `since`, has begun counts as predicted: the history need not tell
    of it yet.
    """
    most = view.policy.limits.link_bytes_per_day
    if most is None:
        return None
    topology = topology_of(view.snapshot.cluster)
    sent: Counter[int] = Counter()
    for source, target, size in _sent(tasks, since, view):
        for link in _path(topology, source, target):
            sent[link] += size
    for link in _path(topology, move.source, move.target):
        if sent[link] + move.bytes > most:
            way = " > ".join(topology.ways[link])
            detail = f"{way} carried {format_size(sent[link])} in 24 h, at most {format_size(most)}"
            remedy = "raise limits.link_bytes_per_day"
            return Refusal(move.vm, move.target, "budget", detail, remedy)
    return None


def _sent(tasks: Iterable[Task], since: float, view: View) -> Iterator[tuple[str, str, int]]:
    """Source, target and bytes of all that was moved in a day or is under way, each once."""
    own = {
        (task.move.vm, task.move.source, task.move.target): task.move.bytes
        for task in tasks
        if isinstance(task.action, Move) and (task.intent or task.stage in UNDER_WAY)
    }
    for (_, source, target), size in own.items():
        yield source, target, size
    for past in view.history.moves:
        counted = past.at >= since and (past.vm, past.source, past.target) in own
        if past.at > view.now - DAY and not counted:
            yield past.source, past.target, past.bytes


def _foreign(tasks: Tasks, view: View) -> list[tuple[str, str]]:
    """Source and target of the migrations that others have under way.

    Ours that ended since the last look are still to be seen in it, and are nobody's any more.
    """
    cluster, seen = view.snapshot.cluster, view.snapshot.at
    return [
        (cluster.placement[vm], target)
        for vm, target in sorted(cluster.flights.items())
        if _newest_target(tasks, vm, seen) != target
    ]


def _newest_target(tasks: Tasks, vm: str, seen: float) -> str | None:
    """Where the last of our moves of a VM goes that is under way, or ended since it was seen."""
    for number in reversed(tasks.of(vm)):
        task = tasks[number]
        if task.stage in UNDER_WAY or task.since > seen:
            return task.move.target
    return None


def _path(topology: Topology, source: str, target: str) -> tuple[int, ...]:
    """The links between two hosts; none where one of them is not on the site any more."""
    row = topology.row
    if source not in row or target not in row:
        return ()
    return topology.path(row[source], row[target])
