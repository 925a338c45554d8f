"""Relief that leads elsewhere than it first did: packing knows better which hosts stay on.

What leaves an overloaded host, and when, stays as it was decided. Only where to is open: to hosts
that take a VM as soon as it is to leave.
"""

from dataclasses import replace

from balancerd.core.ordering.order import Step
from balancerd.core.placing.constraints import refuses
from balancerd.core.placing.layout import Ints
from balancerd.core.planner.draft import Draft


def redirectable(draft: Draft) -> list[int]:
    """Blocks that relief moves, but not those for which it wakes a host."""
    return [
        step.block
        for step in draft.steps[draft.mended : draft.urgent]
        if step.target not in draft.wakes
    ]


def redirected(draft: Draft, place: Ints) -> list[Step]:
    """The draft's steps, relief with the targets that `place` names, as far as rules allow.

    All as they were if a target that stays is taken by then.
    """
    steps = draft.steps[: draft.mended]
    layout = draft.layout_after(steps)
    for step in draft.steps[draft.mended : draft.urgent]:
        targets = int(place[step.block]), step.target
        open_ = [target for target in targets if refuses(layout, step.block, target) is None]
        if not open_:
            return draft.steps
        layout.move(step.block, open_[0], step.seat if open_[0] == step.target else None)
        steps.append(replace(step, target=open_[0], seat=layout.seat(step.block)))
    return steps
