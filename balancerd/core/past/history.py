"""What was done before, as far as deciding needs it: cool-downs, back-offs, budgets, power times.

Rebuilt from the ledger, so that a restart forgets nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from balancerd.core.columns import rows_where
from balancerd.core.lessons import UNTAUGHT, Lessons
from balancerd.core.outcome import NEVER_BEGUN, Against, Outcome
from balancerd.core.past.vetoes import Deed
from balancerd.core.policies.limits import LONGEST_REST, Limits
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Growing, Same
from balancerd.core.units import DAY, doubled

WEEK = 7 * DAY
# A rest counts the moves of the week before the one it follows, and a way back waits for twice as
# long: nothing of that may be forgotten while it lasts, or the rest would shrink.
REMEMBERED = WEEK + 2 * LONGEST_REST


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
        return MappingProxyType(_past_of_vms(self.moves).moves)

    def felt(self, now: float, limits: Limits) -> dict[str, list[PastMove]]:
        """`by_vm`, without VMs whom neither twice their rest nor a budget can concern any more."""
        past = _past_of_vms(self.moves)
        if not past.names:
            return {}
        until = past.newest + _felt_for(int(past.counts.max()), Same(limits))[past.counts]
        names = [past.names[row] for row in rows_where(until > now).tolist()]
        return {name: past.moves[name] for name in names}

    def by_pair(self) -> dict[tuple[str, str], list[PastMove]]:
        """The moves between each source and target, oldest first."""
        moves: dict[tuple[str, str], list[PastMove]] = {}
        for move in self.moves:
            moves.setdefault((move.source, move.target), []).append(move)
        return moves


@dataclass(frozen=True, eq=False, slots=True)
class _OfVMs:
    """The moves of each VM, oldest first; and by columns when it was moved last, and how often."""

    moves: dict[str, list[PastMove]]
    names: tuple[str, ...]
    newest: NDArray[np.float64]
    counts: NDArray[np.int64]

    def more(self, moves: tuple[PastMove, ...]) -> "_OfVMs":
        """With some more, newer ones."""
        if not moves:
            return self
        new: dict[str, list[PastMove]] = {}
        for move in moves:
            new.setdefault(move.vm, []).append(move)
        found = self.moves | {vm: [*self.moves.get(vm, ()), *added] for vm, added in new.items()}
        names = (*self.names, *(vm for vm in new if vm not in self.moves))
        newest, counts = np.zeros(len(names)), np.zeros(len(names), dtype=np.int64)
        newest[: len(self.names)], counts[: len(self.names)] = self.newest, self.counts
        for row, vm in enumerate(names):
            if vm in new:
                newest[row], counts[row] = found[vm][-1].at, len(found[vm])
        return _OfVMs(found, names, newest, counts)


_past_of_vms = Growing(_OfVMs({}, (), np.zeros(0), np.zeros(0, dtype=np.int64)), _OfVMs.more)


@lru_cache(maxsize=8)
def _felt_for(most: int, limits: Same[Limits]) -> NDArray[np.float64]:
    """For how long so many moves (0 to most) may be felt, counted from the newest."""
    by = limits.value
    budget = min(by.per_vm_per_day, by.per_vm_per_week)
    lasts = [inf if n >= budget else 2.0 * _rest(n, by) for n in range(most + 1)]
    return np.array(lasts, dtype=np.float64)


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
