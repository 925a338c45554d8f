"""What is said to be opposed by nothing, against what the rules say in its turn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import refuses, unopposed
from balancerd.core.placing.survey import lay_out
from balancerd.core.policies.policy import Policy
from tests.property.drawn import histories, policies, snapshots
from tests.sites import NOW


@settings(max_examples=200, deadline=None)
@given(snapshots(), policies(), histories(), st.booleans(), st.data())
def test_what_nothing_opposes_is_refused_by_no_rule_in_its_turn(
    snapshot: Snapshot, policy: Policy, history: History, leave: bool, data: st.DataObject
) -> None:
    """In any order, whether the others leave their hosts or not. Dies if arrivals are not added up,
    or a rule that looks at where others are is not left to be asked."""
    layout = lay_out(snapshot, policy, history, NOW)
    if not layout.blocks or not layout.hosts:
        return
    blocks = st.integers(0, len(layout.blocks) - 1)
    hosts = st.integers(0, len(layout.hosts) - 1)
    ways = data.draw(st.lists(st.tuples(blocks, hosts), min_size=1, max_size=12))
    free = unopposed(layout, np.array([b for b, _ in ways]), np.array([h for _, h in ways]))
    for index in data.draw(st.permutations(range(len(ways)))):
        block, target = ways[index]
        refusal = refuses(layout, block, target)
        assert not (free[index] and refusal), refusal
        if refusal is None and leave:
            layout.move(block, target)
        elif refusal is None:
            layout.charge(block, target)
            layout.place[block] = target


@settings(max_examples=200, deadline=None)
@given(snapshots(), policies(), st.data())
def test_blocks_that_move_at_once_are_where_one_after_the_other_would_be(
    snapshot: Snapshot, policy: Policy, data: st.DataObject
) -> None:
    """Dies if what a host gives is not taken off it, or groups and NUMA nodes are passed over."""
    layout = lay_out(snapshot, policy, History(), NOW)
    if not layout.blocks or not layout.hosts:
        return
    blocks = data.draw(st.lists(st.integers(0, len(layout.blocks) - 1), unique=True, max_size=12))
    hosts = st.integers(0, len(layout.hosts) - 1)
    targets = data.draw(st.lists(hosts, min_size=len(blocks), max_size=len(blocks)))
    singly = layout.copy()
    for block, target in zip(blocks, targets, strict=True):
        singly.move(block, target)
    layout.move_all(np.array(blocks, dtype=np.int64), np.array(targets, dtype=np.int64))
    assert layout.place.tolist() == singly.place.tolist()
    assert (layout.present, layout.moved) == (singly.present, singly.moved)
    for (used, _), (expected, _) in zip(layout.demands(), singly.demands(), strict=True):
        assert used.tolist() == pytest.approx(expected.tolist())
