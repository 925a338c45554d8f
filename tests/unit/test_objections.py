"""After hosts objected to a move: another target, then a rest; never the same again at once."""

from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.proof import verify
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.executing.execution import Stage
from balancerd.core.observation import JobReport, Presence
from balancerd.core.outcome import Against, Outcome
from balancerd.core.past.breakers import breakers
from balancerd.core.past.history import History, PastMove, rests_until
from balancerd.core.past.objections import objections
from balancerd.core.past.record import Conclusion, Intent, IntentKind
from balancerd.core.placing.constraints import refuses
from balancerd.core.placing.survey import lay_out
from balancerd.core.planner.worth import _failing
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from tests.executions import Run
from tests.executions import move as a_move
from tests.sites import NOW, planned, policy, site, told
from tests.worlds import a_scenario, a_world

LIMITS = Limits(backoff=100.0, cooldown=100.0, cooldown_max=1000.0)
BARE = "h2 is not set up for encrypted migrations"
WHY = "the CPU of h2 lacks what the VM was given"
CROWDED = "h1 16c 64G: a 8c 16G, b 7c 8G | h2 16c 64G: | h3 16c 64G: c 2c 1G"


def objected(vm: str, target: str, at: float) -> PastMove:
    return PastMove(vm, "h1", target, at, Outcome.OBJECTED, detail=WHY)


def moved(vm: str, at: float, target: str = "h1") -> PastMove:
    return PastMove(vm, "h9", target, at, Outcome.DONE)


def refused(against: Against, vm: str = "a", at: float = NOW) -> PastMove:
    """What a move from h1 to h2 was told that concerns others, too."""
    return PastMove(vm, "h1", "h2", at, Outcome.OBJECTED, detail=BARE, against=against)


def test_the_back_off_doubles_with_each_objection_and_ends_with_a_move() -> None:
    """Dies if it stays the same, has no end, or outlives the VM's next move."""

    def until(*moves: PastMove, now: float = NOW) -> float | None:
        said = objections(History(moves), LIMITS, now).moves.get(("a", "h2"))
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


@pytest.mark.parametrize(
    ("against", "closed"),
    [
        (Against.TARGET, {("h1", "h2"), ("h3", "h2")}),
        (Against.SOURCE, {("h1", "h2"), ("h1", "h3")}),
        (Against.PAIR, {("h1", "h2")}),
        (Against.MOVE, set()),
    ],
)
def test_what_a_host_lacks_for_any_move_closes_it_for_all(
    against: Against, closed: set[tuple[str, str]]
) -> None:
    """Dies if each VM has to be told anew, or ways are closed that nobody spoke of."""
    found = objections(History((refused(against),)), LIMITS, NOW)
    assert {way for way in permutations(("h1", "h2", "h3"), 2) if found.between(*way)} == closed


def test_a_closed_host_is_tried_again_less_and_less_often_until_a_move_gets_there() -> None:
    def until(*moves: PastMove) -> float | None:
        said = objections(History(moves), LIMITS, NOW).between("h3", "h2")
        return said.until if said else None

    said = [refused(Against.TARGET, vm, NOW - 5.0) for vm in "abc"]
    assert until(said[0]) == NOW + 95.0
    assert until(*said) == NOW + 395.0
    assert until(*said, moved("d", NOW - 1.0, "h2")) is None
    assert until(*said, moved("d", NOW - 1.0, "h4")) == NOW + 395.0
    assert until(moved("d", NOW - 9.0, "h2"), *said) == NOW + 395.0


@pytest.mark.parametrize("against", [Against.SOURCE, Against.TARGET, Against.PAIR])
def test_no_vm_rests_for_what_its_hosts_lack(against: Against) -> None:
    """Dies if two such objections open the VM's breaker: it may be able to go elsewhere."""
    history = History(tuple(refused(against, "a", NOW - at) for at in (3.0, 2.0, 1.0)))
    assert breakers(history, LIMITS, NOW) == breakers(History(), LIMITS, NOW)


def test_no_vm_is_planned_to_a_host_that_another_one_was_told_to_be_closed() -> None:
    """Dies if only the VM that was told looks elsewhere."""
    snapshot, rules = site(CROWDED), policy("quiet", limits={"backoff": 300.0})
    history = History((refused(Against.TARGET, "gone", NOW - 60.0),))
    plan = planned(snapshot, rules, history)
    assert plan.moves
    assert all(move.target == "h3" for move in plan.moves)
    layout = lay_out(snapshot, rules, history, NOW)
    for vm in ("a", "b"):
        refusal = refuses(layout, layout.block_of[vm], layout.host_row["h2"])
        assert refusal is not None
        assert (refusal.constraint, BARE in refusal.detail) == ("objection", True)


def test_what_one_move_of_a_plan_was_told_the_others_need_not_hear() -> None:
    """Dies if the rest of the plan is tried, VM by VM, on a host that turned the first away; or if
    it is, until the past is read again."""
    run = Run(a_move(1, "a", "h1", "h2"), a_move(2, "b", "h3", "h2"), a="h1", b="h3")
    run.started()
    assert run.stage(2) is Stage.WAITING, "one at a time goes into a host"
    told = JobReport("a", "h1", "h2", run.view.now, ended=True, error="no")
    run.feed(replace(told, objection=BARE, against=Against.TARGET))
    run.located(1, Presence.RUNNING, Presence.ABSENT)
    assert (run.outcome(), run.stage(2)) == (Outcome.OBJECTED, Stage.DROPPED)
    assert BARE in run.execution.tasks[2].detail


def test_what_another_plan_was_told_holds_for_this_one() -> None:
    """Dies if only what was known when the plan was made counts."""
    run = Run(a_move(1, "a", "h1", "h2"), a="h1")
    run.view = replace(run.view, history=History((refused(Against.TARGET, "b", run.view.now),)))
    run.feed()
    assert run.stage() is Stage.DROPPED
    assert BARE in run.execution.tasks[1].detail


def test_one_objection_to_all_moves_is_told_once(tmp_path: Path) -> None:
    """Dies if what it is against is not on record, or told for each of the VMs."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        for number, vm in enumerate("ab"):
            at = NOW + number
            intent = ledger.intend(Intent(IntentKind.MIGRATE, at, "h1", vm, target="h2"))
            assert intent is not None
            told = Outcome.OBJECTED, BARE
            ledger.conclude(Conclusion(intent, at, *told, against=Against.TARGET))
        assert [move.against for move in ledger.history(NOW + 2).moves] == [Against.TARGET] * 2
        assert Reader(ledger.database).status(NOW + 2).objections == (f"all to h2: {BARE}",)
        assert not verify(ledger.database).fault
    with Ledger(tmp_path / "ledger.db") as again:
        assert [move.against for move in again.history(NOW + 2).moves] == [Against.TARGET] * 2


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
