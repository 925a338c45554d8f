"""Where hosts objected to a move before it began, and for how long it is not planned again.

What both hosts' facts speak against (see `preflight`) is true of one VM on its way to one host: it
says nothing of other VMs between the two, nor of the VM on its way elsewhere. So the planner looks
elsewhere, and asks again after a back-off that doubles with each further objection. What a host
lacks for migrations as such, like its certificates, concerns all VMs that would leave or enter it:
one is told so, and the others rest with it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from balancerd.core.outcome import Against, Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.policies.limits import Limits
from balancerd.core.same import Growing
from balancerd.core.units import doubled, format_time

ANY = ""  # instead of a host's name
Way = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Objection:
    """What was said against a move, and until when it counts, seconds since the epoch."""

    until: float
    detail: str

    def __str__(self) -> str:
        return f"{self.detail}; not tried again before {format_time(round(self.until))}"


@dataclass(frozen=True, slots=True)
class Objections:
    """Those that count: to one VM's moves, by VM and target, and to all VMs' between hosts, by
    source and target, one of which may be ANY."""

    moves: Mapping[Way, Objection] = field(default_factory=lambda: MappingProxyType({}))
    hosts: Mapping[Way, Objection] = field(default_factory=lambda: MappingProxyType({}))

    def between(self, source: str, target: str) -> Objection | None:
        """What speaks against all that goes from one host to the other, the longest."""
        ways = ((source, target), (source, ANY), (ANY, target))
        found = (self.hosts[way] for way in ways if way in self.hosts)
        return max(found, key=lambda said: said.until, default=None)


NONE = Objections()


def objections(history: History, limits: Limits, now: float) -> Objections:
    """The objections that count; none from before the VM last moved, or any did on that way."""
    if not _any_objected(history.moves):
        return NONE
    said = [move for move in history.moves if move.outcome is Outcome.OBJECTED]
    done = [move for move in history.moves if move.outcome is Outcome.DONE]
    moved = {move.vm: move.at for move in done}
    went = {way: move.at for move in done for way in _ways(move)}
    of_vms = [move for move in said if move.against is Against.MOVE]
    of_hosts = [move for move in said if move.against is not Against.MOVE]
    return Objections(
        _standing(of_vms, lambda m: (m.vm, m.target), lambda m: moved.get(m.vm), limits, now),
        _standing(of_hosts, _way, lambda m: went.get(_way(m)), limits, now),
    )


def _or_objected(before: bool, moves: tuple[PastMove, ...]) -> bool:
    return before or any(move.outcome is Outcome.OBJECTED for move in moves)


_any_objected = Growing(nothing=False, more=_or_objected)


def _ways(move: PastMove) -> tuple[Way, ...]:
    """All that a move can prove to be open."""
    return (move.source, move.target), (move.source, ANY), (ANY, move.target)


def _way(move: PastMove) -> Way:
    """What an objection to more than its own move closes."""
    source = ANY if move.against is Against.TARGET else move.source
    return source, ANY if move.against is Against.SOURCE else move.target


def _standing(
    said: Iterable[PastMove],
    key: Callable[[PastMove], Way],
    opened: Callable[[PastMove], float | None],
    limits: Limits,
    now: float,
) -> dict[Way, Objection]:
    """Of these objections those that count, each with the rest that its repetitions make."""
    found: dict[Way, list[PastMove]] = {}
    for move in said:
        last = opened(move)
        if last is None or move.at >= last:
            found.setdefault(key(move), []).append(move)
    standing: dict[Way, Objection] = {}
    for way, moves in found.items():
        until = moves[-1].at + doubled(limits.backoff, len(moves) - 1, limits.cooldown_max)
        if until > now:
            standing[way] = Objection(until, moves[-1].detail)
    return standing
