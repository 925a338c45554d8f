"""A migration that does not converge climbs its ladder; operators hurry it."""

from dataclasses import replace

import pytest

from balancerd.core.executing.convergence import TUNE_AGAIN
from balancerd.core.executing.execution import Stage
from balancerd.core.executing.messages import (
    AbortMigration,
    AbortWanted,
    Command,
    HurryWanted,
    Intended,
    SetDowntime,
    StartMigration,
    SwitchToPostCopy,
    Tuned,
)
from balancerd.core.model import Method
from balancerd.core.observation import JobProgress, JobReport
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Methods
from balancerd.core.units import GIB
from tests.executions import POLICY, START, P, Run, move, of, snapshot

MB = 10**6
OPEN = POLICY.model_copy(update={"methods": Methods(post_copy=True)})


def moving(method: Method = Method.PRE_COPY, policy: Policy = POLICY, **tags: str) -> Run:
    """One migration that runs; the VM has these tags (with _ for -, and class_)."""
    run = Run(replace(move(1, "a", "h1", "h2"), method=method), a="h1", policy=policy)
    seen = snapshot(a="h1")
    vm = replace(
        seen.cluster.vms["a"], tags={k.rstrip("_").replace("_", "-"): v for k, v in tags.items()}
    )
    run.view = replace(
        run.view, snapshot=replace(seen, cluster=replace(seen.cluster, vms={"a": vm}))
    )
    run.feed()
    run.located(1, P.RUNNING, P.ABSENT)
    run.feed(Intended(1, 71))
    return run


def stalls(run: Run, rounds: int, throttle: int = 0, first: int = 1) -> list[Command]:
    """News of so many rounds, ten seconds and 100 MB each, none smaller than the one before."""
    commands: list[Command] = []
    for number in range(first, first + rounds):
        at = START + 10.0 * number
        progress = JobProgress(
            100 * MB, 100 * MB * (number - 1) + 1, 100 * MB, number, 10.0 * number, None, throttle
        )
        commands += run.feed(JobReport("a", "h1", "h2", at, progress), at=at)
    return commands


def pauses(commands: list[Command]) -> list[float]:
    return [command.downtime for command in commands if isinstance(command, SetDowntime)]


def started(run: Run) -> StartMigration:
    (start,) = of(StartMigration, run.commands)
    assert isinstance(start, StartMigration)
    return start


def test_a_migration_that_stalls_is_allowed_longer_and_longer_pauses_and_then_given_up() -> None:
    run = moving()
    assert started(run).downtime == 0.1
    commands = stalls(run, 12)
    assert pauses(commands) == [0.15, 0.2, 0.3, 0.4, 0.5]
    (abort,) = of(AbortMigration, commands)
    assert "stalled 10 times" in str(abort)


def test_every_step_says_why() -> None:
    (first, *_) = of(SetDowntime, stalls(moving(), 3))
    assert "stalled 1 times" in str(first)


@pytest.mark.parametrize(
    ("name", "first", "top"), [("latency", 0.05, 0.2), ("normal", 0.1, 0.5), ("batch", 0.3, 0.5)]
)
def test_the_vms_class_chooses_the_ladder(name: str, first: float, top: float) -> None:
    run = moving(class_=name)
    assert started(run).downtime == first
    assert max(pauses(stalls(run, 9))) == top


def test_no_pause_is_longer_than_the_policys_limit() -> None:
    limits = POLICY.limits.model_copy(update={"downtime": 0.25})
    run = moving(policy=POLICY.model_copy(update={"limits": limits}))
    assert pauses(stalls(run, 9)) == [0.15, 0.2, 0.25]


def test_a_vm_that_is_still_slowed_down_more_is_not_given_up() -> None:
    run = moving(Method.AUTO_CONVERGE)
    assert not of(AbortMigration, stalls(run, 20, throttle=60))
    assert of(AbortMigration, stalls(run, 1, throttle=99, first=21))


def test_a_step_that_could_not_be_taken_is_taken_again() -> None:
    run = moving()
    assert pauses(stalls(run, 2)) == [0.15]
    run.feed(Tuned(1, "downtime", "h1: busy"))
    assert pauses(stalls(run, 1, first=3)) == [0.15]
    assert pauses(stalls(run, 1, first=4)) == [0.2]


def news(run: Run, at: float) -> list[float]:
    """News of the first round, at a time; the pauses it is allowed thereupon."""
    progress = JobProgress(100 * MB, 50 * MB, 50 * MB, 1, at - START)
    return pauses(list(run.feed(JobReport("a", "h1", "h2", at, progress), at=at)))


@pytest.mark.parametrize("force", [True, False])
def test_a_hurry_that_could_not_be_done_is_still_wanted_and_tried_again_after_a_while(
    force: bool,
) -> None:
    """Dies when an operator who was told yes is forgotten, or a host is asked with all news."""
    run = moving()
    news(run, START + 10)
    (wanted,) = pauses(list(run.feed(HurryWanted("a", "eve", force=force))))
    run.feed(Tuned(1, "downtime", "h1: busy"))
    tried = [at for at in range(11, 20) if news(run, START + at)]
    assert tried[0] == 10 + TUNE_AGAIN
    run.feed(Tuned(1, "downtime"))
    assert run.execution.tasks[1].downtime == wanted
    assert not any(news(run, START + at) for at in range(20, 40))


@pytest.mark.parametrize("allowed", [True, False])
def test_a_stalled_migration_goes_on_in_post_copy_only_with_both_leaves(allowed: bool) -> None:
    run = moving(policy=OPEN if allowed else POLICY, post_copy="yes")
    assert (started(run).method is Method.POST_COPY) == allowed
    assert bool(of(SwitchToPostCopy, stalls(run, 10))) == allowed


def test_post_copy_that_was_planned_begins_when_all_was_copied_once() -> None:
    run = moving(Method.POST_COPY, OPEN, post_copy="yes")
    assert not of(SwitchToPostCopy, stalls(run, 1))
    assert of(SwitchToPostCopy, stalls(run, 1, first=2))


def test_a_migration_in_post_copy_is_never_given_up() -> None:
    """Dies when the deadline counts on: giving up would lose the VM."""
    run = moving(Method.POST_COPY, OPEN, post_copy="yes")
    stalls(run, 2)
    for second in range(30, 3000, 20):
        progress = JobProgress(100 * MB, 100 * MB, 50 * MB, 2, float(second))
        run.feed(JobReport("a", "h1", "h2", START + second, progress), at=START + second)
    assert not of(AbortMigration, run.commands)
    assert run.stage() is Stage.RUNNING


def test_a_migration_that_is_given_up_is_not_pressed_on() -> None:
    """Dies when a VM is paused for longer for a move that nobody wants any more."""
    run = moving(policy=OPEN, post_copy="yes")
    stalls(run, 1)
    run.feed(AbortWanted("a", "eve"))
    assert not of(SetDowntime, stalls(run, 8, first=2))
    assert not of(SwitchToPostCopy, run.commands)


def test_an_operators_hurry_goes_to_the_top_of_the_ladder_at_once() -> None:
    run = moving()
    stalls(run, 1)
    assert pauses(list(run.feed(HurryWanted("a", "eve", force=False)))) == [0.5]


def test_force_takes_whatever_pause_the_rest_needs() -> None:
    run = moving()
    progress = JobProgress(40 * GIB, GIB, 39 * GIB, 1, 10.0)
    run.feed(JobReport("a", "h1", "h2", START + 10, progress), at=START + 10)
    (pause,) = pauses(list(run.feed(HurryWanted("a", "eve", force=True))))
    assert pause * POLICY.limits.bandwidth > 39 * GIB


def test_force_prefers_post_copy_where_it_is_allowed() -> None:
    run = moving(policy=OPEN, post_copy="yes")
    stalls(run, 1)
    assert of(SwitchToPostCopy, run.feed(HurryWanted("a", "eve", force=True)))


def test_a_hurry_before_the_job_is_known_to_be_ours_is_kept() -> None:
    run = moving()
    assert not pauses(list(run.feed(HurryWanted("a", "eve", force=False))))
    assert pauses(stalls(run, 1)) == [0.5]
