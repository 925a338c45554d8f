"""Stage two: overloaded hosts give up the cheapest set of VMs that brings them under `release`."""

from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.moving.cost import way_at
from balancerd.core.placing import wavers
from balancerd.core.placing.layout import Floats, Layout
from balancerd.core.plan import Refusal, Verdict
from balancerd.core.planner.draft import Draft, Mark
from balancerd.core.units import counted, format_size

# A block whose departure would relieve a host by less than this share of its capacity stays.
WORTH_MOVING = 0.005
ROUNDING = 1e-6
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class _Load:
    """What a host has too much of: how much of it each block brings, and why it is to go."""

    amount: Floats
    reason: str
    least: float = 0.0  # blocks that bring no more stay
    passing: bool = False  # less is expected of the host than it has now
    ahead: bool = False  # it is room that will be needed


def relieve(draft: Draft) -> None:
    """Decide the moves off overloaded hosts, the most overloaded first."""
    overloaded = rows_where(draft.judged(Verdict.OVERLOADED) & draft.layout.gives).tolist()
    draft.layout.receives[overloaded] = False
    draft.mended = len(draft.steps)
    for row in sorted(overloaded, key=lambda r: (-draft.assessments[r].cpu, r)):
        _relieve_memory(draft, row)
        _make_room(draft, row)
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
    passing = bool(layout.used_cpu[host] <= band.landing * capacity)
    reason = f"{layout.hosts[host]}: {seen.reason}, unload to {band.release:.0%}"
    most = draft.policy.limits.moves_per_peak if passing else None
    before = draft.mark() if most else None
    load = _Load(layout.now, reason, WORTH_MOVING * capacity, passing)
    _unload(draft, host, excess - gone, load)
    if before and most:
        _sit_out(draft, host, before, most)


def _sit_out(draft: Draft, host: int, before: Mark, most: int) -> None:
    """Leave a host as it was if ending its peak takes too many moves: it passes before them."""
    moves = before.room - draft.room()
    if moves <= most:
        return
    draft.back_to(before)
    detail = f"ending its peak takes {counted(moves, 'move')}, at most {most} may"
    name = draft.layout.hosts[host]
    draft.note(Refusal("", name, "passing peak", detail, "raise limits.moves_per_peak"))


def _make_room(draft: Draft, host: int) -> None:
    """Leave room for the wavers of what stays, where there is some elsewhere."""
    layout, seen = draft.layout, draft.assessments[host]
    overload = draft.policy.thresholds.cpu.overload
    if min(seen.cpu, seen.cpu_mean) <= overload or not wavers.lacking(layout)[host] > 0:
        return
    reason = f"{layout.hosts[host]}: {seen.reason}"
    excess = float(wavers.lacking(layout, wavers.AHEAD)[host])
    _unload(draft, host, excess, _Load(wavers.freed(layout, host), reason, ahead=True))


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
        _unload(draft, host, excess, _Load(layout.memory, reason))


def _unload(draft: Draft, host: int, excess: float, load: _Load) -> None:
    """Move blocks off until what they bring has taken the excess down to nothing.

    Only if the hosts that are on have no room for enough of them, another host is woken; none for
    room that will be needed.
    """
    left = [
        block
        for block in draft.layout.blocks_on(host)
        if load.amount[block] > load.least and draft.is_movable(block)
    ]
    # A rounding error's worth of excess must not wake a host.
    excess, left = _give(draft, left, excess * (1 - ROUNDING), load)
    wakes = not load.ahead
    while wakes and excess > 0 and left and draft.wake_one(load.reason, left[0], urgent=True):
        excess, left = _give(draft, left, excess, load)
    for block in left if excess > 0 else ():
        draft.note_nowhere(block)


def _give(draft: Draft, blocks: list[int], excess: float, load: _Load) -> tuple[float, list[int]]:
    """The excess that is left, and the blocks that found no room, the biggest first.

    Each time the cheapest of the blocks that are enough alone is tried; without one, the biggest,
    so that few are moved.
    """
    left, nowhere, amount = list(blocks), [], load.amount
    price = _prices(draft.layout, blocks, passing=load.passing)
    while excess > 0 and left and draft.room() > 0:
        enough = [block for block in left if amount[block] >= excess]
        if enough:
            block = min(enough, key=lambda b: (price[b], b))
        else:
            block = min(left, key=lambda b: (-amount[b], price[b], b))
        left.remove(block)
        among = wavers.roomy(draft.layout, block) if load.ahead else None
        target = draft.best_target(block, among)
        if target is None:
            nowhere.append(block)
        elif draft.is_movable(block):
            draft.move(block, target, load.reason)
            excess -= float(amount[block])
    return excess, sorted(nowhere, key=lambda b: (-amount[b], b))


def _prices(layout: Layout, blocks: list[int], *, passing: bool) -> dict[int, float]:
    """What it costs to move each block, against the others: bytes, and room elsewhere.

    A peak is best ended by moving who has it: of two blocks that bring the same now, the one of
    which less is expected. Once the peak is over, both hosts are nearly what they were.
    """
    sent = np.array([_bytes(layout, block) for block in blocks])
    prices = sent / max(sent.sum(), TINY)
    if passing:
        expected = layout.cpu[blocks]
        prices += expected / max(expected.sum(), TINY)
    return dict(zip(blocks, prices.tolist(), strict=True))


def _bytes(layout: Layout, block: int) -> float:
    """What moving the block would send."""
    policy, snapshot = layout.policy, layout.snapshot
    rate = float(policy.limits.bandwidth)
    return sum(way_at(vm, snapshot, policy, rate).copy.bytes for vm in layout.blocks[block])
