"""What the score is after each move of a plan: found from the two hosts that each move touches.

The moves are taken as what they add to hosts and take off them. Sorted by host, what each host
carries before and after is a running sum; so are, back in the order of the moves, what that changes
of the sums that scores rest on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.placing.nodes import Seat
from balancerd.core.placing.objective import (
    Carried,
    broken_by_place,
    broken_group,
    broken_rules,
    fragments,
    summands,
    summed_up,
)
from balancerd.core.policies.choices import Objective

DIGITS = 1e-12  # of what a sum comes to at most: what is less than that is arithmetic, and nothing


class Shift(Protocol):
    """A block's move between host rows; `seat`: to these NUMA nodes of the target."""

    @property
    def block(self) -> int:
        """The block that moves."""

    @property
    def source(self) -> int:
        """Where it is by then."""

    @property
    def target(self) -> int:
        """Where it goes."""

    @property
    def seat(self) -> Seat:
        """The nodes that it is to lie on there."""


def scores_along(layout: Layout, awake: Bools, shifts: Sequence[Shift]) -> list[float]:
    """The score after each of the moves, done one after the other; the last digits may differ from
    what `score` makes of the same layout. The layout itself is then somewhere between."""
    visits = _Visits.of(layout, shifts)
    sums = summands(layout, awake, Carried.of(layout)).sum(axis=1, keepdims=True)
    changes = summands(layout, awake, visits.after) - summands(layout, awake, visits.before)
    by_move = np.empty_like(changes)
    by_move[:, visits.order] = changes
    by_move = by_move[:, ::2] + by_move[:, 1::2]
    course = sums + np.cumsum(by_move, axis=1)
    course[np.abs(course) <= DIGITS * np.abs(course).max(axis=1, keepdims=True, initial=0.0)] = 0.0
    scores = summed_up(layout, awake, course)
    scores += broken_rules(layout) + np.cumsum(_broken_more(layout, shifts))
    found: list[float] = (scores + _step_by_step(layout, awake, shifts)).tolist()
    return found


@dataclass(frozen=True, slots=True)
class _Visits:
    """Each move's leave (even numbers) and arrival (odd ones), sorted by host."""

    order: Ints  # their numbers
    before: Carried  # what the host carries until then
    after: Carried  # and from then on

    @classmethod
    def of(cls, layout: Layout, shifts: Sequence[Shift]) -> "_Visits":
        """The visits that these moves are."""
        hosts = np.array([(s.source, s.target) for s in shifts], dtype=np.int64).ravel()
        blocks = np.repeat(np.array([s.block for s in shifts], dtype=np.int64), 2)
        order = np.argsort(hosts, kind="stable")
        rows, sign = hosts[order], np.where(order % 2 == 0, -1, 1)
        is_first = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
        first = rows_where(is_first)
        lengths = np.diff(np.append(first, len(rows)))

        def carried(used: Floats, by: Floats) -> tuple[Floats, Floats]:
            change = sign * by[blocks[order]]
            so_far = np.cumsum(change)
            so_far -= np.repeat(so_far[first] - change[first], lengths)
            after = used[rows] + so_far
            return np.where(is_first, used[rows], np.append(0.0, after)[:-1]), after

        cpu = carried(layout.used_cpu, layout.cpu)
        variance = carried(layout.used_variance, layout.variance)
        memory = carried(layout.used_memory, layout.memory)
        vms = carried(layout.used_count.astype(np.float64), layout.sizes.astype(np.float64))
        before, after = (
            Carried(
                rows, cpu[n], np.maximum(variance[n], 0.0), memory[n], np.rint(vms[n]).astype(int)
            )
            for n in (0, 1)
        )
        return cls(order, before, after)


def _broken_more(layout: Layout, shifts: Sequence[Shift]) -> Floats:
    """What each move adds to what is broken of the rules."""
    blocks, sources, targets = (
        np.array([getattr(shift, what) for shift in shifts], dtype=np.int64)
        for what in ("block", "source", "target")
    )
    return broken_by_place(layout, blocks, targets) - broken_by_place(layout, blocks, sources)


def _step_by_step(layout: Layout, awake: Bools, shifts: Sequence[Shift]) -> Floats:
    """What is no matter of such sums, after each move: groups of VMs, and fragments."""
    found, more = np.zeros(len(shifts)), 0.0
    if not layout.groups and layout.policy.objective is not Objective.DEFRAGMENT:
        return found
    for index, shift in enumerate(shifts):
        groups = [group for group, _ in layout.groups_of.get(shift.block, ())]
        more -= sum(broken_group(layout, group) for group in groups)
        layout.move(shift.block, shift.target, shift.seat)
        more += sum(broken_group(layout, group) for group in groups)
        found[index] = more + fragments(layout, awake)
    return found
