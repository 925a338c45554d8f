"""What each class of hosts could do that is nearly as good as its best: few, and none for nothing.

At the right prices a solution is made of options whose regret (what they pay less than the best)
is small in all, so only those are worth combining.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.defragment.options import Filling, Options, Scene
from balancerd.core.planner.defragment.prices import Offers, Relaxed, offers

REGRET = 0.25  # rooms
PER_OPTION = 24  # fillings looked at of an option, ...
PER_NODE = 16  # ... choices kept of a node, ...
PER_SCENE = 48  # ... of a scene and ...
PER_CLASS = 24  # ... of a class
CROWD = 6  # times as many are compared with each other


@dataclass(frozen=True, slots=True)
class Choice:
    """What a node does: who leaves and comes by kind, and the big VMs that fit then."""

    regret: float
    change: Ints  # by kind: left less come; in the last place the moves
    rooms: float
    leaving: Filling
    coming: Filling
    size: int  # VMs that leave or come


@dataclass(frozen=True, slots=True)
class Column:
    """What a host does: a scene, and a choice for each of its nodes."""

    regret: float
    change: Ints
    gain: float  # rooms
    scene: Scene
    choices: tuple[Choice, ...]
    size: int


def columns_of(options: Options, relaxed: Relaxed, worth: float) -> list[list[Column]]:
    """The columns of each class, the best first; the first change of its kind is kept."""
    offered = offers(options, relaxed.prices, worth)
    of_state: dict[int, list[Choice]] = {}
    found: list[dict[bytes, Column]] = [{} for _ in options.classes]
    regrets = offered.best[options.scene_class] - offered.scene
    for row in np.flatnonzero(regrets <= REGRET):
        there = found[options.scene_class[row]]
        for column in _of_scene(options, offered, int(row), float(regrets[row]), of_state):
            known = there.get(column.change.tobytes())
            if known is None or column.regret < known.regret:
                there[column.change.tobytes()] = column
    return [_undominated(columns.values()) for columns in found]


def _of_scene(
    options: Options,
    offered: Offers,
    row: int,
    regret: float,
    of_state: dict[int, list[Choice]],
) -> list[Column]:
    """Every combination of the nodes' choices whose regrets are small together."""
    scene = options.scenes[row]
    change = np.append(options.shifted[row], options.shifts[row]).astype(np.int64)
    size = (scene.leaving is not None) + (scene.coming is not None)
    columns = [Column(regret, change, -float(options.before[row]), scene, (), size)]
    for state in scene.states:
        if state not in of_state:
            of_state[state] = _choices(options, offered, state)
        columns = [
            Column(
                column.regret + choice.regret,
                column.change + choice.change,
                column.gain + choice.rooms,
                scene,
                (*column.choices, choice),
                column.size + choice.size,
            )
            for column in columns
            for choice in of_state[state]
            if column.regret + choice.regret <= REGRET
        ]
        columns = sorted(columns, key=_rank)[:PER_SCENE]
    return columns


def _choices(options: Options, offered: Offers, state: int) -> list[Choice]:
    """The choices of a node in a state whose regret is small."""
    first, end = np.searchsorted(options.state, [state, state + 1])
    found: dict[bytes, Choice] = {}
    for row in range(first, end):
        regret = offered.state[state] - offered.option[row]
        if regret > REGRET:
            continue
        worths = offered.filling[options.over[row]]
        lost = worths.max() - worths + regret
        near = np.flatnonzero(lost <= REGRET)
        if len(near) > PER_OPTION:  # they lie in order of their size
            near = near[np.argsort(lost[near], kind="stable")[:PER_OPTION]]
        for filling in near:
            if set(options.leaving[row]) & set(options.fillings[filling]):
                continue  # the same with fewer moves is another option
            difference = options.left[row] - options.filled[filling]
            change = np.append(difference, len(options.leaving[row])).astype(np.int64)
            known = found.get(change.tobytes())
            if known is None or lost[filling] < known.regret:
                found[change.tobytes()] = Choice(
                    float(lost[filling]),
                    change,
                    float(options.rooms[row]),
                    options.leaving[row],
                    options.fillings[filling],
                    len(options.leaving[row]) + len(options.fillings[filling]),
                )
    return _undominated_choices(found.values())


def _undominated_choices(choices: Iterable[Choice]) -> list[Choice]:
    ranked = sorted(choices, key=_rank)[: CROWD * PER_NODE]
    keep = _keep([choice.change for choice in ranked], [choice.rooms for choice in ranked])
    return [choice for choice, kept in zip(ranked, keep, strict=True) if kept][:PER_NODE]


def _undominated(columns: Iterable[Column]) -> list[Column]:
    ranked = sorted(columns, key=_rank)[: CROWD * PER_CLASS]
    keep = _keep([column.change for column in ranked], [column.gain for column in ranked])
    return [column for column, kept in zip(ranked, keep, strict=True) if kept][:PER_CLASS]


def _rank(choice: Choice | Column) -> tuple[float, int]:
    """The least regret first, then what changes least."""
    return round(choice.regret, 6), choice.size


def _keep(changes: list[Ints], gains: list[float]) -> list[bool]:
    """Whether nothing else does at least as well with fewer VMs that leave, more that come."""
    if not changes:
        return []
    table: Floats = np.column_stack([np.array(changes, dtype=np.float64), -np.array(gains)])
    below: Bools = np.all(table[:, np.newaxis, :] <= table[np.newaxis, :, :], axis=2)
    np.fill_diagonal(below, val=False)
    below &= ~(below.T & np.tri(len(gains), dtype=np.bool_))  # of equal ones the first stays
    return [not dominated for dominated in np.any(below, axis=0).tolist()]
