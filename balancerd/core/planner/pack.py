"""Objective "pack": hosts are emptied, all or nothing, cheapest first, onto the fullest others."""

import numpy as np

from balancerd.core.layout import Bools, Ints
from balancerd.core.objective import watts
from balancerd.core.plan import Verdict
from balancerd.core.planner.draft import Draft


def pack(draft: Draft) -> None:
    """Decide the moves that empty hosts, until a whole round finds no other."""
    while _round(draft):
        pass


def _round(draft: Draft) -> int:
    """Try each candidate once; how many were emptied."""
    layout, moves = draft.layout, len(draft.steps)
    receivers = layout.receives & (layout.used_count > 0)
    for host in _candidates(draft):
        receivers[host] = False
        if not _empty(draft, host, receivers):
            receivers[host] = bool(layout.receives[host])
    return len(draft.steps) - moves


def _candidates(draft: Draft) -> list[int]:
    """Hosts worth emptying, in order: most power saved for the memory that has to move."""
    layout = draft.layout
    saved = watts(layout) / np.maximum(layout.used_memory, 1.0)
    rows = [
        row
        for row in range(len(layout.hosts))
        if draft.verdict(row) in (Verdict.IDLE, Verdict.NORMAL)
        and layout.gives[row]
        and layout.used_count[row] > 0
        and not any(int(layout.place[block]) == row for block in layout.moved)
    ]
    return sorted(rows, key=lambda r: (-saved[r], r))


def _empty(draft: Draft, host: int, receivers: Bools) -> bool:
    """Move everything off a host, or nothing."""
    layout = draft.layout
    blocks = layout.blocks_on(host)
    if layout.used_count[host] != sum(len(layout.blocks[block]) for block in blocks):
        return False  # something is on its way here
    if len(blocks) > draft.room() or not all(draft.is_movable(block) for block in blocks):
        return False
    name, seen = layout.hosts[host], draft.assessments[host]
    reason = f"empty {name} (CPU {seen.cpu_mean:.0%}, {seen.vms} VMs)"
    before, decided = layout.place.copy(), len(draft.steps)
    for block in sorted(blocks, key=lambda b: (-layout.memory[b], -layout.cpu[b], b)):
        target = draft.best_target(block, receivers)
        if target is None:
            draft.note_nowhere(block)
            _take_back(draft, decided, before)
            return False
        draft.move(block, target, reason)
    return True


def _take_back(draft: Draft, decided: int, before: Ints) -> None:
    for step in draft.steps[decided:]:
        draft.layout.move(step.block, int(before[step.block]))
        draft.layout.moved.discard(step.block)
    del draft.steps[decided:]
