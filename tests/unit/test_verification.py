"""Whose job it is, and where a VM is that went to a third host: never touch what is not ours."""

import pytest

from balancerd.core.executing.execution import Stage
from balancerd.core.executing.executor import adopt
from balancerd.core.executing.messages import (
    AbortMigration,
    AbortWanted,
    Ask,
    Located,
    Settle,
    StartRefused,
    Watch,
)
from balancerd.core.executing.migration import SILENCE, UNANSWERED
from balancerd.core.executing.verification import CONFIRMED_AFTER, PATIENCE
from balancerd.core.observation import JobProgress, JobReport, Location, Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Intent, IntentKind
from balancerd.core.policies.limits import Limits
from balancerd.core.units import GIB
from tests.executions import POLICY, START, P, Run, left_under_way, of, one_move

ANOTHER = "another migration job is already running for the domain"


def outrun() -> Run:
    """An operator's migration began between our check and our start, which was refused."""
    run = one_move()
    run.started()
    run.ended(error=ANOTHER, code=55)
    return run


def seen(run: Run, at: float, source: Presence, target: Presence, **others: Presence) -> None:
    """The hosts answer at a time, all others too where they were asked."""
    run.feed(at=at)
    asked = of(Ask, run.commands)[-1]
    assert isinstance(asked, Ask)
    said = {"h1": source, "h2": target} | {h: others.get(h, P.ABSENT) for h in asked.hosts[2:]}
    run.feed(Located(1, Location("a", at, said)))


@pytest.mark.parametrize("target", [P.ABSENT, P.INCOMING, P.SHUTOFF, P.UNREACHABLE])
def test_a_job_that_was_there_before_ours_is_not_watched_and_not_given_up(target: P) -> None:
    """Dies when RUNNING_WITH_JOB alone means that our migration goes on."""
    run = outrun()
    for minute in range(30):
        seen(run, START + 60.0 * minute, P.RUNNING_WITH_JOB, target)
    run.feed(AbortWanted("a", "eve"))
    assert not of(Watch, run.commands)
    assert not of(AbortMigration, run.commands)
    assert run.stage() is Stage.VERIFYING


@pytest.mark.parametrize("target", [P.UNREACHABLE, P.INCOMING])
def test_a_job_that_begins_after_ours_has_ended_is_somebody_elses(target: P) -> None:
    run = one_move()
    run.started()
    run.progress(GIB, START + 1)
    ended = JobReport("a", "h1", "h2", START + 10, ended=True, answered=True, error="it is closed")
    run.feed(ended, at=START + 10)
    seen(run, START + 60, P.RUNNING_WITH_JOB, target)
    assert not of(Watch, run.commands)
    assert run.stage() is Stage.VERIFYING


@pytest.mark.parametrize("target", [P.UNREACHABLE, P.INCOMING])
def test_a_job_is_somebody_elses_where_ours_was_seen_to_be_over(target: P) -> None:
    """An adopted migration has no call that could end. Dies when a job of an operator's, which he
    began while its target did not answer, is watched in its place, and given up for its faults."""
    run = left_under_way(seen=True)
    for second in (SILENCE + 10, SILENCE + 11):  # the first has it given up: it stands still
        run.feed(at=START + second)
    assert run.stage() is Stage.VERIFYING
    before = len(of(Watch, run.commands)), len(of(AbortMigration, run.commands))
    seen(run, START + 120, P.RUNNING, P.UNREACHABLE)
    seen(run, START + 180, P.UNREACHABLE, P.UNREACHABLE)
    for second in range(240, 900, 60):
        seen(run, START + second, P.RUNNING_WITH_JOB, target)
    assert (len(of(Watch, run.commands)), len(of(AbortMigration, run.commands))) == before


def test_once_the_other_job_is_over_ours_was_never_started() -> None:
    run = outrun()
    seen(run, START + 60, P.RUNNING_WITH_JOB, P.ABSENT)
    seen(run, START + 120, P.RUNNING, P.ABSENT)
    assert run.outcome() is Outcome.NOT_STARTED


def test_a_vm_that_somebody_moved_to_a_third_host_is_not_lost() -> None:
    """Dies when (gone, absent) is believed before every other host was asked."""
    run = outrun()
    seen(run, START + 60, P.ABSENT, P.ABSENT)
    assert run.outcome() is None
    seen(run, START + 80, P.ABSENT, P.ABSENT, h3=P.RUNNING)
    assert run.outcome() is Outcome.NOT_STARTED
    assert "moved it to h3" in run.execution.tasks[1].detail


def test_a_vm_that_runs_on_no_host_at_all_is_lost() -> None:
    run = one_move()
    run.started()
    run.progress(GIB, START + 1)
    run.ended(error="domain is not running", code=9)
    seen(run, START + 60, P.ABSENT, P.ABSENT)
    seen(run, START + 80, P.ABSENT, P.ABSENT)
    assert run.outcome() is Outcome.LOST


@pytest.mark.parametrize("stopped", [P.SHUTOFF, P.CRASHED])
def test_a_vm_that_was_stopped_before_our_start_is_not_lost_by_us(stopped: P) -> None:
    """Dies when the pair alone decides: the VM stopped where it was, and we began nothing."""
    run = one_move()
    run.started()
    run.ended(error="domain is not running", code=55)
    seen(run, START + 60, stopped, P.ABSENT)
    seen(run, START + 80, stopped, P.ABSENT)
    assert run.outcome() is Outcome.NOT_STARTED
    assert "domain is not running" in run.execution.tasks[1].detail


@pytest.mark.parametrize("third", [P.RUNNING, P.INCOMING, P.UNREACHABLE])
def test_a_source_is_not_resumed_while_the_vm_may_be_on_a_third_host(third: P) -> None:
    """Dies when the pair alone decides: the source would run beside the third host's copy."""
    run = one_move()
    run.execution = adopt([Intent(IntentKind.MIGRATE, START, "h1", "a", "uuid-a", "h2", id=7)])
    for second in (1, 30, 60, 90):
        seen(run, START + second, P.OUTGOING, P.ABSENT, h3=third)
    assert not of(Settle, run.commands)
    assert (run.outcome() is None) == (third is not P.RUNNING)


def test_our_own_source_is_resumed_though_a_third_host_is_silent() -> None:
    run = one_move()
    run.started()
    run.progress(GIB, START + 1)
    run.ended(error="end of file", code=38)
    for second in (2, 10, 30):
        seen(run, START + second, P.OUTGOING, P.ABSENT, h3=P.UNREACHABLE)
    assert of(Settle, run.commands)


def test_what_another_migration_left_paused_is_not_mended() -> None:
    run = outrun()
    seen(run, START + 60, P.OUTGOING, P.RUNNING)
    seen(run, START + 61 + CONFIRMED_AFTER, P.OUTGOING, P.RUNNING)
    assert run.outcome() is None
    seen(run, START + 61 + PATIENCE, P.OUTGOING, P.RUNNING)
    assert run.outcome() is Outcome.NOT_STARTED
    assert not of(Settle, run.commands)


def test_a_definition_that_another_migration_left_is_not_removed() -> None:
    run = outrun()
    seen(run, START + 60, P.MIGRATED, P.RUNNING)
    assert run.outcome() is Outcome.NOT_STARTED
    assert not of(Settle, run.commands)


def test_a_wish_to_give_up_waits_until_the_job_is_known_to_be_ours() -> None:
    run = one_move()
    run.started()
    run.feed(AbortWanted("a", "eve"))
    assert not of(AbortMigration, run.commands)
    run.progress(GIB, START + 1)
    assert len(of(AbortMigration, run.commands)) == 1


def test_a_start_that_nobody_heard_of_is_looked_for_and_never_given_up() -> None:
    """Dies when a stall counts from a start that was never confirmed."""
    run = one_move()
    run.started()
    for second in range(0, 1200, 10):
        if run.stage() is Stage.VERIFYING:
            seen(run, START + second, P.RUNNING_WITH_JOB, P.ABSENT)
        else:
            run.feed(at=START + second)
    assert not of(AbortMigration, run.commands)


@pytest.mark.parametrize("target", [P.ABSENT, P.SHUTOFF, P.UNREACHABLE])
def test_a_job_without_a_half_on_the_target_is_not_taken_for_ours(target: P) -> None:
    """Dies when a job on the source is watched wherever it goes to."""
    run = one_move()
    run.started()
    run.feed(at=START + SILENCE + 1)
    run.feed()
    run.located(1, P.RUNNING_WITH_JOB, target)
    assert run.stage() is Stage.VERIFYING
    assert not of(Watch, run.commands)


def test_a_job_that_was_ours_and_fell_silent_is_asked_about() -> None:
    """Dies when only jobs that were never heard of are looked for."""
    run = one_move(POLICY.model_copy(update={"limits": Limits(stall=1000.0)}))
    run.started()
    run.progress(GIB, START + 1)
    asked = len(of(Ask, run.commands))
    run.feed(at=START + SILENCE + 2)
    run.feed()
    assert run.stage() is Stage.VERIFYING
    assert len(of(Ask, run.commands)) == asked + 1


def test_a_job_that_is_over_while_its_call_hangs_is_asked_about_before_long() -> None:
    """Dies when a VM whose source died is taken for under way until there is no news at all."""
    run = one_move()
    run.started()
    run.progress(GIB, START + 1)
    for second, stage in ((2, Stage.RUNNING), (3 + int(UNANSWERED), Stage.VERIFYING)):
        run.feed(JobReport("a", "h1", "h2", START + second, over=True), at=START + second)
        assert run.stage() is stage


@pytest.mark.parametrize("known", [True, False])
def test_an_adopted_job_is_given_up_only_if_it_was_seen_to_be_ours(known: bool) -> None:
    run = left_under_way(seen=known)
    for second in range(1, 1000, 10):
        run.progress(GIB + second, START + second)
    assert bool(of(AbortMigration, run.commands)) == known


@pytest.mark.parametrize("began", [-60.0, 200.0])
def test_an_adopted_job_that_began_at_another_time_is_somebody_elses(began: float) -> None:
    run = left_under_way(seen=True)
    progress = JobProgress(10 * GIB, GIB, 9 * GIB, 1, 300.0 - began)
    run.feed(JobReport("a", "h1", "h2", START + 300.0, progress), at=START + 300.0)
    run.feed(AbortWanted("a", "eve"), at=START + 1000.0)
    assert run.stage() is Stage.VERIFYING
    assert not of(AbortMigration, run.commands)


def test_a_start_that_was_never_asked_for_leaves_no_job_of_ours() -> None:
    run = one_move()
    run.started()
    run.feed(JobReport("a", "h1", "h2", START + 20, ended=True, begun=False, error="too late"))
    seen(run, START + 60, P.RUNNING_WITH_JOB, P.INCOMING)
    assert not of(Watch, run.commands)


def test_a_refused_start_leaves_no_job_of_ours() -> None:
    run = one_move()
    run.started()
    run.feed(StartRefused(1, "h1: migrate: no answer"))
    seen(run, START + 60, P.RUNNING_WITH_JOB, P.INCOMING)
    assert run.execution.tasks[1].foreign
    assert not of(Watch, run.commands)
