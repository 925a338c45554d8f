"""What was done before, as far as deciding needs it: cool-downs, back-offs, budgets, power times.

Rebuilt from the ledger, so that a restart forgets nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from math import inf
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from balancerd.core.lessons import UNTAUGHT, Lessons
from balancerd.core.observation import Against
from balancerd.core.past.vetoes import Deed
from balancerd.core.policies.limits import LONGEST_REST, Limits
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Same
from balancerd.core.units import DAY, doubled

WEEK = 7 * DAY
# A rest counts the moves of the week before the one it follows, and a way back waits for twice as
# long: nothing of that may be forgotten while it lasts, or the rest would shrink.
REMEMBERED = WEEK + 2 * LONGEST_REST


class Outcome(StrEnum):
    """How an intent ended. Only what both hosts said decides it."""

    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    NOT_STARTED = "not started"
    OBJECTED = "objected"  # the hosts' own facts spoke against it: it was not even tried
    LOST = "lost"  # runs on neither host
    QUARANTINED = "quarantined"  # a person has to decide


NEVER_BEGUN = frozenset({Outcome.NOT_STARTED, Outcome.OBJECTED})


@dataclass(frozen=True, slots=True)
class PastMove:
    """A migration that ended."""

    vm: str
    source: str
    target: str
    at: float
    outcome: Outcome
    bytes: int = 0  # sent, or predicted where nobody saw it end
    detail: str = ""  # what was said against it, where hosts objected
    against: Against = Against.MOVE  # and what else that holds for


@dataclass(frozen=True)
class History:
    """Moves of the time REMEMBERED, oldest first, and when each host's power last changed."""

    moves: tuple[PastMove, ...] = ()
    woken: Mapping[str, float] = field(default_factory=dict)
    slept: Mapping[str, float] = field(default_factory=dict)
    put_to_sleep: Mapping[str, float] = field(default_factory=dict)  # by us, and not on since
    idle_since: Mapping[str, float] = field(default_factory=dict)
    deeds: Mapping[str, Deed] = field(default_factory=dict)  # by VM: the last thing others did
    lessons: Lessons = UNTAUGHT  # what migrations before taught about their cost

    def by_vm(self) -> Mapping[str, list[PastMove]]:
        """The moves of each VM, oldest first."""
        return _by_vm(Same(self.moves))

    def felt(self, now: float, limits: Limits) -> dict[str, list[PastMove]]:
        """`by_vm`, without VMs whom neither twice their rest nor a budget can concern any more."""
        vms, until = _felt_until(Same(self.moves), Same(limits))
        by_vm = self.by_vm()
        return {vms[row]: by_vm[vms[row]] for row in np.flatnonzero(until > now).tolist()}

    def by_pair(self) -> dict[tuple[str, str], list[PastMove]]:
        """The moves between each source and target, oldest first."""
        moves: dict[tuple[str, str], list[PastMove]] = {}
        for move in self.moves:
            moves.setdefault((move.source, move.target), []).append(move)
        return moves


@lru_cache(maxsize=2)
def _by_vm(moves: Same[tuple[PastMove, ...]]) -> Mapping[str, list[PastMove]]:
    by_vm: dict[str, list[PastMove]] = {}
    for move in moves.value:
        by_vm.setdefault(move.vm, []).append(move)
    return MappingProxyType(by_vm)


@lru_cache(maxsize=2)
def _felt_until(
    moves: Same[tuple[PastMove, ...]], limits: Same[Limits]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """VMs that were moved, and until when their moves may still be felt."""
    by_vm, by = _by_vm(moves), limits.value
    budget = min(by.per_vm_per_day, by.per_vm_per_week)
    counts = {len(past) for past in by_vm.values()}
    lasts = {n: inf if n >= budget else 2.0 * _rest(n, by) for n in counts}
    until = [past[-1].at + lasts[len(past)] for past in by_vm.values()]
    return tuple(by_vm), np.array(until, dtype=np.float64)


def may_be_woken(host: str, history: History, policy: Policy) -> bool:
    """Whether a host that is off is ours to wake: whoever else switched it off had a reason."""
    return policy.power.wake_any or host in history.put_to_sleep


def rests_until(moves: list[PastMove], limits: Limits) -> float:
    """When a VM with these moves may move again: the cool-down doubles with each move of a week.

    A migration that failed or was given up cost as much as one that was done, and counts as one.
    A start that was refused disturbed nobody: what follows it is a back-off (see `breakers`).
    """
    begun = [move for move in moves if move.outcome not in NEVER_BEGUN]
    recent = [move for move in begun if move.at > begun[-1].at - WEEK]
    if not recent:
        return 0.0
    return recent[-1].at + _rest(len(recent), limits)


def _rest(moves: int, limits: Limits) -> float:
    """Seconds of rest after so many moves within a week."""
    return doubled(limits.cooldown, moves - 1, limits.cooldown_max)
