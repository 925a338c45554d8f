"""From prices to a choice for every host: a beam search along the relaxation's own path.

Hosts are gone through one after the other. A partial choice is judged by its regret and by how far
its balance (VMs left less come, by kind) is from what the relaxation would have there; the best few
with different balances are kept. What the balance lacks in the end is set right in `balance`.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.defragment.balance import Menu, Terms, balanced
from balancerd.core.planner.defragment.columns import Column, columns_of
from balancerd.core.planner.defragment.options import Options
from balancerd.core.planner.defragment.prices import ROUNDING, Relaxed

ATTEMPTS = (20, 100, 400)  # partial choices kept; more where fewer stay behind the bound
PULL = 0.01  # rooms that one VM away from the path weighs
LEAST_GAIN = 0.01  # rooms; with a bound below it there is nothing to look for
CROWD = 4  # times the width that are sorted


@dataclass(frozen=True, slots=True)
class Stage:
    """A host, what it could do, and the path after it."""

    host: int
    columns: list[Column]
    changes: Ints  # columns x (kinds, moves)
    regrets: Floats
    path: Floats


@dataclass(frozen=True, slots=True)
class Beam:
    """Partial choices, the best first."""

    balance: Ints
    regret: Floats
    parent: Ints
    column: Ints


def choose(
    options: Options, relaxed: Relaxed, plentiful: Bools, budget: int, worth: float
) -> dict[int, Column]:
    """What the hosts that do anything do, within the budget of moves.

    Kinds for whose landing nothing is paid, and whose places are plentiful, are not balanced.
    """
    least = 1.0 - worth * budget  # one room, with all moves
    if relaxed.bound < max(LEAST_GAIN, least - LEAST_GAIN):
        return {}
    scarce = ~plentiful | (relaxed.prices.kinds > ROUNDING)
    stages = _stages(options, relaxed, scarce, worth)
    if not stages:
        return {}
    prices = np.append(relaxed.prices.kinds, relaxed.prices.move)
    limit = np.append(np.zeros(len(prices) - 1, dtype=np.int64), budget)
    return _chosen(stages, Terms(limit, prices, worth), relaxed.bound)


def _chosen(stages: list[Stage], terms: Terms, bound: float) -> dict[int, Column]:
    """The best that wider and wider beams lead to; nothing, if that is as good."""
    menu, best, least = _menu(stages), np.zeros(0, dtype=np.int64), bound
    for width in ATTEMPTS:
        found = _search(stages, terms, width)
        if found is None:
            continue
        rows, short = balanced(menu, terms, menu.first + found)
        if short < least:
            best, least = rows, short
        if terms.suffices(menu.changes[rows].sum(axis=0), short):
            break
    columns = [column for stage in stages for column in stage.columns]
    return {
        stage.host: columns[row]
        for stage, row in zip(stages, best.tolist(), strict=False)
        if columns[row].change.any()
    }


def _menu(stages: list[Stage]) -> Menu:
    counts = [len(stage.columns) for stage in stages]
    return Menu(
        stage=np.repeat(np.arange(len(stages)), counts),
        first=np.cumsum([0, *counts[:-1]]),
        changes=np.concatenate([stage.changes for stage in stages]),
        regrets=np.concatenate([stage.regrets for stage in stages]),
    )


def _stages(options: Options, relaxed: Relaxed, scarce: Bools, worth: float) -> list[Stage]:
    """The hosts that could do something: first those that have to, then by how many ways."""
    of_class = columns_of(options, relaxed, scarce, worth)
    ranked = []
    for number, columns in enumerate(of_class):
        idle = min((c.regret for c in columns if not c.change.any()), default=np.inf)
        if len(columns) > 1 or np.isinf(idle):
            ranked.append((-idle, len(columns), number))
    stages, path = [], np.zeros(options.left.shape[1] + 1)
    counted = np.append(scarce, True)
    for _, _, number in sorted(ranked):
        columns = of_class[number]
        changes = np.array([column.change for column in columns])
        regrets = np.array([column.regret for column in columns])
        for host in options.classes[number]:
            path = path + relaxed.expected[number] * counted
            stages.append(Stage(host, columns, changes, regrets, path))
    return stages


def _search(stages: list[Stage], terms: Terms, width: int) -> Ints | None:
    """The column of each stage in the choice that lacks least in the end; None if the budget is
    too small for what hosts have to do."""
    zero = np.zeros(1, dtype=np.int64)
    beams = [Beam(np.zeros((1, len(terms.limit)), dtype=np.int64), np.zeros(1), zero, zero)]
    for stage in stages:
        beams.append(_step(beams[-1], stage, terms, width))
    last, picks = beams[-1], []
    if not len(last.regret):
        return None
    index = int(terms.short(last.balance, last.regret).argmin())
    for beam in reversed(beams[1:]):
        picks.append(int(beam.column[index]))
        index = int(beam.parent[index])
    return np.array(picks[::-1])


def _step(beam: Beam, stage: Stage, terms: Terms, width: int) -> Beam:
    """Every partial choice with everything that the next host could do; the best of them.

    More places than the path has are no harm where nothing is paid for them.
    """
    count = len(stage.columns)
    balance = (beam.balance[:, np.newaxis, :] + stage.changes).reshape(-1, beam.balance.shape[1])
    regret = (beam.regret[:, np.newaxis] + stage.regrets).reshape(-1)
    rows = rows_where(balance[:, -1] <= terms.limit[-1])
    away = balance[rows] - stage.path
    away = np.where(terms.prices > ROUNDING, np.abs(away), np.maximum(away, 0.0))
    score = regret[rows] + PULL * away.sum(axis=1)
    if len(rows) > CROWD * width:
        crowd = np.argpartition(score, CROWD * width)[: CROWD * width]
        crowd.sort()
        rows, score = rows[crowd], score[crowd]
    rows = rows[np.argsort(score, kind="stable")]
    needed = np.floor(stage.path).astype(np.int64)
    rows = rows[terms.different(balance[rows], needed)][:width]
    return Beam(balance[rows], regret[rows], parent=rows // count, column=rows % count)
