"""Objective "spread": the busiest host gives to the one where it helps most, until all are alike.

Nothing happens before some host is further than `thresholds.imbalance` above the mean; then it goes
on until none is further than half of that, so that noise around the threshold moves nothing.
"""

from collections.abc import Set as AbstractSet

import numpy as np

from balancerd.core.constraints import accepts
from balancerd.core.layout import Floats
from balancerd.core.planner.draft import Draft


def spread(draft: Draft) -> None:
    """Decide the moves that equalise use."""
    limit = draft.policy.thresholds.imbalance
    if _furthest(draft)[1] <= limit:
        return
    given_up: set[int] = set()
    while draft.room() > 0:
        host, distance = _furthest(draft, given_up)
        if distance <= limit / 2:
            return
        if _relieve(draft, host):
            given_up.clear()
        else:
            given_up.add(host)


def _uses(draft: Draft) -> list[Floats]:
    """Use of each host per resource, each as a fraction of capacity."""
    layout = draft.layout
    uses = [layout.expected_cpu()]
    if draft.policy.capacity.enforce_memory:
        uses.append(layout.expected_memory())
    return uses


def _furthest(draft: Draft, given_up: AbstractSet[int] = frozenset()) -> tuple[int, float]:
    """The host furthest above the mean in any resource, and how far."""
    layout = draft.layout
    staying = [name not in layout.snapshot.draining for name in layout.hosts]
    open_ = draft.awake() & (layout.gives | layout.receives) & np.array(staying)
    if not open_.any():
        return 0, 0.0
    distance = np.full(len(open_), -np.inf)
    for use in _uses(draft):
        distance = np.maximum(distance, use - use[open_].mean())
    distance[~open_] = -np.inf
    distance[list(given_up)] = -np.inf
    host = int(np.argmax(distance))
    return host, float(distance[host])


def _relieve(draft: Draft, host: int) -> bool:
    """Move one block off the host to where that lowers the sum of squares most; False if none."""
    layout = draft.layout
    best: tuple[float, int, int] | None = None
    for block in layout.blocks_on(host):
        if not draft.is_movable(block):
            continue
        rows = np.flatnonzero(accepts(layout, block))
        if not len(rows):
            draft.note_nowhere(block)
            continue
        gains = _gains(draft, block, host)[rows]
        index = int(np.argmax(gains))
        if best is None or gains[index] > best[0]:
            best = float(gains[index]), block, int(rows[index])
    if best is None or best[0] <= 1e-9:
        return False
    name, seen = layout.hosts[host], draft.assessments[host]
    use = max(float(use[host]) for use in _uses(draft))
    draft.move(best[1], best[2], f"level {name} (use {use:.0%}, CPU now {seen.cpu:.0%})")
    return True


def _gains(draft: Draft, block: int, host: int) -> Floats:
    """By how much the sum of squared uses falls if the block goes from the host to each other."""
    layout = draft.layout
    gains = np.zeros(len(layout.hosts))
    resources = [(layout.used_cpu, layout.cpu[block], layout.cpu_capacity)]
    if draft.policy.capacity.enforce_memory:
        resources.append((layout.used_memory, layout.memory[block], layout.memory_capacity))
    for used, amount, capacity in resources:
        safe = np.where(capacity > 0, capacity, 1e-9)
        use, step = used / safe, amount / safe
        gains += 2 * step[host] * use[host] - step[host] ** 2 - 2 * step * use - step**2
    return gains
