"""From a choice that leaves VMs without a place to one in which all that leave also land.

A few hosts do something else than was chosen for them. What that changes, in balance and in regret,
adds up, so exchanges are searched one host after the other, the best few sums at each step. Most
steps lead from one choice that lacks a little to another that does: at the right prices many are
as good as each other, and few of them are in balance.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Floats, Ints
from balancerd.core.planner.defragment.columns import different
from balancerd.core.planner.defragment.prices import ROUNDING

UNPLACED = 1.0  # rooms that a VM without a place costs beside its price
CLOSE = 0.5  # rooms below the bound with which a search is content in any case
STEPS = 16  # hosts that do something else
WIDTH = 100  # sums kept at each step
CROWD = 20  # times as many are looked at for different ones
ALIKE = 3  # hosts that could all do the same instead
EXCHANGES = 2000  # looked at, those with least regret
SPARE = 2  # places beyond need that are told apart, where nothing is paid for them


@dataclass(frozen=True, slots=True)
class Terms:
    """What a choice is held to: limits of its balance (by kind 0, then the budget of moves), and
    the price of what is left below them."""

    limit: Ints
    prices: Floats
    worth: float

    def short(self, balance: Ints, regret: Floats) -> Floats:
        """By how many rooms choices (rows) stay below the bound; VMs without a place cost extra."""
        slack = self.limit - balance
        lost = np.maximum(slack, 0) @ self.prices
        return np.asarray(regret + lost - UNPLACED * np.minimum(slack, 0).sum(axis=-1))

    def suffices(self, balance: Ints, short: float) -> bool:
        """Whether nothing can be better by one room: that would be worth as much less as it takes
        more moves."""
        unused = float(self.limit[-1] - balance[-1])
        return short < max(1.0 - self.worth * unused, CLOSE)

    def different(self, balances: Ints, needed: Ints) -> Ints:
        """The first of balances that differ in more than places beyond what is needed by then,
        where nothing is paid for them: there are always some."""
        least = np.where(self.prices > ROUNDING, np.iinfo(np.int64).min, needed - SPARE)
        return different(np.maximum(balances, least))


@dataclass(frozen=True, slots=True)
class Menu:
    """All that hosts could do: the columns of one stage after the other, in rows."""

    stage: Ints
    first: Ints  # row of each stage
    changes: Ints
    regrets: Floats

    def exchanges(self, chosen: Ints) -> tuple[Ints, Ints, Floats]:
        """Rows that could be taken in place of the chosen ones; what each changes, and costs."""
        changes = self.changes - self.changes[chosen][self.stage]
        regrets = self.regrets - self.regrets[chosen][self.stage]
        rows = np.flatnonzero(changes.any(axis=1))
        rows = rows[np.argsort(regrets[rows], kind="stable")]
        alike = np.column_stack([changes[rows], (regrets[rows] * 1e6).round().astype(np.int64)])
        rows = rows[_first_of_each(alike)][:EXCHANGES]
        return rows, changes[rows], regrets[rows]


@dataclass(frozen=True, slots=True)
class _Reached:
    """Choices that differ from the first by rows of the menu: their sums, the best first."""

    balance: Ints
    regret: Floats
    taken: Ints  # choices x steps


def balanced(menu: Menu, terms: Terms, chosen: Ints) -> tuple[Ints, float]:
    """A choice (a row for each stage) at least as good as the one given, and what it is short of
    the bound."""
    offered = menu.exchanges(chosen)
    reached = _Reached(
        menu.changes[chosen].sum(axis=0, keepdims=True),
        menu.regrets[chosen].sum(keepdims=True),
        np.zeros((1, 0), dtype=np.int64),
    )
    best, least = chosen, np.inf
    for _ in range(STEPS + 1):
        short = terms.short(reached.balance, reached.regret)
        index = int(short.argmin())
        if short[index] < least:
            best, least = chosen.copy(), float(short[index])
            taken = reached.taken[index]
            best[menu.stage[taken]] = taken
        if terms.suffices(reached.balance[index], least):
            break
        reached = _step(menu, terms, reached, offered)
        if not len(reached.regret):
            break
    return best, least


def _step(
    menu: Menu, terms: Terms, reached: _Reached, offered: tuple[Ints, Ints, Floats]
) -> _Reached:
    """Every choice with one host more that does something else; the best of them."""
    rows, changes, regrets = offered
    balance = reached.balance[:, np.newaxis, :] + changes
    regret = reached.regret[:, np.newaxis] + regrets
    short = terms.short(balance, regret)
    for taken in reached.taken.T:
        short[menu.stage[taken][:, np.newaxis] == menu.stage[rows]] = np.inf
    crowd = _least(short.ravel(), CROWD * WIDTH)
    kept = crowd[terms.different(balance.reshape(-1, balance.shape[2])[crowd], terms.limit)][:WIDTH]
    choice, exchange = np.divmod(kept, len(rows))
    return _Reached(
        balance[choice, exchange],
        regret[choice, exchange],
        np.column_stack([reached.taken[choice], rows[exchange]]),
    )


def _least(values: Floats, count: int) -> Ints:
    """The rows of the least finite values, in order."""
    if len(values) > count:
        rows = np.argpartition(values, count - 1)[:count]
        rows.sort()
    else:
        rows = np.arange(len(values))
    rows = rows[np.isfinite(values[rows])]
    return np.asarray(rows[np.argsort(values[rows], kind="stable")])


def _first_of_each(rows: Ints) -> Ints:
    """The first few of equal rows, in order."""
    _, group = np.unique(rows, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[rank < ALIKE])
