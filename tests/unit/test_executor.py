"""Carrying out a plan, one event at a time; the world is what the test says it is."""

from dataclasses import replace

import pytest

from balancerd.core.executing.execution import (
    TRANSITIONS,
    Stage,
    Task,
    Warrant,
    warrant_of_approval,
    warrant_of_policy,
)
from balancerd.core.executing.executor import adopt, due, project
from balancerd.core.executing.messages import (
    AbortMigration,
    AbortWanted,
    Acted,
    Ask,
    Conclude,
    EndPlan,
    Intend,
    Intended,
    Settle,
    StartMigration,
    StartRefused,
    SwitchFailed,
    SwitchPower,
    Watch,
)
from balancerd.core.executing.migration import ABORT_AGAIN
from balancerd.core.executing.powering import WAKE_PATIENCE
from balancerd.core.executing.reconcile import Act
from balancerd.core.model import Method
from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History
from balancerd.core.past.record import Intent, IntentKind, PlanState
from balancerd.core.plan import Sleep, Wake
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.limits import Limits
from balancerd.core.units import GIB
from tests.executions import POLICY, START, P, Run, move, of, one_move, snapshot, switched_off


def test_a_move_is_checked_then_announced_then_started_then_verified() -> None:
    run = one_move()
    assert run.feed() == (Ask(1, "a", "uuid-a", ("h1", "h2"), Method.PRE_COPY),)
    (intend,) = run.located(1, P.RUNNING, P.ABSENT)
    assert isinstance(intend, Intend)
    assert (intend.intent.vm, intend.intent.host, intend.intent.target) == ("a", "h1", "h2")
    (start,) = run.feed(Intended(1, 7))
    assert isinstance(start, StartMigration)
    assert start.intent == 7
    (ask,) = run.ended()
    assert isinstance(ask, Ask)
    conclude, end = run.located(1, P.ABSENT, P.RUNNING)
    assert isinstance(conclude, Conclude)
    assert conclude.conclusion.outcome is Outcome.DONE
    assert conclude.conclusion.intent == 7
    assert isinstance(end, EndPlan)
    assert end.state is PlanState.DONE


def test_nothing_starts_without_an_intent() -> None:
    run = one_move()
    run.feed()
    run.located(1, P.RUNNING, P.ABSENT)
    assert not of(StartMigration, run.commands)


def test_nothing_starts_while_a_pause_stands() -> None:
    run = one_move()
    run.view = replace(run.view, paused=True)
    assert run.feed() == ()
    assert run.stage() is Stage.WAITING


def test_a_pause_that_comes_between_check_and_intent_holds_the_move_back() -> None:
    run = one_move()
    run.feed()
    run.located(1, P.RUNNING, P.ABSENT)
    run.view = replace(run.view, paused=True)
    assert run.feed(Intended(1, None)) == ()
    assert run.stage() is Stage.WAITING


@pytest.mark.parametrize("field", ["frozen", "stale"])
def test_nothing_starts_while_frozen_or_on_an_old_snapshot(field: str) -> None:
    run = one_move()
    frozen = "split brain" if field == "frozen" else ""
    run.view = replace(run.view, frozen=frozen, fresh=field != "stale")
    assert run.feed() == ()


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE])
def test_observe_and_advise_give_no_warrant(mode: Mode) -> None:
    assert warrant_of_policy(POLICY.model_copy(update={"mode": mode})) is None


def test_an_approval_is_a_warrant_in_advise_but_not_in_observe() -> None:
    advise = POLICY.model_copy(update={"mode": Mode.ADVISE})
    observe = POLICY.model_copy(update={"mode": Mode.OBSERVE})
    assert warrant_of_approval(advise, "eve") == Warrant("eve", approved=True)
    assert warrant_of_approval(observe, "eve") is None


def test_a_policy_that_stops_acting_stops_its_plan_but_not_what_runs() -> None:
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h2", 1), a="h1", b="h1")
    run.started()
    run.view = replace(run.view, policy=POLICY.model_copy(update={"mode": Mode.ADVISE}))
    run.feed()
    assert run.stage(1) is Stage.RUNNING
    assert run.stage(2) is Stage.DROPPED


@pytest.mark.parametrize("source", [p for p in Presence if p is not P.RUNNING])
def test_a_vm_that_does_not_run_on_its_source_is_not_moved(source: Presence) -> None:
    run = one_move()
    run.feed()
    run.located(1, source, P.ABSENT)
    assert run.stage() is Stage.DROPPED
    assert not of(Intend, run.commands)


def test_a_move_that_the_rules_refuse_by_now_is_dropped() -> None:
    run = one_move()
    gone = replace(run.view.snapshot, exclusions=())
    hosts = {**gone.cluster.hosts, "h2": replace(gone.cluster.hosts["h2"], memory=GIB // 2)}
    run.view = replace(run.view, snapshot=replace(gone, cluster=replace(gone.cluster, hosts=hosts)))
    run.feed()
    assert run.stage() is Stage.DROPPED


def test_a_vm_that_somebody_moved_meanwhile_is_left_alone() -> None:
    run = Run(move(1, "a", "h1", "h2"), a="h3")
    run.feed()
    assert run.stage() is Stage.DROPPED


def test_an_error_does_not_make_a_migration_failed() -> None:
    """Dies when the outcome is taken from the report's error: the VM did move."""
    run = one_move()
    run.started()
    run.ended(error="client socket is closed", code=1)
    run.located(1, P.ABSENT, P.RUNNING)
    assert run.outcome() is Outcome.DONE


def test_no_error_does_not_make_a_migration_done() -> None:
    run = one_move()
    run.started()
    run.ended()
    run.located(1, P.RUNNING, P.ABSENT)
    assert run.outcome() is Outcome.FAILED


def test_a_start_that_was_refused_is_verified_too() -> None:
    run = one_move()
    run.started()
    (ask,) = run.feed(StartRefused(1, "connection refused"))
    assert isinstance(ask, Ask)
    run.located(1, P.RUNNING, P.ABSENT)
    assert run.outcome() is Outcome.NOT_STARTED


def test_a_host_that_does_not_answer_is_asked_again_and_nothing_is_concluded() -> None:
    run = one_move()
    run.started()
    run.ended(error="keepalive timeout")
    asked = []
    now = START
    while now < START + 60:
        run.located(1, P.RUNNING, P.UNREACHABLE)
        wanted = due(run.execution)
        assert wanted is not None
        assert wanted > now
        now = wanted
        asked.append(now - START)
        assert of(Ask, run.feed(at=now))
    assert run.outcome() is None
    assert asked[:3] == [0.5, 1.5, 3.5]


def test_the_gap_after_the_switch_over_is_acted_on_only_when_it_stays() -> None:
    """Dies without CONFIRMED_AFTER: every healthy migration passes through this pair."""
    run = one_move()
    run.started()
    run.ended(error="end of file")
    run.located(1, P.OUTGOING, P.RUNNING)
    assert not of(Settle, run.commands)
    run.feed(at=START + 1)
    run.located(1, P.ABSENT, P.RUNNING)
    assert run.outcome() is Outcome.DONE
    assert not of(Settle, run.commands)


def test_a_copy_left_paused_on_the_source_is_ended_when_the_target_runs() -> None:
    run = one_move()
    run.started()
    run.ended(error="end of file")
    run.located(1, P.OUTGOING, P.RUNNING)
    run.feed(at=START + 6)
    (settle,) = of(Settle, run.located(1, P.OUTGOING, P.RUNNING))
    assert isinstance(settle, Settle)
    assert settle.act is Act.DESTROY_SOURCE
    (settle,) = of(Settle, run.feed(Acted(1)))
    assert isinstance(settle, Settle)
    assert settle.act is Act.UNDEFINE_SOURCE
    run.feed(Acted(1))
    assert run.outcome() is Outcome.DONE


def test_an_act_that_fails_sends_the_executor_back_to_asking() -> None:
    run = one_move()
    run.started()
    run.ended(error="end of file")
    run.located(1, P.OUTGOING, P.ABSENT)
    run.feed(at=START + 6)
    run.located(1, P.OUTGOING, P.ABSENT)
    assert run.stage() is Stage.SETTLING
    run.feed(Acted(1, "h1: resume: no answer"))
    assert run.stage() is Stage.VERIFYING
    assert run.outcome() is None


def test_a_definition_that_was_on_the_target_before_is_not_removed() -> None:
    run = one_move()
    run.feed()
    run.located(1, P.RUNNING, P.SHUTOFF)
    run.feed(Intended(1, 7))
    run.ended(error="failed")
    run.located(1, P.RUNNING, P.SHUTOFF)
    assert run.outcome() is Outcome.FAILED
    assert not of(Settle, run.commands)


def test_a_definition_that_the_move_left_on_the_target_is_removed() -> None:
    run = one_move()
    run.started()
    run.ended(error="failed")
    (settle,) = of(Settle, run.located(1, P.RUNNING, P.FAILED))
    assert isinstance(settle, Settle)
    assert settle.act is Act.UNDEFINE_TARGET


def test_two_running_copies_are_quarantined_and_not_touched() -> None:
    run = one_move()
    run.started()
    run.ended(error="keepalive timeout")
    run.located(1, P.RUNNING, P.RUNNING)
    assert run.outcome() is Outcome.QUARANTINED
    assert not of(Settle, run.commands)


def test_a_migration_without_progress_is_given_up_once() -> None:
    run = one_move()
    run.started()
    run.progress(5 * GIB, START + 10)
    stall = POLICY.limits.stall
    for second in range(11, int(stall) + 12):
        run.progress(5 * GIB, START + second)
    aborts = of(AbortMigration, run.commands)
    assert len(aborts) == 1
    assert "no progress" in str(aborts[0])
    run.ended(error="canceled by client", code=78)
    run.located(1, P.RUNNING, P.ABSENT)
    assert run.outcome() is Outcome.ABORTED


def test_a_migration_past_its_deadline_is_given_up_though_it_makes_progress() -> None:
    limits = Limits(deadline=100.0)
    run = one_move(POLICY.model_copy(update={"limits": limits}))
    run.started()
    for second in range(1, 105):
        run.progress(second, START + second)
    (abort,) = of(AbortMigration, run.commands)
    assert isinstance(abort, AbortMigration)
    assert "not done after 101 s" in abort.reason


def test_giving_up_is_asked_for_again_where_it_changed_nothing() -> None:
    """Dies when a call that was lost is the last word."""
    run = one_move(POLICY.model_copy(update={"limits": Limits(deadline=100.0)}))
    run.started()
    for second in range(1, 101 + int(ABORT_AGAIN)):
        run.progress(second, START + second)
    assert len(of(AbortMigration, run.commands)) == 1
    run.progress(200, START + 101 + ABORT_AGAIN)
    assert len(of(AbortMigration, run.commands)) == 2


def test_a_job_without_news_is_looked_for_on_the_hosts_and_watched_again() -> None:
    run = one_move(POLICY.model_copy(update={"limits": Limits(stall=1000.0)}))
    run.started()
    (ask,) = of(Ask, run.feed(at=START + 61)) or of(Ask, run.feed())
    assert isinstance(ask, Ask)
    (watch,) = run.located(1, P.RUNNING_WITH_JOB, P.INCOMING)
    assert isinstance(watch, Watch)
    assert run.stage() is Stage.RUNNING


def test_an_abort_that_somebody_else_asked_for_is_recorded_as_theirs() -> None:
    run = one_move()
    run.started()
    run.ended(error="canceled by client", code=78)
    run.located(1, P.RUNNING, P.ABSENT)
    (conclude,) = of(Conclude, run.commands)
    assert isinstance(conclude, Conclude)
    assert conclude.conclusion.outcome is Outcome.ABORTED
    assert conclude.conclusion.detail == "somebody else aborted it"


def test_the_operator_can_give_up_one_migration() -> None:
    run = one_move()
    run.started()
    run.progress(GIB, START + 1)
    (abort,) = run.feed(AbortWanted("a", "eve"))
    assert isinstance(abort, AbortMigration)
    assert "eve" in abort.reason


def test_the_first_failure_stops_the_plan_but_not_what_runs_already() -> None:
    run = Run(
        move(1, "a", "h1", "h2"),
        move(2, "b", "h3", "h4"),
        move(3, "c", "h1", "h4", 2),
        a="h1",
        b="h3",
        c="h1",
    )
    run.feed()
    for number in (1, 2):
        run.located(number, P.RUNNING, P.ABSENT)
        run.feed(Intended(number, 70 + number))
    run.ended(1, error="failed")
    run.located(1, P.RUNNING, P.ABSENT)
    assert (run.stage(1), run.stage(2), run.stage(3)) == (
        Stage.FAILED,
        Stage.RUNNING,
        Stage.DROPPED,
    )
    assert run.execution.state is PlanState.RUNNING
    run.ended(2)
    (conclude, end) = run.located(2, P.ABSENT, P.RUNNING)
    assert isinstance(conclude, Conclude)
    assert isinstance(end, EndPlan)
    assert end.state is PlanState.FAILED


def test_a_move_waits_for_those_it_comes_after() -> None:
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h3", "h4", 1), a="h1", b="h3")
    assert len(of(Ask, run.feed())) == 1
    run.located(1, P.RUNNING, P.ABSENT)
    run.feed(Intended(1, 7))
    assert run.stage(2) is Stage.WAITING
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    run.feed()
    assert run.stage(2) is Stage.CHECKING


def test_a_host_sends_and_receives_no_more_at_once_than_allowed() -> None:
    run = Run(
        move(1, "a", "h1", "h2"),
        move(2, "b", "h1", "h3"),
        move(3, "c", "h4", "h2"),
        move(4, "d", "h4", "h3"),
        a="h1",
        b="h1",
        c="h4",
        d="h4",
    )
    asked = [command.vm for command in run.feed() if isinstance(command, Ask)]
    assert asked == ["a", "d"]


def test_an_answer_that_makes_room_starts_at_once_what_waits_for_it() -> None:
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h3"), a="h1", b="h1")
    run.started(1)
    (ask,) = run.ended(1)
    assert isinstance(ask, Ask)
    assert ask.task == 1
    conclude, ask = run.located(1, P.ABSENT, P.RUNNING)
    assert isinstance(conclude, Conclude)
    assert isinstance(ask, Ask)
    assert ask.task == 2


def test_what_no_answer_is_for_is_not_gone_through_again() -> None:
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h3"), a="h1", b="h1")
    run.feed()
    run.view = replace(run.view, policy=POLICY.model_copy(update={"limits": Limits(per_host=2)}))
    assert [type(command) for command in run.located(1, P.RUNNING, P.ABSENT)] == [Intend]
    assert [type(command) for command in run.feed()] == [Ask]


def test_the_site_moves_no_more_at_once_than_allowed() -> None:
    limits = Limits(per_site=1)
    run = Run(
        move(1, "a", "h1", "h2"),
        move(2, "b", "h3", "h4"),
        a="h1",
        b="h3",
        policy=POLICY.model_copy(update={"limits": limits}),
    )
    assert len(of(Ask, run.feed())) == 1


def test_migrations_of_others_count_against_the_limits() -> None:
    run = Run(move(1, "a", "h1", "h2"), a="h1", x="h3")
    cluster = replace(run.view.snapshot.cluster, flights={"x": "h2"})
    run.view = replace(run.view, snapshot=replace(run.view.snapshot, cluster=cluster))
    assert run.feed() == ()
    assert run.stage() is Stage.WAITING


@pytest.mark.parametrize(("source", "target"), [("h2", "h1"), ("h1", "h3")])
def test_a_migration_of_others_counts_whichever_way_it_goes(source: str, target: str) -> None:
    """Dies when a VM that somebody moves by post-copy, which runs on its target already, is taken
    for one that leaves it."""
    run = Run(move(1, "a", source, target), a=source, x="h3")
    cluster = replace(run.view.snapshot.cluster, flights={"x": "h2"})
    run.view = replace(run.view, snapshot=replace(run.view.snapshot, cluster=cluster))
    assert run.feed() == ()
    assert run.stage() is Stage.WAITING


def test_a_migration_that_ended_since_the_last_look_counts_no_more() -> None:
    """Dies when what that look shows under way is taken for others'."""
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h3", "h2"), a="h1", b="h3")
    run.started(1)
    cluster = replace(run.view.snapshot.cluster, flights={"a": "h2"})
    seen = replace(run.view.snapshot, at=START + 5, cluster=cluster)
    run.view = replace(run.view, snapshot=seen, now=START + 20)
    assert run.feed() == ()
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    run.feed()
    assert (run.stage(1), run.stage(2)) == (Stage.DONE, Stage.CHECKING)


def test_an_old_plan_is_not_begun() -> None:
    run = one_move()
    run.feed(at=START + POLICY.limits.plan_life + 1)
    assert run.stage() is Stage.DROPPED
    assert run.execution.state is PlanState.SUPERSEDED


def test_a_host_sleeps_only_after_it_was_seen_empty_twice() -> None:
    run = Run(Sleep(1, "h2", "idle"), a="h1")
    assert run.feed() == ()
    assert run.feed() == (), "the same snapshot is not a second look"
    run.view = replace(run.view, snapshot=snapshot(START + 30, a="h1"), now=START + 30)
    (intend,) = run.feed()
    assert isinstance(intend, Intend)
    (switch,) = run.feed(Intended(1, 9))
    assert switch == SwitchPower(1, 9, "h2", wake=False)


def test_a_vm_that_appears_between_the_two_looks_keeps_its_host_awake() -> None:
    run = Run(Sleep(1, "h2", "idle"), a="h1")
    run.feed()
    run.view = replace(run.view, snapshot=snapshot(START + 30, a="h1", new="h2"), now=START + 30)
    run.feed()
    assert run.stage() is Stage.DROPPED
    assert not of(Intend, run.commands)


def test_the_last_hosts_stay_on() -> None:
    power = POLICY.power.model_copy(update={"keep_on": 2})
    run = Run(Sleep(1, "h2", "idle"), a="h1", policy=POLICY.model_copy(update={"power": power}))
    run.view = replace(run.view, snapshot=switched_off(run.view.snapshot, "h3", "h4"))
    run.feed()
    assert run.stage() is Stage.DROPPED
    assert run.execution.tasks[1].detail == "only 2 hosts are on, 2 must be"


def waking() -> Run:
    run = Run(Wake(1, "h4", "needed"), a="h1")
    run.view = replace(run.view, snapshot=switched_off(run.view.snapshot, "h4"))
    run.feed()
    assert run.feed(Intended(1, 9)) == (SwitchPower(1, 9, "h4", wake=True),)
    return run


def test_a_host_that_something_else_switched_off_meanwhile_is_not_woken() -> None:
    """Dies without the look at whose doing it was, just before the intent."""
    run = Run(Wake(1, "h4", "needed"), a="h1")
    seen = switched_off(run.view.snapshot, "h4")
    run.view = replace(run.view, snapshot=seen, history=History())
    assert of(Intend, run.feed()) == []
    assert run.execution.tasks[1].detail == "something else switched it off"


def test_a_wake_is_done_when_the_host_answers() -> None:
    run = waking()
    run.feed(at=START + 60)
    assert run.outcome() is None
    run.view = replace(run.view, snapshot=snapshot(START + 90, a="h1"))
    run.feed(at=START + 90)
    assert run.outcome() is Outcome.DONE


def test_a_wake_has_failed_when_the_host_never_answers() -> None:
    run = waking()
    run.feed(at=START + WAKE_PATIENCE + 1)
    assert run.outcome() is Outcome.FAILED


def test_a_switch_whose_command_fails_later_was_never_made() -> None:
    run = waking()
    run.feed(SwitchFailed("h3", "another host's"))
    assert run.outcome() is None
    run.feed(SwitchFailed("h4", "h4: switch on: no such user"))
    assert run.outcome() is Outcome.NOT_STARTED


def adopted(kind: IntentKind = IntentKind.MIGRATE) -> Run:
    intent = Intent(kind, START, "h1", vm="a", uuid="uuid-a", target="h2", id=42)
    run = one_move()
    run.execution = adopt([intent])
    return run


def test_a_migration_that_outlived_its_balancerd_is_watched_and_recorded_once() -> None:
    run = adopted()
    (ask,) = run.feed()
    assert isinstance(ask, Ask)
    (watch,) = run.located(1, P.RUNNING_WITH_JOB, P.INCOMING)
    assert isinstance(watch, Watch)
    run.ended()
    run.located(1, P.ABSENT, P.RUNNING)
    (conclude,) = of(Conclude, run.commands)
    assert isinstance(conclude, Conclude)
    assert conclude.conclusion.intent == 42
    assert conclude.conclusion.adopted
    assert conclude.conclusion.seconds is None, "it may have ended long before anybody looked"
    assert not of(StartMigration, run.commands)
    assert run.feed() == ()


def test_a_migration_that_ended_while_nobody_watched_is_recorded() -> None:
    run = adopted()
    run.feed()
    run.located(1, P.MIGRATED, P.RUNNING)
    if run.outcome() is None:
        run.feed(Acted(1))
    assert run.outcome() is Outcome.DONE


def test_a_task_takes_no_step_that_the_table_does_not_have() -> None:
    for stage, allowed in TRANSITIONS.items():
        for other in Stage:
            task = Task(move(1, "a", "h1", "h2"), stage)
            if other in allowed:
                assert task.to(other, START).stage is other
            else:
                with pytest.raises(AssertionError):
                    task.to(other, START)


def test_a_migration_in_post_copy_counts_at_its_source_as_well() -> None:
    """Dies when another plan takes for free what the VM still holds where it came from."""
    run = one_move()
    run.started()
    seen = project(snapshot(a="h2"), run.execution.tasks).cluster
    assert (dict(seen.placement), dict(seen.flights)) == ({"a": "h1"}, {"a": "h2"})
