"""From what a search found to steps that the rules accept, and that are still worth it."""

from collections.abc import Callable, Sequence

from balancerd.core.ordering.order import Step, Want, schedule
from balancerd.core.placing.layout import Layout
from balancerd.core.planner.draft import Draft


def adopt(
    draft: Draft,
    wants: Sequence[Want],
    cost: Callable[[Layout], float],
    begun: Sequence[Step] | None = None,
) -> None:
    """Take the steps for the wants as far as rules and the plan's length allow.

    `begun` are the steps before them, where not those of the draft as they are.

    Nothing is taken if the layout that comes of it costs no less than the draft's: what was worth
    it as a whole need not be in part.
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
    if steps and cost(layout) < cost(draft.layout):
        draft.layout = layout
        draft.steps = [*begun, *steps]
