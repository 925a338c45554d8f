"""From where VMs should be to moves that get them there, one safe step after another.

`schedule` finds a sequence in which every step is accepted by the rules, with a parking host where
VMs want to swap places. `dependencies` then says which steps really have to wait for which. The
rule: a step may overtake earlier ones only if its target would take it with everything that ever
visits that target before it there *at once*; else it waits for every earlier step that enters or
leaves the target. (Comparing with the layout at the start is not enough: an earlier step may enter
a host and leave it again.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from balancerd.core.moving.graphs import reduced, swap_cycle
from balancerd.core.placing.constraints import accepts, refuses, unopposed
from balancerd.core.placing.layout import Bools, Layout
from balancerd.core.placing.nodes import Seat
from balancerd.core.plan import Refusal


@dataclass(frozen=True, slots=True)
class Step:
    """A block's move between host rows; `parked`: an earlier step put it where it leaves from."""

    block: int
    source: int
    target: int
    reason: str
    parked: bool = False
    seat: Seat = ()  # NUMA nodes of the target, where VMs are bound to some

    def numa(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """The NUMA nodes of the target that are meant for each VM that is bound to some."""
        nodes = layout.nodes
        return nodes.named(self.block, self.target, self.seat) if nodes else {}


@dataclass(frozen=True, slots=True)
class Want:
    """Where a block should end up."""

    block: int
    target: int
    reason: str


def schedule(layout: Layout, wants: Sequence[Want]) -> tuple[list[Step], list[Refusal]]:
    """Steps for the wants, as far as the rules allow, carried out on the layout; and the rest."""
    steps: list[Step] = []
    pending, parked = list(wants), set[int]()
    if _unopposed(layout, wants).all():
        return _at_once(layout, wants), []
    while pending:
        waiting = []
        for want in pending:
            if refuses(layout, want.block, want.target) is None:
                steps.append(_step(layout, want, want.target, parked))
            else:
                waiting.append(want)
        if len(waiting) == len(pending):
            parking = _park(layout, waiting, parked)
            if parking is None:
                return steps, [r for w in waiting if (r := refuses(layout, w.block, w.target))]
            steps.append(parking)
        pending = waiting
    return steps, []


def _unopposed(layout: Layout, ways: Sequence[Step] | Sequence[Want]) -> Bools:
    """Which blocks may go their ways whatever others go before."""
    blocks = np.array([way.block for way in ways], dtype=np.int64)
    return unopposed(layout, blocks, np.array([way.target for way in ways], dtype=np.int64))


def _at_once(layout: Layout, wants: Sequence[Want]) -> list[Step]:
    """The steps for wants that nothing is in the way of."""
    blocks = np.array([want.block for want in wants], dtype=np.int64)
    sources = layout.place[blocks].tolist()
    layout.move_all(blocks, np.array([want.target for want in wants], dtype=np.int64))
    return [
        Step(want.block, source, want.target, want.reason)
        for want, source in zip(wants, sources, strict=True)
    ]


def _step(layout: Layout, want: Want, target: int, parked: set[int]) -> Step:
    source = int(layout.place[want.block])
    layout.move(want.block, target)
    is_parked, seat = want.block in parked, layout.seat(want.block)
    return Step(want.block, source, target, want.reason, is_parked, seat)


def _park(layout: Layout, pending: Sequence[Want], parked: set[int]) -> Step | None:
    """Break a cycle of blocks that wait for each other: its smallest goes aside for a while."""
    ways = {(int(layout.place[want.block]), want.target): want for want in reversed(pending)}
    cycle = [ways[edge] for edge in swap_cycle(ways)]
    inside = {int(layout.place[want.block]) for want in cycle}
    for want in sorted(cycle, key=lambda w: (layout.memory[w.block], w.block)):
        open_ = accepts(layout, want.block)
        open_[list(inside)] = False
        if want.block in parked or not open_.any():
            continue
        free = np.where(open_, layout.expected_cpu() + layout.expected_memory(), np.inf)
        aside = int(np.argmin(free))
        reason = f"parked on {layout.hosts[aside]}: {want.reason}"
        step = _step(layout, replace(want, reason=reason), aside, parked)
        parked.add(want.block)
        return step
    return None


def dependencies(origin: Layout, steps: Sequence[Step]) -> list[tuple[int, ...]]:
    """For each step the indices of the steps that must be done before it starts."""
    visited = origin.copy()
    touching: dict[int, list[int]] = {}  # host -> steps that enter or leave it
    gathered: dict[int, list[int]] = {}  # group to look after -> steps of its members
    last: dict[int, int] = {}  # block -> its latest step
    after: list[set[int]] = []
    free = _unopposed(origin, steps).tolist()
    are_free = all(free)
    for index, step in enumerate(steps):
        waits = {last[step.block]} if step.block in last else set()
        if not free[index] and _is_opposed(visited, step):
            waits.update(touching.get(step.target, ()))
        for group in _ordered_groups(origin, step.block):
            waits.update(gathered.get(group, ()))
            gathered.setdefault(group, []).append(index)
        after.append(waits)
        if not are_free:
            visited.charge(step.block, step.target, seat=step.seat)
            visited.place[step.block] = step.target
        touching.setdefault(step.source, []).append(index)
        touching.setdefault(step.target, []).append(index)
        last[step.block] = index
    lean = reduced({index: sorted(waits) for index, waits in enumerate(after)})
    return [lean[index] for index in range(len(steps))]


def _is_opposed(layout: Layout, step: Step) -> bool:
    """Whether the target would not take the block, or not on these of its nodes."""
    if refuses(layout, step.block, step.target):
        return True
    nodes = layout.nodes
    return nodes is not None and not nodes.fits(step.block, step.target, step.seat)


def _ordered_groups(layout: Layout, block: int) -> list[int]:
    """Groups whose members move in the plan's order.

    Where a group's domain is wider than a host, visitors of the target are not enough to look at.
    And what is to be together goes where others are: they must have come, and not left again.
    """
    ordered = []
    for index, _ in layout.groups_of.get(block, ()):
        group = layout.groups[index]
        if group.kind == "together" or (group.kind == "apart" and group.scope != "host"):
            ordered.append(index)
    return ordered
