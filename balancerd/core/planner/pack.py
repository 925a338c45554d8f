"""Objective "pack": hosts are emptied, all or nothing, onto the fullest of the most efficient.

The search goes on a trial layout and may move a block more than once; what counts is where each
ends up, and `order.schedule` finds the steps from where it is.
"""

import numpy as np

from balancerd.core.layout import Bools, Floats, Ints, Layout
from balancerd.core.objective import watts
from balancerd.core.order import Want, schedule
from balancerd.core.plan import Verdict
from balancerd.core.planner.draft import Draft


def pack(draft: Draft) -> None:
    """Decide the moves that empty hosts, until a whole round finds no other."""
    trial = draft.on(draft.layout.copy())
    reasons: dict[int, str] = {}
    while _round(draft, trial, reasons):
        pass
    wants = [
        Want(block, int(trial.layout.place[block]), reason)
        for block, reason in reasons.items()
        if trial.layout.place[block] != draft.layout.place[block]
    ]
    steps, refused = schedule(draft.layout, wants)
    draft.steps += steps
    for refusal in refused:
        draft.note(refusal)


def _round(draft: Draft, trial: Draft, reasons: dict[int, str]) -> int:
    """Try each candidate once; how many hosts were emptied."""
    layout, emptied = trial.layout, 0
    receivers = layout.receives & (layout.used_count > 0)
    for host in _candidates(draft, trial):
        receivers[host] = False
        if _empty(draft, trial, host, receivers, reasons):
            emptied += 1
        else:
            receivers[host] = bool(layout.receives[host])
    return emptied


def _candidates(draft: Draft, trial: Draft) -> list[int]:
    """Hosts to empty, in order: the least efficient, then most watts for the memory to move."""
    layout = trial.layout
    fresh = _to_move(draft.layout, layout)
    saved = watts(layout) / np.maximum(fresh, 1.0)
    price = layout.peak / np.maximum(layout.cpu_capacity, 1e-9)
    min_on = draft.policy.power.min_on
    tied = {int(layout.place[block]) for block in draft.layout.moved}
    rows = [
        row
        for row in range(len(layout.hosts))
        if draft.verdict(row) in (Verdict.IDLE, Verdict.NORMAL)
        and layout.gives[row]
        and layout.used_count[row] > 0
        and row not in tied
        and draft.now - draft.history.woken.get(layout.hosts[row], -np.inf) >= min_on
    ]
    return sorted(rows, key=lambda r: (-price[r], -saved[r], r))


def _to_move(before: Layout, layout: Layout) -> Floats:
    """Memory on each host of blocks that the trial has not moved yet."""
    fresh = np.zeros(len(layout.hosts))
    still = before.place == layout.place
    np.add.at(fresh, layout.place[still], layout.memory[still])
    return fresh


def _empty(
    draft: Draft, trial: Draft, host: int, receivers: Bools, reasons: dict[int, str]
) -> bool:
    """Move everything off a host, or nothing."""
    layout = trial.layout
    blocks = layout.blocks_on(host)
    if layout.used_count[host] != sum(len(layout.blocks[block]) for block in blocks):
        return False  # something is on its way here
    fresh = [block for block in blocks if block not in reasons]
    most = min(draft.policy.limits.moves_per_host, draft.room() - len(reasons))
    if sum(len(layout.blocks[block]) for block in fresh) > most:
        draft.counts["moves per host"] += 1
        return False
    if not all(draft.is_movable(block) for block in fresh):
        return False
    before, fill = layout.place[blocks], _fill(draft, fresh)
    for block in sorted(blocks, key=lambda b: (-layout.memory[b], -layout.cpu[b], b)):
        target = trial.best_target(block, receivers, fill=fill)
        if target is None:
            draft.counts["no room"] += 1
            _take_back(layout, blocks, before)
            return False
        layout.move(block, target)
    name, seen = layout.hosts[host], draft.assessments[host]
    reason = f"empty {name} (CPU {seen.cpu_mean:.0%}, {seen.vms} VMs)"
    reasons.update(dict.fromkeys(fresh, reason))
    return True


def _fill(draft: Draft, blocks: list[int]) -> float:
    """How full the others' CPU may get. The more moves, the more room has to be left for later."""
    bands, limits = draft.policy.thresholds, draft.policy.limits
    moves = sum(len(draft.layout.blocks[block]) for block in blocks)
    fill = bands.fill * (1.0 - bands.margin * moves / limits.moves_per_host)
    return bands.cpu.landing * fill


def _take_back(layout: Layout, blocks: list[int], before: Ints) -> None:
    for block, host in zip(blocks, before, strict=True):
        if layout.place[block] != host:
            layout.move(block, int(host))
