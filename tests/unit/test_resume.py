"""A plan of which a part was done is gone on with, unless it is not what would be planned now."""

from dataclasses import replace

import pytest

from balancerd.core.model import Forecast, Load, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.plan import Plan
from balancerd.core.policies.policy import Policy
from tests.sites import NOW, done, planned, policy, site, told

PACKING = policy("pack", power={"reserve": 0})
SPREADING = policy("spread", thresholds={"imbalance": 0.1}, limits={"gain": 0.0, "benefit": 0.0})
# On both another plan would be as good, or nearly, once the first move is done.
PACKED = site(
    "h1 16c 64G: a 1c 2G, b 3c 4G | h2 16c 64G: c 2c 4G, d 1c 2G, e 3c 4G | h3 8c 64G: f 2c 2G, "
    "g 3c 2G"
)
SPREAD = site(
    "h1 8c 64G: a 4c 2G | h2 16c 64G: b 2c 8G, c 2c 8G, d 1c 2G | h3 16c 64G: e 1c 2G, f 2c 8G"
)


# On this one others could be moved as well, once all that was planned is done.
EVENED = site("h1 8c 32G: a 1c 12G, b 4c 2G | h2 16c 64G: c 1c 12G, d 1c 12G | h3 16c 32G:")


def past(made: Plan, count: int, ago: float = 0.0) -> History:
    """The first `count` moves of a plan, done a while ago."""
    moves = made.moves[:count]
    return History(
        moves=tuple(PastMove(m.vm, m.source, m.target, NOW - ago, Outcome.DONE) for m in moves)
    )


def ways(made: Plan, begin: int = 0) -> list[str]:
    """The moves of a plan from the `begin`th on, in order of the VMs' names."""
    return sorted(f"{m.vm} {m.source}>{m.target}" for m in made.moves[begin:])


@pytest.mark.parametrize(("found", "rules"), [(PACKED, PACKING), (SPREAD, SPREADING)])
def test_the_rest_of_a_plan_follows_whatever_part_of_it_was_done(
    found: Snapshot, rules: Policy
) -> None:
    made = planned(found, rules)
    assert len(made.moves) > 1
    for count in range(1, len(made.moves)):
        left = done(found, *made.moves[:count])
        assert ways(planned(left, rules, past(made, count))) == ways(made, count)


def test_a_plan_that_is_done_is_not_followed_by_another() -> None:
    made = planned(EVENED, SPREADING)
    left, late = done(EVENED, *made.moves), SPREADING.limits.plan_life + 1
    assert len(made.moves) == 2
    again = planned(left, SPREADING, past(made, 2))
    assert not again.moves
    assert again.reason == "nothing to do: 2 moves would be another plan than the one just done"
    assert planned(left, SPREADING, past(made, 2, late)).moves


def test_a_plan_that_could_not_be_longer_is_followed_by_more() -> None:
    limits = SPREADING.limits.model_copy(update={"per_plan": 1})
    short = SPREADING.model_copy(update={"limits": limits})
    found = site("h1 16c 64G: a 2c 2G, b 2c 2G, c 2c 2G, d 2c 2G | h2 16c 64G: | h3 16c 64G:")
    made = planned(found, short)
    assert len(made.moves) == 1
    assert planned(done(found, *made.moves), short, past(made, 1)).moves


def test_a_plan_that_only_relieved_a_host_is_followed_by_more() -> None:
    """A host that is too full takes nothing and is not emptied: that can be planned only later."""
    found = site("h1 8c 64G: a 4c 4G, b 3c 2G | h2 8c 32G: | h3 16c 32G:")
    made = planned(found, PACKING)
    assert ways(made) == ["b h1>h3"]
    assert ways(planned(done(found, *made.moves), PACKING, past(made, 1))) == ["a h1>h3"]


def test_a_vm_whose_migration_failed_rests_while_the_plan_goes_on() -> None:
    """Dies if the past is forgotten with the moves that are taken back."""
    made = planned(SPREAD, SPREADING)
    first, second = made.moves[:2]
    failed = PastMove(second.vm, second.source, second.target, NOW, Outcome.FAILED)
    moved = History(moves=(*past(made, 1).moves, failed))
    again = planned(done(SPREAD, first), SPREADING, moved)
    assert again.moves
    assert second.vm not in {move.vm for move in again.moves}
    assert set(ways(again)) <= set(ways(made, 2))


def test_what_was_moved_longer_ago_than_a_plan_lives_is_no_part_of_one() -> None:
    made = planned(PACKED, PACKING)
    assert told(made)[0] == "f h3>h1" and ways(made, 1) == ["g h3>h2"]
    left = done(PACKED, made.moves[0])
    late = past(made, 1, PACKING.limits.plan_life + 1)
    assert ways(planned(left, PACKING, late)) == ["g h3>h1"]


@pytest.mark.parametrize(("vm", "source", "target"), [("d", "h1", "h2"), ("a", "h3", "h1")])
def test_a_plan_of_which_something_else_was_moved_is_not_gone_on_with(
    vm: str, source: str, target: str
) -> None:
    made = planned(PACKED, PACKING)
    left = done(PACKED, made.moves[0])
    strange = PastMove(vm, source, target, NOW, Outcome.DONE)
    moved = History(moves=(*past(made, 1).moves, strange))
    assert ways(planned(left, PACKING, moved)) == ["g h3>h1"]


def test_a_plan_is_not_gone_on_with_where_loads_ask_for_another() -> None:
    made = planned(PACKED, PACKING)
    left = done(PACKED, made.moves[0])
    busy = Load(6.0, 6.0, left.loads["e"].memory)
    busier = replace(
        left,
        loads={**left.loads, "e": busy},
        forecasts={**left.forecasts, "e": Forecast(6.0, 0.0)},
        host_loads={**left.host_loads, "h2": Load(9.0, 9.0, 0)},
    )
    assert ways(planned(busier, PACKING, past(made, 1))) == ["g h3>h1"]
