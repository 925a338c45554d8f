"""What each class of hosts could do that is nearly as good as its best: few, and none for nothing.

At the right prices a solution is made of options whose regret (what they pay less than the best)
is small in all, so only those are worth combining. Kinds of VMs that find a place in any case are
left out of all changes; `sequence` looks for one.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.defragment.options import Filling, Options, Scene
from balancerd.core.planner.defragment.prices import Offers, Relaxed, offers

REGRET = 0.25  # rooms
PER_NODE = 16  # choices kept of a node, ...
PER_SCENE = 48  # ... of a scene and ...
PER_CLASS = 24  # ... of a class
CROWD = 6  # times as many are compared with each other
ALIKE = 4  # times as many as those are looked at for different ones
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads numbers over all bits


@dataclass(frozen=True, slots=True)
class Choice:
    """What a node does: the VMs that leave, and those that come, by kind."""

    leaving: Filling
    coming: Filling


@dataclass(frozen=True, slots=True)
class Column:
    """What a host does: a scene, and a choice for each of its nodes."""

    regret: float
    change: Ints  # by kind: left less come; in the last place the moves
    gain: float  # rooms
    scene: Scene
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """Ways for a node or a host to be, in rows: figures, and which ones they are made of."""

    regret: Floats
    change: Ints  # ways x (kinds, moves)
    gain: Floats
    size: Ints  # VMs that leave or come
    made_of: Ints  # of a node: option, filling; of a host: scene, then the way of each node

    def __getitem__(self, rows: Ints | Bools | slice) -> "Ways":
        return Ways(
            self.regret[rows],
            self.change[rows],
            self.gain[rows],
            self.size[rows],
            self.made_of[rows],
        )

    def ranked(self) -> "Ways":
        """The least regret first, then what changes least."""
        return self[np.lexsort((self.size, self.regret.round(6)))]


@dataclass(frozen=True, slots=True)
class Market:
    """The options, what each is worth, which kinds' landing is scarce, and fillings of those."""

    options: Options
    offered: Offers
    scarce: Bools
    fillings: Ints

    @classmethod
    def of(cls, options: Options, relaxed: Relaxed, scarce: Bools, worth: float) -> "Market":
        """At the relaxation's prices."""
        fillings = np.flatnonzero(~options.filled[:, ~scarce].any(axis=1))
        return cls(options, offers(options, relaxed.prices, worth), scarce, fillings)


def columns_of(
    options: Options, relaxed: Relaxed, scarce: Bools, worth: float
) -> list[list[Column]]:
    """The columns of each class, the best first; the first change of its kind is kept."""
    market = Market.of(options, relaxed, scarce, worth)
    offered, of_state = market.offered, dict[int, Ways]()
    found: list[list[Ways]] = [[] for _ in options.classes]
    regrets = offered.best[options.scene_class] - offered.scene
    coming = (options.shifted[:, ~market.scarce] < 0).any(axis=1)
    for row in rows_where((regrets <= REGRET) & ~coming).tolist():
        for state in options.scenes[row].states:
            if state not in of_state:
                of_state[state] = _of_node(market, state)
        ways = _of_scene(market, row, float(regrets[row]), of_state)
        found[options.scene_class[row]].append(ways)
    return [_columns(options, _of_class(ways), of_state) for ways in found]


def _of_node(market: Market, state: int) -> Ways:
    """What a node in a state could do with little regret."""
    options, offered, scarce = market.options, market.offered, market.scarce
    first, end = np.searchsorted(options.state, [state, state + 1])
    rows = np.arange(first, end)
    regret = offered.state[state] - offered.option[rows]
    rows, regret = rows[regret <= REGRET], regret[regret <= REGRET]
    worths = offered.filling[options.over[rows]][:, market.fillings]
    lost = worths.max(axis=1, keepdims=True) - worths + regret[:, np.newaxis]
    # What leaves and comes of one kind is another option, with fewer moves.
    lost[options.left[rows] @ options.filled[market.fillings].T > 0] = np.inf
    row, column = np.nonzero(lost <= REGRET)
    filling = market.fillings[column]
    left, filled = options.left[rows[row]], options.filled[filling]
    moves = left.sum(axis=1)
    ways = Ways(
        regret=lost[row, column],
        change=np.column_stack([left * scarce - filled, moves]).astype(np.int64),
        gain=options.rooms[rows[row]],
        size=(moves + filled.sum(axis=1)).astype(np.int64),
        made_of=np.column_stack([rows[row], filling]),
    )
    return _undominated(ways, PER_NODE)


def _of_scene(market: Market, row: int, regret: float, of_state: dict[int, Ways]) -> Ways:
    """Every combination of the nodes' ways whose regrets are small together."""
    options = market.options
    scene, shifted = options.scenes[row], options.shifted[row] * market.scarce
    change = np.append(shifted, options.shifts[row]).astype(np.int64)
    ways = Ways(
        np.array([regret]),
        change[np.newaxis],
        np.array([-options.before[row]]),
        np.array([len(scene.leaving) + len(scene.coming)]),
        np.array([[row]]),
    )
    for state in scene.states:
        ways = _combined(ways, of_state[state])
    return ways


def _combined(ways: Ways, others: Ways) -> Ways:
    """Each of some ways with each of those of one more node, as far as they are worth it."""
    regrets = ways.regret[:, np.newaxis] + others.regret
    row, other = np.nonzero(regrets <= REGRET)
    size, regret = ways.size[row] + others.size[other], regrets[row, other]
    if len(row) > PER_SCENE:
        chosen = np.lexsort((size, regret.round(6)))[:PER_SCENE]
        row, other, size, regret = row[chosen], other[chosen], size[chosen], regret[chosen]
    return Ways(
        regret,
        ways.change[row] + others.change[other],
        ways.gain[row] + others.gain[other],
        size,
        np.column_stack([ways.made_of[row], other]),
    )


def _of_class(found: list[Ways]) -> Ways:
    """The ways of all scenes of a class; the nodes are as many in each."""
    ways = Ways(
        np.concatenate([ways.regret for ways in found]),
        np.concatenate([ways.change for ways in found]),
        np.concatenate([ways.gain for ways in found]),
        np.concatenate([ways.size for ways in found]),
        np.concatenate([ways.made_of for ways in found]),
    )
    return _undominated(ways, PER_CLASS)


def _columns(options: Options, ways: Ways, of_state: dict[int, Ways]) -> list[Column]:
    columns = []
    for row in range(len(ways.regret)):
        number, *picks = ways.made_of[row].tolist()
        scene, choices = options.scenes[number], []
        for state, pick in zip(scene.states, picks, strict=True):
            option, filling = of_state[state].made_of[pick].tolist()
            choices.append(Choice(options.leaving[option], options.fillings[filling]))
        figures = float(ways.regret[row]), ways.change[row], float(ways.gain[row])
        columns.append(Column(*figures, scene, tuple(choices)))
    return columns


def _undominated(ways: Ways, most: int) -> Ways:
    """The best ways, the first with each change; without those that others do at least as well
    with fewer VMs that leave, and more that come.

    To do nothing stays in any case, and the best way for each kind to come: where nothing is paid
    for some kinds, there are more ways that are as good as each other than can be kept.
    """
    ways = ways.ranked()[: ALIKE * CROWD * most]
    ways = ways[different(ways.change)[: CROWD * most]]
    table = np.column_stack([ways.change, -ways.gain])
    below: Bools = np.all(table[:, np.newaxis, :] <= table[np.newaxis, :, :], axis=2)
    np.fill_diagonal(below, val=False)
    below &= ~(below.T & np.tri(len(table), dtype=np.bool_))  # of equal ones the first stays
    coming = ways.change[:, :-1] < 0
    kept: Bools = np.asarray(~ways.change.any(axis=1))
    kept[coming.argmax(axis=0)[coming.any(axis=0)]] = True
    others = rows_where(~below.any(axis=0) & ~kept)
    kept[others[: max(0, most - int(kept.sum()))]] = True
    return ways[kept]


def different(rows: Ints) -> Ints:
    """The first of equal rows, in order."""
    mixers = MIXER * (2 * np.arange(rows.shape[1], dtype=np.uint64) + np.uint64(1))
    keys = (rows.astype(np.uint64) * mixers).sum(axis=1)
    keys ^= keys >> np.uint64(31)
    order = np.argsort(keys, kind="stable")
    is_first = np.ones(len(keys), dtype=np.bool_)
    is_first[1:] = keys[order[1:]] != keys[order[:-1]]
    return np.sort(order[is_first])
