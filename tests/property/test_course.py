"""The scores along a plan's moves, found from the hosts that they touch, against whole layouts'."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.core.model import Snapshot
from balancerd.core.ordering.order import Step
from balancerd.core.past.history import History
from balancerd.core.placing.course import scores_along
from balancerd.core.placing.objective import score
from balancerd.core.placing.survey import lay_out
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Costs
from tests.property.drawn import policies, snapshots
from tests.sites import NOW


@settings(max_examples=150, deadline=None)
@given(snapshots(), policies(), st.sampled_from(Objective), st.data())
def test_the_scores_along_moves_are_those_of_the_layouts_they_lead_to(
    snapshot: Snapshot, policy: Policy, objective: Objective, data: st.DataObject
) -> None:
    """Of every objective, with rules broken and mended, and blocks that move twice. Dies if what a
    host carried before is not taken off, or the order of moves is not found again."""
    update = {"objective": objective, "costs": Costs(crowding=5.0, crowded=0.3)}
    layout = lay_out(snapshot, policy.model_copy(update=update), History(), NOW)
    if not layout.blocks or len(layout.hosts) < 2 or layout.nodes:
        return
    hosts = st.integers(0, len(layout.hosts) - 1)
    wanted = data.draw(st.lists(st.tuples(st.integers(0, len(layout.blocks) - 1), hosts)))
    awake = np.array(data.draw(st.lists(st.booleans(), min_size=len(layout.hosts))))
    awake = awake[: len(layout.hosts)]
    start, steps, expected = layout.copy(), list[Step](), list[float]()
    for block, target in wanted:
        steps.append(Step(block, int(layout.place[block]), target, ""))
        layout.move(block, target)
        expected.append(score(layout, awake))
    assert scores_along(start, awake, steps) == pytest.approx(expected, rel=1e-6, abs=1e-6)
