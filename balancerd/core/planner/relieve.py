"""Stage two: overloaded hosts give up the cheapest set of VMs that brings them under `release`."""

import numpy as np

from balancerd.core.moving.cost import way_at
from balancerd.core.placing.layout import Floats, Layout
from balancerd.core.plan import Verdict
from balancerd.core.planner.draft import Draft
from balancerd.core.units import format_size

# A block whose departure would relieve a host by less than this share of its capacity stays.
WORTH_MOVING = 0.005
ROUNDING = 1e-6


def relieve(draft: Draft) -> None:
    """Decide the moves off overloaded hosts, the most overloaded first."""
    overloaded = np.flatnonzero(draft.judged(Verdict.OVERLOADED) & draft.layout.gives).tolist()
    draft.layout.receives[overloaded] = False
    draft.mended = len(draft.steps)
    for row in sorted(overloaded, key=lambda r: (-draft.assessments[r].cpu, r)):
        _relieve_memory(draft, row)
        _relieve_cpu(draft, row)


def _relieve_cpu(draft: Draft, host: int) -> None:
    layout, seen = draft.layout, draft.assessments[host]
    band, capacity = draft.policy.thresholds.cpu, float(layout.cpu_capacity[host])
    gone = layout.leaving_cpu[host] + sum(
        float(layout.now[step.block]) for step in draft.steps if step.source == host
    )
    asked = sum(float(layout.now[block]) for block in layout.blocks_on(host)) + gone
    level = max(seen.cpu * capacity, seen.cpu_mean * capacity, asked)
    excess = level - band.release * capacity
    if seen.cpu <= band.overload or seen.cpu_mean <= band.overload:
        if seen.waiting <= draft.policy.detection.steal:
            return  # it is its memory that is overloaded
        if len(layout.blocks_on(host)) < 2:
            return  # whoever is alone waits for no other VM: on another host it would as well
        excess = max(excess, seen.waiting * level)
    reason = f"{layout.hosts[host]}: {seen.reason}, unload to {band.release:.0%}"
    _unload(draft, host, excess - gone, layout.now, WORTH_MOVING * capacity, reason)


def _relieve_memory(draft: Draft, host: int) -> None:
    layout, band, seen = draft.layout, draft.policy.thresholds.memory, draft.assessments[host]
    if not draft.policy.capacity.enforce_memory:
        return
    share, capacity = float(layout.settled_memory()[host]), float(layout.memory_capacity[host])
    name, excess = layout.hosts[host], 0.0
    if share > band.overload:
        excess = (share - band.release) * capacity
        reason = f"{name} memory {share:.0%} > {band.overload:.0%}: unload to {band.release:.0%}"
    if seen.shortage > draft.policy.detection.shortage * capacity and seen.shortage > excess:
        excess = seen.shortage - layout.leaving_memory[host]
        reason = f"{name} lacks {format_size(seen.shortage)} of memory: unload as much"
    if excess > 0:
        _unload(draft, host, excess, layout.memory, 0.0, reason)


def _unload(
    draft: Draft, host: int, excess: float, amount: Floats, least: float, reason: str
) -> None:
    """Move blocks off until their `amount` has brought the excess down to nothing.

    Only if the hosts that are on have no room for enough of them, another host is woken.
    """
    left = [
        block
        for block in draft.layout.blocks_on(host)
        if amount[block] > least and draft.is_movable(block)
    ]
    # A rounding error's worth of excess must not wake a host.
    excess, left = _give(draft, left, excess * (1 - ROUNDING), amount, reason)
    while excess > 0 and left and draft.wake_one(reason, left[0], urgent=True):
        excess, left = _give(draft, left, excess, amount, reason)
    for block in left if excess > 0 else ():
        draft.note_nowhere(block)


def _give(
    draft: Draft, blocks: list[int], excess: float, amount: Floats, reason: str
) -> tuple[float, list[int]]:
    """The excess that is left, and the blocks that found no room, the biggest first.

    Each time the cheapest block that is enough alone is tried; without one, the one that brings
    most for its cost.
    """
    left, nowhere = list(blocks), []
    price = {block: _price(draft.layout, block) for block in left}
    while excess > 0 and left and draft.room() > 0:
        enough = [block for block in left if amount[block] >= excess]
        if enough:
            block = min(enough, key=lambda b: (price[b], b))
        else:
            block = min(left, key=lambda b: (price[b] / amount[b], b))
        left.remove(block)
        target = draft.best_target(block)
        if target is None:
            nowhere.append(block)
        elif draft.is_movable(block):
            draft.move(block, target, reason)
            excess -= float(amount[block])
    return excess, sorted(nowhere, key=lambda b: (-amount[b], b))


def _price(layout: Layout, block: int) -> float:
    """Bytes that moving the block would send."""
    policy, snapshot = layout.policy, layout.snapshot
    rate = float(policy.limits.bandwidth)
    return sum(way_at(vm, snapshot, policy, rate).copy.bytes for vm in layout.blocks[block])
