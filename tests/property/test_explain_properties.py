"""What `why-not` asks for is enough, and none of it is too much."""

from itertools import product
from random import Random

from hypothesis import assume, event, given
from hypothesis import strategies as st

from balancerd.core.explain.why_not import make_room
from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import all_refusals
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.policies.policy import Policy
from tests.property.drawn import histories, policies, policy, snapshot, snapshots
from tests.sites import NOW


def without(layout: Layout, host: int, leaving: list[int]) -> Layout:
    trial = layout.copy()
    for block in leaving:
        trial.charge(block, host, -1)
    return trial


def names(layout: Layout, block: int, host: int) -> set[str]:
    return {refusal.constraint for refusal in all_refusals(layout, block, host)}


def test_a_lighter_vm_in_anothers_place_makes_no_third_one_superfluous() -> None:
    """Dies when those to leave are gone over once only: light in memory may be heavy in CPU."""
    layout = lay_out(snapshot(Random(1157883)), policy(Random(0)), History(), NOW)
    for block, host in product(range(len(layout.blocks)), range(len(layout.hosts))):
        leaving, _ = make_room(layout, block, host)
        enough = names(without(layout, host, leaving), block, host)
        for spared in leaving:
            fewer = [b for b in leaving if b != spared]
            assert names(without(layout, host, fewer), block, host) != enough


@given(snapshots(), policies(), histories(), st.data())
def test_the_vms_to_move_away_are_enough_and_each_is_needed(
    snapshot: Snapshot, policy: Policy, history: History, data: st.DataObject
) -> None:
    """Dies when one VM too few is named (the loop stops early) or one too many (none is spared)."""
    layout = lay_out(snapshot, policy, history, NOW)
    assume(len(layout.blocks) > 0)
    block = data.draw(st.integers(0, len(layout.blocks) - 1))
    host = data.draw(st.integers(0, len(layout.hosts) - 1))
    leaving, standing = make_room(layout, block, host)
    assert not set(leaving) & set(layout.fixed)
    assert {refusal.constraint for refusal in standing} == names(
        without(layout, host, leaving), block, host
    )
    everyone = [b for b in layout.blocks_on(host) if b not in layout.fixed]
    assert names(without(layout, host, leaving), block, host) == names(
        without(layout, host, everyone), block, host
    )
    for spared in leaving:
        fewer = [b for b in leaving if b != spared]
        assert names(without(layout, host, fewer), block, host) != names(
            without(layout, host, leaving), block, host
        )
    event(f"{len(leaving)} leave")
