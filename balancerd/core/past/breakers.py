"""After failures, a rest: for a VM, a pair of hosts, a host, the whole site.

A breaker is closed while all goes well. So many failures in a row open it for a while that doubles
with each further one; then it is half-open, and lets one migration through at a time, the smallest
first. A success closes it. All of it follows from the record of what was done, so that a restart
forgets nothing.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from balancerd.core.outcome import Against, Outcome
from balancerd.core.past.history import WEEK, History, PastMove
from balancerd.core.policies.limits import Limits
from balancerd.core.same import Growing, Same
from balancerd.core.units import HOUR, doubled

Name = TypeVar("Name", bound=Hashable)
Pair = tuple[str, str]


class Scope(StrEnum):
    """What a breaker is for."""

    VM = "VM"
    PAIR = "pair"
    HOST = "host"
    SITE = "site"


class State(StrEnum):
    """What a breaker lets through: all, nothing, or one at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a breaker trips: after so many failures in a row, none older than `memory` seconds."""

    trips: int
    memory: float
    failures: frozenset[Outcome]


_BROKE = frozenset({Outcome.FAILED, Outcome.LOST, Outcome.QUARANTINED, Outcome.NOT_STARTED})
_ANY = _BROKE | {Outcome.ABORTED}
_REFUSED = _ANY | {Outcome.OBJECTED}
# A VM whose migrations failed rests by its cool-down too; its breaker is for starts that are
# refused again and again, which disturb nobody and so are followed by no cool-down. That a VM does
# not converge, or that somebody gave up, says nothing of hosts; what they object to one VM says
# nothing of others (see `objections`).
RULES: Mapping[Scope, Rule] = {
    Scope.VM: Rule(2, WEEK, _REFUSED),
    Scope.PAIR: Rule(1, WEEK, _ANY),
    Scope.HOST: Rule(3, HOUR, _BROKE),
    Scope.SITE: Rule(5, HOUR, _BROKE),
}


@dataclass(frozen=True, slots=True)
class Breaker:
    """How a breaker stands; `until` is when it is no longer open, seconds since the epoch."""

    state: State = State.CLOSED
    failures: int = 0
    until: float = 0.0


CLOSED = Breaker()


def breaker(scope: Scope, moves: Sequence[PastMove], limits: Limits, now: float) -> Breaker:
    """The breaker that these moves, oldest first, leave behind."""
    rule = RULES[scope]
    failed: list[PastMove] = []
    for move in reversed(moves):
        if move.outcome is Outcome.DONE:
            break
        if _is_failure(move, rule) and moves[-1].at - move.at <= rule.memory:
            failed.append(move)
    if len(failed) < rule.trips:
        return CLOSED
    rest = doubled(limits.backoff, len(failed) - rule.trips, limits.cooldown_max)
    until = failed[0].at + rest
    if now < until:
        return Breaker(State.OPEN, len(failed), until)
    return Breaker(State.HALF_OPEN, len(failed), until) if now < until + rule.memory else CLOSED


def _is_failure(move: PastMove, rule: Rule) -> bool:
    """Whether a move counts as one: what hosts object to all moves says nothing of its VM."""
    return move.outcome in rule.failures and move.against is Against.MOVE


@dataclass(frozen=True, slots=True)
class Breakers:
    """All breakers of a site that are not closed."""

    vms: Mapping[str, Breaker] = field(default_factory=lambda: MappingProxyType({}))
    pairs: Mapping[tuple[str, str], Breaker] = field(default_factory=lambda: MappingProxyType({}))
    hosts: Mapping[str, Breaker] = field(default_factory=lambda: MappingProxyType({}))
    site: Breaker = CLOSED

    def of(self, vm: str, source: str, target: str) -> tuple[Breaker, ...]:
        """Those that a move has to pass."""
        found = (
            self.vms.get(vm),
            self.pairs.get((source, target)),
            self.hosts.get(source),
            self.hosts.get(target),
            self.site,
        )
        return tuple(one for one in found if one is not None and one.state is not State.CLOSED)


def breakers(history: History, limits: Limits, now: float) -> Breakers:
    """All breakers, out of the past."""
    if all_done(history.moves):
        return Breakers()
    return _breakers(Same(history.moves), Same(limits), now)


@lru_cache(maxsize=1)
def _breakers(past: Same[tuple[PastMove, ...]], by: Same[Limits], now: float) -> Breakers:
    """One cycle asks for them at several doors."""
    limits = by.value
    vms, pairs, hosts = _pasts(past)
    return Breakers(
        vms=_not_closed(Scope.VM, vms, limits, now),
        pairs=_not_closed(Scope.PAIR, pairs, limits, now),
        hosts=_not_closed(Scope.HOST, hosts, limits, now),
        site=breaker(Scope.SITE, past.value, limits, now),
    )


def _and_done(before: bool, moves: tuple[PastMove, ...]) -> bool:
    return before and all(move.outcome is Outcome.DONE for move in moves)


# Whether nothing failed, and no breaker was ever tripped.
all_done = Growing(nothing=True, more=_and_done)


Pasts = Mapping[Name, Sequence[PastMove]]


@lru_cache(maxsize=1)
def _pasts(past: Same[tuple[PastMove, ...]]) -> tuple[Pasts[str], Pasts[Pair], Pasts[str]]:
    """The moves of each VM, pair and host of which one came to nothing."""
    moves = past.value
    return (
        _by_name(moves, lambda move: (move.vm,)),
        _by_name(moves, lambda move: ((move.source, move.target),)),
        _by_name(moves, lambda move: (move.source, move.target)),
    )


def _by_name(
    moves: Sequence[PastMove], names: Callable[[PastMove], tuple[Name, ...]]
) -> Pasts[Name]:
    by_name: dict[Name, list[PastMove]] = {
        name: [] for move in moves if move.outcome is not Outcome.DONE for name in names(move)
    }
    for move in moves:
        for name in by_name.keys() & names(move):
            by_name[name].append(move)
    return by_name


def _not_closed(
    scope: Scope, pasts: Pasts[Name], limits: Limits, now: float
) -> dict[Name, Breaker]:
    found = {name: breaker(scope, past, limits, now) for name, past in pasts.items()}
    return {name: one for name, one in found.items() if one.state is not State.CLOSED}
