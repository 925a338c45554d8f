"""What a search says that a change would cost, against what it does cost; and what it overlooks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.assess import assess_layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.planner.changes import Change, exchange, relocation, take
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.ease import easing
from balancerd.core.planner.search import Search
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Costs
from tests.property.drawn import histories, policies, snapshots
from tests.sites import NOW


def moved_off(search: Search, host: int) -> Change | None:
    """The best move of one of a host's blocks."""
    return relocation(search, search.on(host))


@settings(max_examples=150, deadline=None)
@given(snapshots(), policies(), histories())
def test_the_cost_falls_by_what_a_change_is_said_to_gain(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    """With moves, crowding and soft rules in it. Dies if soft rules are left out of relocations,
    or of one way of an exchange."""
    soft = tuple(
        rule.model_copy(update={"weight": 1.0 + index})
        for index, rule in enumerate(policy.constraint)
        if rule.kind in ("together", "apart", "avoid")
    )
    costs = Costs(crowding=5.0, crowded=0.3)
    policy = policy.model_copy(update={"costs": costs, "constraint": soft})
    layout = lay_out(snapshot, policy, history, NOW)
    search = easing(Draft(layout, assess_layout(layout, NOW), history, NOW, layout.copy()))
    for host in range(len(layout.hosts)):
        for look in (exchange, moved_off):
            before = search.cost()
            found = look(search, host)
            if found:
                take(search, found)
                assert before - search.cost() == pytest.approx(found.gain, abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(snapshots(), policies(), histories(), st.floats(0.05, 1.0), st.floats(0.1, 1000.0))
def test_no_exchange_that_gains_is_left_out_for_what_its_cheap_part_shows(
    snapshot: Snapshot, policy: Policy, history: History, tight: float, price: float
) -> None:
    """Dies if less is thought to be saved by what leaves a host than it can save. With soft rules
    every exchange is weighed to the end, so it is done once as if there were any."""
    hard = tuple(rule for rule in policy.constraint if rule.weight is None)
    costs = Costs(crowding=5.0, crowded=0.3)
    policy = policy.model_copy(update={"costs": costs, "constraint": hard})
    layout = lay_out(snapshot, policy, history, NOW)
    search = easing(Draft(layout, assess_layout(layout, NOW), history, NOW, layout.copy()))
    search.cpu_limit = tight * search.cpu_limit
    search.reprice(price)
    for host in range(len(layout.hosts)):
        search.swayed = False
        found = exchange(search, host)
        search.swayed = True
        assert exchange(search, host) == found
