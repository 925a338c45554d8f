"""From what a search found to steps that the rules accept, and that are still worth it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balancerd.core.ordering.order import Step, Want, schedule
from balancerd.core.placing.layout import Layout
from balancerd.core.planner.draft import Draft


@dataclass(frozen=True, slots=True)
class Way:
    """All steps of a plan, the layout that comes of them, and by how much that costs less."""

    steps: list[Step]
    layout: Layout
    gain: float
    refused: frozenset[int]  # blocks that were to move and found no way


def way_to(
    draft: Draft,
    wants: Sequence[Want],
    cost: Callable[[Layout], float],
    begun: Sequence[Step] | None = None,
) -> Way:
    """The steps for the wants as far as rules and the plan's length allow.

    `begun` are the steps before them, where not those of the draft as they are. Without a step for
    a want there is no gain.
    """
    begun = draft.steps if begun is None else begun
    layout, room = draft.layout_after(begun), draft.room()
    chosen = []
    for want in wants:
        size = len(layout.blocks[want.block])
        if size <= room:
            chosen.append(want)
            room -= size
    steps, refused = schedule(layout, chosen)
    for refusal in refused:
        draft.note(refusal)
    blocks = frozenset(layout.block_of[refusal.vm] for refusal in refused)
    gain = cost(draft.layout) - cost(layout) if steps else 0.0
    return Way([*begun, *steps], layout, gain, blocks)


def adopt(draft: Draft, found: Way) -> bool:
    """Take a way if it gains (what was worth it as a whole need not be in part); whether it did."""
    if found.gain <= 0:
        return False
    draft.layout, draft.steps = found.layout, found.steps
    return True
