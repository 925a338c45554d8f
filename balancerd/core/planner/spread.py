"""Objective "spread": hosts above the mean give their largest VMs, until all are alike.

Nothing happens before some host is further than `thresholds.imbalance` above the mean, by more than
the spread of its load explains; then it goes on until none is further than half of that. So noise
around the threshold moves nothing.

Each round lifts the fewest blocks off the hosts that are too high, puts them down where they help
most, largest first, or nearly as much at the end of a better way, and lets `exchange` even out what
is left. Where each block ends up is what counts; `order.schedule` finds the steps.
"""

from collections.abc import Sequence

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.ordering.order import Want, schedule
from balancerd.core.placing.constraints import accepts, refuses, unopposed
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.exchange import LEAST_GAIN, Exchange
from balancerd.core.planner.levels import Levels

NEARER = 0.2  # of the help that a block is where it helps most: given up for a better way there


def spread(draft: Draft) -> None:
    """Decide the moves that equalise use."""
    limit = draft.policy.thresholds.imbalance
    open_ = draft.serving()
    if not open_.any():
        return
    levels = Levels.of(draft.layout, open_)
    if _unevenness(draft.layout, levels) <= limit:
        return
    trial = draft.layout.copy()
    trial.origin = draft.layout.place
    free = _free(draft, open_)
    untried = free.copy()
    while _round(draft, trial, levels, free, untried, limit / 2):
        pass
    Exchange.of(trial, levels, free).run(limit / 2, _room(draft, trial))
    _schedule(draft, trial)


def _unevenness(layout: Layout, levels: Levels) -> float:
    """How far some host is above the mean for sure: CPU wavers by its standard deviation."""
    certain = levels.distances.copy()
    certain[0] -= np.sqrt(layout.used_variance) / np.maximum(layout.cpu_capacity, 1e-9)
    return float(certain.max())


def _free(draft: Draft, open_: Bools) -> Bools:
    """Blocks on open hosts that may be moved."""
    layout = draft.layout
    free = open_[layout.place] & layout.gives[layout.place] & (layout.sizes <= draft.room())
    named = {layout.block_of[vm] for vm in draft.contradictory if vm in layout.block_of}
    special = sorted({*layout.moved, *layout.fixed, *named})
    here = open_[layout.place[special]].tolist()
    free[special] = [near and draft.is_movable(b) for near, b in zip(here, special, strict=True)]
    return np.asarray(free)


def _round(
    draft: Draft, trial: Layout, levels: Levels, free: Bools, untried: Bools, enough: float
) -> int:
    """Lift, put down, exchange; how many blocks found another place. No block is lifted twice."""
    still = untried & (trial.place == trial.origin)
    lifted = _lift(levels, trial.place, still, enough, _room(draft, trial))
    placed = _put_down(draft, trial, levels, lifted)
    untried[lifted] = False
    if placed:
        Exchange.of(trial, levels, free).run(enough)
    return placed


def _room(draft: Draft, trial: Layout) -> int:
    """How many more blocks the plan may move."""
    return draft.room() - int(trial.sizes[trial.place != trial.origin].sum())


def _lift(levels: Levels, place: Ints, free: Bools, enough: float, room: int) -> list[int]:
    """Blocks to move, largest first: for each host that is too high the fewest that are enough."""
    high = levels.distances.max(axis=0)
    hosts = [int(host) for host in np.argsort(-high, kind="stable") if high[host] > enough]
    candidates = rows_where(free)
    candidates = candidates[np.argsort(place[candidates], kind="stable")]
    first = np.searchsorted(place[candidates], np.arange(len(high) + 1)).tolist()
    lifted: list[int] = []
    for host in hosts:
        chosen = _chosen(levels, candidates[first[host] : first[host + 1]], host, enough)
        chosen = chosen[: max(0, room - len(lifted))]
        levels.add(host, -levels.amounts.take(chosen, axis=1).sum(axis=1))
        lifted += chosen.tolist()
    size = levels.amounts.max(axis=0)[lifted].tolist()
    return [block for _, block in sorted(zip([-s for s in size], lifted, strict=True))]


def _chosen(levels: Levels, blocks: Ints, host: int, enough: float) -> Ints:
    """The fewest blocks whose leaving brings a host down to the mean, as exactly as they can."""
    distances = levels.distances[:, host]
    resource = int(distances.argmax())
    amounts, capacity = levels.amounts[resource, blocks], levels.capacity[resource, host]
    order = np.argsort(-amounts, kind="stable")
    sums = np.cumsum(amounts[order])
    count = int(np.searchsorted(sums, (distances[resource] - enough) * capacity)) + 1
    chosen, others = order[:count], order[count:]
    over = sums[min(count, len(sums)) - 1] - distances[resource] * capacity if len(sums) else 0.0
    while len(others) and over > 0:
        less = amounts[chosen][:, np.newaxis] - amounts[others]
        left = np.abs(over - less)
        here, there = divmod(int(left.argmin()), len(others))
        if left[here, there] >= over - LEAST_GAIN:
            break
        over -= less[here, there]
        chosen[here], others[there] = others[there], chosen[here]
    return blocks[chosen]


def _put_down(draft: Draft, trial: Layout, levels: Levels, lifted: Sequence[int]) -> int:
    """Put lifted blocks down, each where it helps most; how many found another place.

    At first as if no rule spoke against it. Only if one may, all is asked about, block by block.
    """
    used = levels.used.copy()
    closed = ~trial.receives | ~levels.open
    blocks = np.array(lifted, dtype=np.int64)
    targets = np.array([_put(draft, trial, levels, block, closed) for block in lifted], np.int64)
    away = targets != trial.place[blocks]
    if unopposed(trial, blocks[away], targets[away]).all():
        trial.move_all(blocks[away], targets[away])
        return int(away.sum())
    levels.reset(used)
    return sum(_put_where_accepted(draft, trial, levels, block, closed) for block in lifted)


def _put_where_accepted(
    draft: Draft, trial: Layout, levels: Levels, block: int, closed: Bools
) -> bool:
    """Put a lifted block where it helps most of all hosts that take it; whether it has moved."""
    home, used = int(trial.place[block]), levels.used.copy()
    target = _put(draft, trial, levels, block, closed)
    refusal = refuses(trial, block, target) if target != home else None
    if refusal is not None:
        # Only now is it worth asking all hosts about this block.
        draft.note(refusal)
        levels.reset(used)
        target = _put(draft, trial, levels, block, ~accepts(trial, block) | closed)
    if target != home:
        trial.move(block, target)
    return target != home


def _put(draft: Draft, trial: Layout, levels: Levels, block: int, closed: Bools) -> int:
    """Put a lifted block on the open host where it helps most, or back where it was; which one."""
    home, size = int(trial.place[block]), levels.amounts[:, block : block + 1]
    rise = (size * (2.0 * levels.distances + size / levels.capacity)).sum(axis=0)
    stay = rise[home]
    rise[closed] = rise[home] = np.inf
    target = _nearest(draft, home, rise, stay)
    if rise[target] >= stay - LEAST_GAIN:
        target = home
    levels.add(target, levels.amounts[:, block])
    return target


def _nearest(draft: Draft, home: int, rise: Floats, stay: float) -> int:
    """The host where a block helps most; of those where it helps about as much, the nearest."""
    best = int(rise.argmin())
    if rise[best] >= stay or not draft.paths.topology.ways:
        return best
    lost = (rise - rise[best]) / (stay - rise[best])
    rows = rows_where(lost <= NEARER)
    return draft.paths.closest(home, rows, lost[rows])


def _schedule(draft: Draft, trial: Layout) -> None:
    """The steps from where blocks are to where the trial has them, as far as rules allow."""
    use = [draft.layout.expected_cpu()]
    if draft.policy.capacity.enforce_memory:
        use.append(draft.layout.expected_memory())
    highest = np.max(use, axis=0)
    wants, room = [], draft.room()
    for block in rows_where(trial.place != trial.origin).tolist():
        room -= len(trial.blocks[block])
        if room >= 0:
            reason = _reason(draft, int(trial.origin[block]), highest)
            wants.append(Want(block, int(trial.place[block]), reason))
    steps, refused = schedule(draft.layout, wants)
    draft.steps += steps
    for refusal in refused:
        draft.note(refusal)


def _reason(draft: Draft, host: int, use: Floats) -> str:
    now = draft.assessments[host].cpu
    return f"level {draft.layout.hosts[host]} (use {use[host]:.0%}, CPU now {now:.0%})"
