"""Prices that make hosts, each for itself, do together what is best for the site.

To make room for as many big VMs as possible with a budget of moves, what hosts do has to match:
of every kind no more VMs may leave than come elsewhere. The linear relaxation of that is solved by
column generation (Dantzig and Wolfe, 1960): given a price for landing a VM of each kind and one
for a move, every host does what pays best; what all of them would do is a new column of a small
master problem, whose duals are the next prices. They are smoothed towards the best ones so far
(Wentges, 1997), without which they would jump about. The result is exact: no choice of options
makes more rooms than `bound`.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Floats, Ints
from balancerd.core.planner.defragment.master import Master
from balancerd.core.planner.defragment.options import Options

ROUNDS = 200
SMOOTHING = 0.5
CLOSE = 1e-3  # rooms between bound and master at which the search ends
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Prices:
    """What is paid for landing a VM of each kind, and for a move, in big VMs."""

    kinds: Floats
    move: float


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The solution of the relaxation. `expected`: by class, VMs that leave less those that come, of
    each kind, and moves in the last column; the average over the hosts of the class."""

    prices: Prices
    bound: float  # rooms gained, less what moves have to be worth
    expected: Floats

    def moves(self, options: Options) -> float:
        """How many moves there would be."""
        return float(self.expected[:, -1] @ [len(hosts) for hosts in options.classes])


@dataclass(frozen=True, slots=True)
class Offers:
    """What everything is worth at some prices: each state's and class's best, and the options'."""

    filling: Floats  # left-over room x filling; minus infinity where it does not fit
    option: Floats
    state: Floats  # the best option of each
    scene: Floats
    best: Floats  # by class


def offers(options: Options, prices: Prices, worth: float) -> Offers:
    """The value of every option and scene; `worth` is what a move costs beside its price."""
    move = prices.move + worth
    filling = np.where(options.fits, options.filled @ prices.kinds, -np.inf)
    option = options.rooms - options.left @ (prices.kinds + move)
    option += filling.max(axis=1)[options.over]
    state = np.maximum.reduceat(option, _starts(options.state))
    scene = np.add.reduceat(state[options.nodes], options.first_node) - options.before
    scene -= options.shifted @ prices.kinds + move * options.shifts
    best = np.maximum.reduceat(scene, _starts(options.scene_class))
    return Offers(filling, option, state, scene, best)


def relax(options: Options, budget: int, worth: float) -> Relaxed:
    """The best prices for a budget of moves."""
    weights = np.array([float(len(hosts)) for hosts in options.classes])
    kinds = options.left.shape[1]
    master = Master(np.append(np.zeros(kinds), float(budget)))
    nothing = np.zeros((len(weights), kinds + 1))
    changes, bound = [nothing], np.inf
    centre = np.append(np.full(kinds, 0.5), 0.5)
    for _ in range(ROUNDS):
        duals, value = master.solve()
        tried = duals if np.isinf(bound) else SMOOTHING * centre + (1 - SMOOTHING) * duals
        for point in (tried, duals):
            offered = offers(options, Prices(point[:-1], float(point[-1])), worth)
            total = float(weights @ offered.best) + budget * float(point[-1])
            if total < bound:
                bound, centre = total, point
            change, gain = _response(options, offered, worth)
            if master.add(float(weights @ gain), weights @ change):
                changes.append(change)
                break
        else:
            break
        if bound - value < CLOSE:
            break
    master.solve()
    shares = master.shares()
    expected = sum((share * changes[number] for number, share in shares.items()), nothing)
    return Relaxed(Prices(centre[:-1], float(centre[-1])), bound, expected)


def _response(options: Options, offered: Offers, worth: float) -> tuple[Floats, Floats]:
    """What hosts of each class do at these offers, and the rooms that they gain by it."""
    scene = _first_best(offered.scene, offered.best, options.scene_class)
    option = _first_best(offered.option, offered.state, options.state)
    filling = offered.filling.argmax(axis=1)
    change = np.column_stack([options.shifted[scene], options.shifts[scene]])
    gain = -options.before[scene]
    first = options.first_node[scene]
    widths = np.append(options.first_node, len(options.nodes))[scene + 1] - first
    begins = np.cumsum(widths) - widths  # of each class's nodes among those of all
    chosen = option[options.nodes[np.arange(widths.sum()) + np.repeat(first - begins, widths)]]
    left = options.left[chosen]
    change[:, :-1] += np.add.reduceat(left - options.filled[filling[options.over[chosen]]], begins)
    change[:, -1] += np.add.reduceat(left.sum(axis=1), begins)
    gain += np.add.reduceat(options.rooms[chosen], begins)
    return change, gain - worth * change[:, -1]


def _starts(group: Ints) -> Ints:
    """Where each group of a sorted array begins."""
    return rows_where(np.append(True, group[1:] != group[:-1]))


def _first_best(values: Floats, best: Floats, group: Ints) -> Ints:
    """For each group the first row whose value is the best of the group."""
    rows = rows_where(values >= best[group] - ROUNDING)
    chosen = np.zeros(len(best), dtype=np.int64)
    chosen[group[rows[::-1]]] = rows[::-1]
    return chosen
