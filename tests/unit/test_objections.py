"""After hosts objected to a move: another target, then a rest; never the same again at once."""

from itertools import pairwise
from pathlib import Path

import pytest

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.past.breakers import breakers
from balancerd.core.past.history import History, Outcome, PastMove, rests_until
from balancerd.core.past.objections import objections
from balancerd.core.placing.constraints import refuses
from balancerd.core.placing.survey import lay_out
from balancerd.core.planner.worth import _failing
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from tests.sites import NOW, planned, policy, site, told
from tests.worlds import a_scenario, a_world

LIMITS = Limits(backoff=100.0, cooldown=100.0, cooldown_max=1000.0)
WHY = "the CPU of h2 lacks what the VM was given"
CROWDED = "h1 16c 64G: a 8c 16G, b 7c 8G | h2 16c 64G: | h3 16c 64G: c 2c 1G"


def objected(vm: str, target: str, at: float) -> PastMove:
    return PastMove(vm, "h1", target, at, Outcome.OBJECTED, detail=WHY)


def moved(vm: str, at: float) -> PastMove:
    return PastMove(vm, "h9", "h1", at, Outcome.DONE)


def test_the_back_off_doubles_with_each_objection_and_ends_with_a_move() -> None:
    """Dies if it stays the same, has no end, or outlives the VM's next move."""

    def until(*moves: PastMove, now: float = NOW) -> float | None:
        said = objections(History(moves), LIMITS, now).get(("a", "h2"))
        return said.until if said else None

    assert until(objected("a", "h2", NOW)) == NOW + 100.0
    assert until(objected("a", "h2", NOW), now=NOW + 100.0) is None
    assert until(*(objected("a", "h2", NOW) for _ in range(3))) == NOW + 400.0
    assert until(*(objected("a", "h2", NOW) for _ in range(2000))) == NOW + 1000.0
    assert until(objected("a", "h3", NOW), objected("b", "h2", NOW)) is None
    assert until(objected("a", "h2", NOW - 5.0), moved("a", NOW - 1.0)) is None
    assert until(moved("a", NOW - 9.0), objected("a", "h2", NOW - 5.0)) == NOW + 95.0


def test_the_planner_looks_elsewhere_after_an_objection_and_says_why() -> None:
    """Dies if the move is planned again."""
    snapshot, rules = site(CROWDED), policy("quiet", limits={"backoff": 300.0})
    first = planned(snapshot, rules)
    (move,) = first.moves
    assert move.target == "h2"
    history = History((objected(move.vm, "h2", NOW - 60.0),))
    again = planned(snapshot, rules, history)
    assert f"{move.vm} h1>h2" not in told(again)
    assert again.moves, "another VM or another host relieves h1"
    layout = lay_out(snapshot, rules, history, NOW)
    refusal = refuses(layout, layout.block_of[move.vm], layout.host_row["h2"])
    assert refusal is not None
    assert (refusal.constraint, WHY in refusal.detail) == ("objection", True)


def test_two_objections_let_the_vm_rest_and_no_host_or_pair() -> None:
    """Dies if what is said of one VM closes a way to others, or the VM goes through all hosts."""
    history = History((objected("a", "h2", NOW - 60.0), objected("a", "h3", NOW)))
    found = breakers(history, LIMITS, NOW)
    assert set(found.vms) == {"a"}
    assert not found.pairs
    assert not found.hosts
    many = History(tuple(objected(f"v{n}", "h2", NOW) for n in range(50)))
    found = breakers(many, LIMITS, NOW)
    assert not (found.vms or found.pairs or found.hosts or found.site.failures)


def test_an_objection_is_neither_a_disturbance_nor_a_failed_migration() -> None:
    said = objected("a", "h2", NOW)
    assert rests_until([said], LIMITS) == 0.0
    assert _failing(History((said,) * 10)) == _failing(History())


@pytest.fixture
def unlocked() -> World:
    """A host with more VMs than it can serve, whose disks nothing locks."""
    return a_world(a_scenario(migration={"disk_locks": False}), demand=[[2.0, 2.0]])


def test_no_life_asks_the_same_again_in_the_next_cycle(unlocked: World, tmp_path: Path) -> None:
    """The real loop and ledger. Dies if objections are not on record, or not read from there."""
    rules = Policy.model_validate(
        {
            "summary": "test",
            "name": "test",
            "mode": "act",
            "objective": "quiet",
            "detection": {"window": 60.0, "warm_up": 30.0, "trusted_after": 0.0},
            "capacity": {"memory_reserve_share": 0.0},
            "limits": {"bandwidth": 10, "backoff": 300.0},
            "methods": {"unlocked": "refuse"},
        }
    )
    with Ledger(tmp_path / "ledger.db") as ledger, SamplesStore(tmp_path / "s.db") as samples:
        loop = Loop(
            unlocked, unlocked, ledger, samples, unlocked, lambda: rules, unlocked.site.links
        )
        loop.start()
        for _ in range(15):
            loop.cycle()
            unlocked.advance(unlocked.now() + 60.0)
            loop.step()
        moves = ledger.history(unlocked.now()).moves
        status = Reader(ledger.database).status(unlocked.now())
        assert unlocked.running("v0") == unlocked.running("v1") == ("a1",)
    assert {move.outcome for move in moves} == {Outcome.OBJECTED}
    assert len({(move.vm, move.target) for move in moves}) >= 2, "it looked elsewhere"
    for way in {(move.vm, move.target) for move in moves}:
        times = [move.at for move in moves if (move.vm, move.target) == way]
        rests = [b - a for a, b in pairwise(times)]
        assert all(rest >= 300.0 for rest in rests)
    assert any("lock its disks" in said for said in status.objections)
