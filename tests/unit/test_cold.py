"""VMs that are shut off follow a drain as cold moves: what is planned, started, and believed."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.check import check
from balancerd.core.executing.cold import (
    ANSWERED,
    PATIENCE,
    STAYED,
    TABLE,
    judge_cold,
    may_carry,
)
from balancerd.core.executing.execution import Stage
from balancerd.core.executing.messages import Ask, Intended, Located, Settle, StartMigration
from balancerd.core.executing.migration import SILENCE
from balancerd.core.executing.reconcile import Act
from balancerd.core.explain import Decision, why
from balancerd.core.model import (
    Disk,
    Exclusion,
    ExclusionKind,
    Gap,
    GapKind,
    Method,
    PowerState,
    Snapshot,
    VMState,
)
from balancerd.core.observation import JobReport, Location, Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.plan import Plan, Sleep
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from tests.executions import Run, move, of
from tests.sites import NOW, changed, planned, policy, rule, site, told
from tests.worlds import START, a_world, live

P = Presence
STILL = "h1 16c 64G: a 2c 8G, off 0c 8G | h2 16c 64G: | h3 16c 64G: c 2c 8G"
OFF_STATES = (P.SHUTOFF, P.FAILED)


def drained(text: str = STILL, **fields: Any) -> Snapshot:
    """A draining host h1 with a VM that is shut off, as a snapshot has it."""
    snapshot = changed(site(text), vm="off", state=VMState.SHUTOFF, **fields)
    told = Exclusion("off", ExclusionKind.NOT_RUNNING, "it is shutoff")
    return replace(snapshot, draining=frozenset({"h1"}), exclusions=(told,))


# What is planned


@pytest.mark.parametrize("objective", ["spread", "pack", "quiet", "defragment", "drain"])
def test_a_vm_that_is_shut_off_follows_a_drain_under_every_objective(objective: str) -> None:
    made = planned(drained(), policy(objective))
    found = {move.vm: move.method for move in made.moves}
    assert found["off"] is Method.COLD
    assert found["a"] is Method.PRE_COPY
    assert [move.number for move in made.moves] == list(range(1, len(made.moves) + 1))
    assert not any(isinstance(action, Sleep) for action in made.actions)


def test_it_stays_where_nothing_drains_or_the_policy_keeps_it() -> None:
    """Dies if cold moves are planned for anything but a drain."""
    calm = replace(drained(), draining=frozenset())
    assert "off" not in {move.vm for move in planned(calm, policy("spread")).moves}
    kept = planned(drained(), policy("quiet", methods={"cold": False}))
    assert told(kept) == ["a h1>h2"]
    assert any(r.vm == "off" and r.remedy == "set methods.cold" for r in kept.refusals)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"disks": (Disk("/var/a.img", shared=False, size=1),)}, "/var/a.img"),
        ({"persistent": False}, "no definition"),
        ({"owner": "nova"}, "nova"),
        ({"host_devices": ("gpu",)}, "gpu"),
        ({"left_behind": ("its saved memory",)}, "it would leave behind its saved memory"),
    ],
)
def test_what_cannot_be_carried_whole_stays(fields: dict[str, Any], words: str) -> None:
    """Dies if a tie of running VMs, or a disk that only its host has, is passed over."""
    made = planned(drained(**fields), policy("quiet"))
    assert told(made) == ["a h1>h2"]
    assert any(words in refusal.detail for refusal in made.refusals if refusal.vm == "off")


def test_one_that_two_hosts_define_is_left_to_a_person() -> None:
    twice = Exclusion("off", ExclusionKind.DEFINED_TWICE, "several hosts have its definition")
    made = planned(replace(drained(), exclusions=(twice,)), policy("quiet"))
    assert told(made) == ["a h1>h2"]


def test_it_goes_where_rules_storage_and_memory_would_let_it_start() -> None:
    """Dies if pins, needs or the size of a host are not asked."""
    pinned = planned(drained(), policy("quiet", rule("pin", "off", "h1 h3")))
    assert "off h1>h3" in told(pinned)
    avoiding = planned(drained(), policy("quiet", rule("avoid", "off", "h2")))
    assert "off h1>h3" in told(avoiding)
    excluded = planned(drained(), policy("quiet", rule("exclude", "off")))
    assert told(excluded) == ["a h1>h2"]
    disk = Disk("/srv/off.img", shared=True, storage=("/srv",))
    stored = drained(disks=(disk,))
    stored = changed(changed(stored, host="h1", storage=("/srv",)), host="h3", storage=("/srv",))
    assert "off h1>h3" in told(planned(stored, policy("quiet")))
    huge = planned(drained(memory=100 * 2**30), policy("quiet"))
    assert told(huge) == ["a h1>h2"]


def test_neither_a_host_that_is_off_nor_one_that_will_be_is_its_target() -> None:
    asleep = changed(changed(drained(), host="h2", power=PowerState.OFF), host="h3")
    assert "off h1>h3" in told(planned(asleep, policy("quiet")))


def test_after_a_failure_and_an_objection_it_goes_elsewhere() -> None:
    for outcome in (Outcome.OBJECTED, Outcome.FAILED):
        past = History((PastMove("off", "h1", "h2", NOW - 10.0, outcome),))
        made = planned(drained(), policy("quiet"), past)
        assert "off h1>h3" in told(made)


def test_why_tells_of_a_vm_that_is_shut_off() -> None:
    snapshot, rules = drained(), policy("quiet")
    made = planned(snapshot, rules)
    answer = why(Decision(snapshot, rules, History(), made), "off")
    assert "h1 > h2" in answer.sentence
    assert "draining" in answer.sentence


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: changed(s, vm="off", state=VMState.RUNNING), "not shut off"),
        (lambda s: replace(s, draining=frozenset()), "nothing asks"),
        (lambda s: changed(s, vm="off", disks=(Disk("/a", shared=False),)), "only h1 has"),
        (
            lambda s: replace(s, exclusions=(Exclusion("off", ExclusionKind.DEFINED_TWICE, ""),)),
            "may not be moved",
        ),
        (lambda s: changed(s, host="h2", power=PowerState.OFF), "h2 is off"),
    ],
)
def test_the_checker_takes_no_cold_move_that_does_not_hold(
    spoil: Callable[[Snapshot], Snapshot], words: str
) -> None:
    made: Plan = planned(drained(), policy("quiet"))
    alone = replace(next(move for move in made.moves if move.vm == "off"), number=1)
    single = replace(made, actions=(alone,))
    assert check(drained(), policy("quiet"), single).violations == ()
    found = check(spoil(drained()), policy("quiet"), single).violations
    assert any(words in fault for fault in found)
    off = policy("quiet", methods={"cold": False})
    assert check(drained(), off, single).violations


# What is believed


def test_it_is_done_only_where_the_target_alone_has_the_definition() -> None:
    """Dies if any other pair is called done: on both, on neither, or with a host silent."""
    for pair in product(P, P):
        found = judge_cold(*pair, waited=1e9)
        alone = pair[0] is P.ABSENT and pair[1] in (*OFF_STATES, P.CRASHED, P.MIGRATED)
        started = pair[0] is P.ABSENT and pair[1] in (P.RUNNING, P.PAUSED)
        assert (found.outcome is Outcome.DONE) == (alone or started)
    assert judge_cold(P.ABSENT, P.SHUTOFF, 0.0).acts == (Act.CARRY_AUTOSTART,)


def test_nothing_of_a_cold_move_is_ever_removed_or_started() -> None:
    assert {act for finding in TABLE.values() for act in finding.acts} == {Act.CARRY_AUTOSTART}


def test_what_may_be_on_its_way_is_waited_for() -> None:
    """A healthy move passes through "on both"; a call that hangs looks like "still there"."""
    pairs = ((P.SHUTOFF, P.SHUTOFF), (P.SHUTOFF, P.ABSENT), (P.ABSENT, P.ABSENT))
    ends = (Outcome.QUARANTINED, Outcome.FAILED, Outcome.LOST)
    for pair, end in zip(pairs, ends, strict=True):
        assert judge_cold(*pair, waited=PATIENCE - 1.0).outcome is None
        assert judge_cold(*pair, waited=PATIENCE).outcome is end
    assert judge_cold(P.SHUTOFF, P.UNREACHABLE, waited=1e9).outcome is None
    assert judge_cold(P.RUNNING, P.RUNNING, waited=0.0).outcome is Outcome.QUARANTINED


def test_a_call_that_its_source_has_answered_is_waited_for_no_longer_than_need_be() -> None:
    """Dies if anything but "still there" is believed sooner: it may have been carried half-way."""
    for pair in product(P, P):
        sooner = judge_cold(*pair, waited=ANSWERED, answered=True)
        stayed = pair[1] is P.ABSENT and TABLE.get(pair) is STAYED
        assert sooner == (STAYED if stayed else judge_cold(*pair, waited=ANSWERED))
    assert judge_cold(P.SHUTOFF, P.ABSENT, ANSWERED - 1.0, answered=True).outcome is None


@pytest.mark.parametrize(
    ("answered", "outcome"), [(True, Outcome.FAILED), (False, None), (None, None)]
)
def test_a_cold_move_that_never_began_is_soon_given_up_if_the_source_says_so(
    answered: bool | None, outcome: Outcome | None
) -> None:
    """Dies if the end of a call is enough, though its source was lost; or a call without an end."""
    run = begun()
    if answered is not None:
        end = JobReport("a", "h1", "h2", run.view.now, ended=True, answered=answered, error="no")
        run.feed(end)
    run.feed(at=run.view.now + SILENCE + 1.0)
    run.located(1, P.SHUTOFF, P.ABSENT)
    run.feed(at=run.view.now + ANSWERED)
    run.located(1, P.SHUTOFF, P.ABSENT)
    assert run.outcome() is outcome


def test_what_was_seen_before_the_answer_says_nothing_of_what_came_after() -> None:
    run = begun()
    run.feed(at=run.view.now + SILENCE + 1.0)
    run.located(1, P.SHUTOFF, P.ABSENT)
    late = run.view.now + ANSWERED
    run.feed(JobReport("a", "h1", "h2", late, ended=True, answered=True, error="no"), at=late)
    run.located(1, P.SHUTOFF, P.ABSENT)
    assert run.outcome() is None


def test_only_a_vm_that_is_off_goes_and_only_where_there_is_nothing_of_it() -> None:
    allowed = {pair for pair in product(P, P) if not may_carry(*pair, {"h3": P.ABSENT})}
    assert allowed == set(product(OFF_STATES, [P.ABSENT]))


def test_what_may_be_left_over_from_a_vm_that_runs_elsewhere_stays() -> None:
    """Dies if only source and target are asked: a definition is no sign of where the VM is."""
    run = cold_run()
    (ask,) = run.feed()
    assert isinstance(ask, Ask)
    assert ask.hosts == ("h1", "h2", "h3", "h4")
    where = {"h1": P.SHUTOFF, "h2": P.ABSENT, "h3": P.RUNNING, "h4": P.ABSENT}
    run.feed(Located(1, Location("a", run.view.now, where)))
    assert run.stage() is Stage.DROPPED
    for said in set(P) - {P.ABSENT}:
        assert may_carry(P.SHUTOFF, P.ABSENT, {"h3": said})


def test_nothing_is_planned_while_a_host_is_not_known() -> None:
    gap = Gap("host", "h3", GapKind.UNREACHABLE, "no answer", NOW)
    rules = policy("quiet", detection={"unknown_hosts": 0.5})
    made = planned(replace(drained(), gaps=(gap,)), rules)
    assert told(made) == ["a h1>h2"]


def cold_run() -> Run:
    run = Run(replace(move(1, "a", "h1", "h2"), method=Method.COLD), a="h1")
    seen = changed(run.view.snapshot, vm="a", state=VMState.SHUTOFF, autostart=True)
    run.view = replace(run.view, snapshot=replace(seen, draining=frozenset({"h1"})))
    return run


def begun() -> Run:
    run = cold_run()
    (ask,) = run.feed()
    assert isinstance(ask, Ask)
    assert ask.lasting, "a host that is off still has its definitions"
    run.located(1, P.SHUTOFF, P.ABSENT)
    (start,) = run.feed(Intended(1, 7))
    assert isinstance(start, StartMigration)
    assert start.method is Method.COLD
    return run


def test_a_cold_move_is_done_with_its_autostart() -> None:
    run = begun()
    (ask,) = run.ended()
    assert isinstance(ask, Ask)
    assert ask.lasting
    (settle,) = run.located(1, P.ABSENT, P.SHUTOFF)
    assert isinstance(settle, Settle)
    assert settle.act is Act.CARRY_AUTOSTART


@pytest.mark.parametrize("source", [p for p in Presence if p not in OFF_STATES])
def test_a_vm_that_is_not_off_by_now_is_not_moved_cold(source: Presence) -> None:
    run = cold_run()
    run.feed()
    run.located(1, source, P.ABSENT)
    assert run.stage() is Stage.DROPPED
    assert not of(StartMigration, run.commands)


def test_a_drain_that_ended_before_the_start_drops_the_move() -> None:
    run = cold_run()
    run.view = replace(run.view, snapshot=replace(run.view.snapshot, draining=frozenset()))
    run.feed()
    assert run.stage() is Stage.DROPPED


def test_a_definition_left_on_both_hosts_is_for_a_person() -> None:
    run = begun()
    run.ended(error="end of file while reading data", code=38)
    run.located(1, P.SHUTOFF, P.SHUTOFF)
    assert run.stage() is Stage.VERIFYING
    run.view = replace(run.view, now=run.view.now + PATIENCE + 1.0)
    run.located(1, P.SHUTOFF, P.SHUTOFF)
    assert (run.stage(), run.outcome()) == (Stage.QUARANTINED, Outcome.QUARANTINED)


def test_one_that_somebody_defined_on_a_third_host_is_not_lost() -> None:
    """Dies if a definition elsewhere counts as none."""
    run = begun()
    run.ended()
    where = {"h1": P.ABSENT, "h2": P.ABSENT}
    run.feed(Located(1, Location("a", run.view.now, where)))
    run.view = replace(run.view, now=run.view.now + PATIENCE + 1.0)
    run.feed(Located(1, Location("a", run.view.now, where)))
    wide = where | {"h3": P.SHUTOFF, "h4": P.ABSENT}
    run.feed(Located(1, Location("a", run.view.now, wide)))
    assert run.outcome() is Outcome.FAILED


# All of it


RULES = Policy.model_validate(
    {
        "summary": "test",
        "name": "test",
        "mode": "act",
        "objective": "quiet",
        "detection": {"window": 60.0, "warm_up": 30.0, "trusted_after": 0.0},
        "capacity": {"memory_reserve_share": 0.0},
    }
)


def drain(world: World, directory: Path, struck: bool = False) -> list[PastMove]:
    """Twelve minutes in which a1 is drained; what became of moves of v1.

    `struck`: the daemon of the source hangs as soon as a move of v1 is begun, for five seconds.
    """
    with Ledger(directory / "ledger.db") as ledger, SamplesStore(directory / "s.db") as samples:
        loop = Loop(world, world, ledger, samples, world, lambda: RULES, world.site.links)
        loop.start()
        ledger.set_draining("a1", draining=True, at=world.now())
        for cycle in range(12):
            loop.cycle()
            while world.now() < START + 60.0 * (cycle + 1):
                if struck and any(intent.vm == "v1" for intent in ledger.recover()):
                    world._state.silent.add(0)
                    live(world, 5.0)
                    world._state.silent.discard(0)
                    struck = False
                world.advance(world.now() + 0.5)
                loop.step()
        assert not ledger.recover()
        return [past for past in ledger.history(world.now()).moves if past.vm == "v1"]


def test_a_drained_host_is_left_by_what_is_shut_off(tmp_path: Path) -> None:
    world = a_world()
    world.hand.shut_off("v1")
    (past,) = drain(world, tmp_path)
    assert past.outcome is Outcome.DONE
    assert world.copies("v1") == {past.target: P.SHUTOFF}
    assert past.target != "a1"
    assert world.running("v0") != ("a1",)


def test_a_daemon_that_hangs_between_writing_and_removing_leaves_both_and_one_move(
    tmp_path: Path,
) -> None:
    """Dies if that counts as done or failed, or if the VM is moved again and again."""
    world = a_world()
    world.hand.shut_off("v1")
    (past,) = drain(world, tmp_path, struck=True)
    assert past.outcome is Outcome.QUARANTINED
    assert world.copies("v1") == {"a1": P.SHUTOFF, past.target: P.SHUTOFF}
