"""Objective "spread": the busiest host gives to the one where it helps most, until all are alike.

Nothing happens before some host is further than `thresholds.imbalance` above the mean; then it goes
on until none is further than half of that, so that noise around the threshold moves nothing.
"""

from collections.abc import Set as AbstractSet

import numpy as np

from balancerd.core.constraints import accepts, refuses
from balancerd.core.layout import Bools, Floats, Ints
from balancerd.core.planner.draft import Draft

LEAST_GAIN = 1e-9  # below it, arithmetic would move VMs for nothing


def spread(draft: Draft) -> None:
    """Decide the moves that equalise use."""
    limit = draft.policy.thresholds.imbalance
    open_ = draft.serving()
    if not open_.any() or _furthest(draft, open_, set())[1] <= limit:
        return
    while _round(draft, open_, limit / 2):
        pass


def _round(draft: Draft, open_: Bools, enough: float) -> int:
    """Relieve the furthest host again and again, each until nothing helps it; how many moves."""
    given_up: set[int] = set()
    moves = len(draft.steps)
    while draft.room() > 0:
        host, distance = _furthest(draft, open_, given_up)
        if distance <= enough:
            break
        if not _relieve(draft, host):
            given_up.add(host)
    return len(draft.steps) - moves


def _uses(draft: Draft) -> list[Floats]:
    """Use of each host per resource, each as a fraction of capacity."""
    layout = draft.layout
    uses = [layout.expected_cpu()]
    if draft.policy.capacity.enforce_memory:
        uses.append(layout.expected_memory())
    return uses


def _furthest(draft: Draft, open_: Bools, given_up: AbstractSet[int]) -> tuple[int, float]:
    """The host furthest above the mean of the open ones in any resource, and how far."""
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
    blocks = [block for block in layout.blocks_on(host) if draft.is_movable(block)]
    if not blocks:
        return False
    gains = _gains(draft, np.array(blocks), host)
    gains[:, ~layout.receives] = -np.inf
    gains[:, host] = -np.inf
    while True:
        index, target = divmod(int(np.argmax(gains)), len(layout.hosts))
        block = blocks[index]
        if gains[index, target] <= LEAST_GAIN:
            return False
        refusal = refuses(layout, block, target)
        if refusal is None:
            draft.move(block, target, _reason(draft, host))
            return True
        # Only now is it worth asking all hosts about this block.
        draft.note(refusal)
        gains[index, ~accepts(layout, block)] = -np.inf


def _reason(draft: Draft, host: int) -> str:
    use = max(float(use[host]) for use in _uses(draft))
    now = draft.assessments[host].cpu
    return f"level {draft.layout.hosts[host]} (use {use:.0%}, CPU now {now:.0%})"


def _gains(draft: Draft, blocks: Ints, host: int) -> Floats:
    """By how much the sum of squared uses falls if a block goes from the host to each other.

    One row for each block, one column for each host.
    """
    layout = draft.layout
    gains = np.zeros((len(blocks), len(layout.hosts)))
    resources = [(layout.used_cpu, layout.cpu[blocks], layout.cpu_capacity)]
    if draft.policy.capacity.enforce_memory:
        resources.append((layout.used_memory, layout.memory[blocks], layout.memory_capacity))
    for used, amounts, capacity in resources:
        safe = np.where(capacity > 0, capacity, 1e-9)
        use, step = used / safe, amounts[:, np.newaxis] / safe
        here = step[:, [host]]
        gains += 2 * here * use[host] - here**2 - 2 * step * use - step**2
    return gains
