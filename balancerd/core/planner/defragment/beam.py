"""From prices to a choice for every host: a beam search along the relaxation's own path.

Hosts are gone through one after the other. A partial choice is judged by its regret and by how far
its balance (VMs left less come, by kind) is from what the relaxation would have there; the best few
hundred with different balances are kept. At the end the balance has to be in order.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.defragment.columns import Column, columns_of, different
from balancerd.core.planner.defragment.options import Options
from balancerd.core.planner.defragment.prices import ROUNDING, Relaxed

# How many partial choices are kept, and what one VM away from the path weighs, in rooms. The wider
# search is for when the narrow one stays behind the bound.
ATTEMPTS = ((50, 0.01), (200, 0.01), (600, 0.03))
CLOSE = 0.5  # rooms below the bound with which a search is content in any case
LEAST_GAIN = 0.01  # rooms; with a bound below it there is nothing to look for
UNPLACED = 10.0  # rooms that a VM costs which finds no place, and stays
CROWD = 4  # times the width that are sorted


@dataclass(frozen=True, slots=True)
class Stage:
    """A host, what it could do, and the path after it."""

    host: int
    columns: list[Column]
    changes: Ints  # columns x (kinds, moves)
    regrets: Floats
    gains: Floats
    path: Floats


@dataclass(frozen=True, slots=True)
class Beam:
    """Partial choices, the best first."""

    balance: Ints
    regret: Floats
    gain: Floats
    parent: Ints
    column: Ints


def choose(
    options: Options, relaxed: Relaxed, plentiful: Bools, budget: int, worth: float
) -> dict[int, Column]:
    """What the hosts that do anything do, within the budget of moves.

    Kinds for whose landing nothing is paid, and whose places are plentiful, are not balanced.
    """
    if relaxed.bound < LEAST_GAIN:
        return {}
    scarce = ~plentiful | (relaxed.prices.kinds > ROUNDING)
    stages = _stages(options, relaxed, scarce, worth)
    best, most = dict[int, Column](), 0.0
    for width, pull in ATTEMPTS:
        found, value = _search(stages, budget, worth, width, pull)
        if value > most:
            best, most = found, value
        unused = budget - sum(int(column.change[-1]) for column in best.values())
        # One room more would be worth as much less as it takes more moves.
        if relaxed.bound - most < max(1.0 - worth * unused, CLOSE):
            break
    return best


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
        gains = np.array([column.gain for column in columns])
        for host in options.classes[number]:
            path = path + relaxed.expected[number] * counted
            stages.append(Stage(host, columns, changes, regrets, gains, path))
    return stages


def _search(
    stages: list[Stage], budget: int, worth: float, width: int, pull: float
) -> tuple[dict[int, Column], float]:
    """The best choice that one beam finds, and the rooms it gains less what moves are worth."""
    if not stages:
        return {}, 0.0
    nothing = np.zeros((1, len(stages[0].path)), dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    beams = [Beam(nothing, np.zeros(1), np.zeros(1), zero, zero)]
    for stage in stages:
        beams.append(_step(beams[-1], stage, budget, width, pull))
    last = beams[-1]
    if not len(last.gain):
        return {}, 0.0
    moves, balance = last.balance[:, -1], last.balance[:, :-1]
    values = last.gain - worth * moves - UNPLACED * np.maximum(balance, 0).sum(axis=1)
    index = int(values.argmax())
    value, chosen = float(values[index]), {}
    for beam, stage in zip(reversed(beams[1:]), reversed(stages), strict=True):
        column = stage.columns[int(beam.column[index])]
        if column.change.any():
            chosen[stage.host] = column
        index = int(beam.parent[index])
    return chosen, value


def _step(beam: Beam, stage: Stage, budget: int, width: int, pull: float) -> Beam:
    """Every partial choice with everything that the next host could do; the best of them."""
    count = len(stage.columns)
    balance = (beam.balance[:, np.newaxis, :] + stage.changes).reshape(-1, beam.balance.shape[1])
    regret = (beam.regret[:, np.newaxis] + stage.regrets).reshape(-1)
    rows = np.flatnonzero(balance[:, -1] <= budget)
    score = regret[rows] + pull * np.abs(balance[rows] - stage.path).sum(axis=1)
    if len(rows) > CROWD * width:
        crowd = np.argpartition(score, CROWD * width)[: CROWD * width]
        crowd.sort()
        rows, score = rows[crowd], score[crowd]
    rows = rows[np.argsort(score, kind="stable")]
    rows = rows[different(balance[rows])][:width]
    return Beam(
        balance=balance[rows],
        regret=regret[rows],
        gain=(beam.gain[:, np.newaxis] + stage.gains).reshape(-1)[rows],
        parent=rows // count,
        column=rows % count,
    )
