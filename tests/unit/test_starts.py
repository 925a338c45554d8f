"""What keeps an action of a plan from its start, beside what `test_executor` tells of its way."""

from dataclasses import replace

import pytest

from balancerd.core.executing.execution import Stage, Warrant
from balancerd.core.executing.messages import Ask, Intend, Intended, SwitchPower
from balancerd.core.model import Gap, GapKind
from balancerd.core.plan import Sleep, Wake
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.limits import Limits
from balancerd.core.units import GIB
from tests.executions import POLICY, START, Run, move, of, one_move, snapshot, switched_off


def test_a_plan_to_which_nobody_gave_leave_starts_nothing() -> None:
    """Dies when only the policy's mode is asked: it acts by now, but did not when this began."""
    run = one_move()
    run.execution = replace(run.execution, warrant=None)
    run.feed()
    assert run.stage() is Stage.DROPPED
    assert not of(Ask, run.commands)


def test_not_even_an_approved_plan_goes_on_where_the_policy_only_observes() -> None:
    run = one_move()
    run.execution = replace(run.execution, warrant=Warrant("eve", approved=True))
    run.view = replace(run.view, policy=POLICY.model_copy(update={"mode": Mode.OBSERVE}))
    run.feed()
    assert run.stage() is Stage.DROPPED
    assert not of(Ask, run.commands)


def test_two_moves_that_start_at_once_do_not_count_on_the_same_room() -> None:
    """Dies when the gate is not told of what it let through."""
    limits = Limits(per_host=2)
    run = Run(
        move(1, "a", "h1", "h2"),
        move(2, "b", "h1", "h2"),
        a="h1",
        b="h1",
        policy=POLICY.model_copy(update={"limits": limits}),
    )
    cluster = run.view.snapshot.cluster
    vms = {name: replace(vm, memory=30 * GIB) for name, vm in cluster.vms.items()}
    narrow = replace(run.view.snapshot, cluster=replace(cluster, vms=vms))
    run.view = replace(run.view, snapshot=narrow)
    run.feed()
    assert run.stage(1) is Stage.CHECKING
    assert run.stage(2) is Stage.DROPPED


def test_a_move_falls_with_the_one_it_comes_after() -> None:
    """Dies when it waits for ever for what will never be done."""
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h3", "h4", 1), a="h2", b="h3")
    run.feed()
    assert run.stage(1) is Stage.DROPPED
    assert run.stage(2) is Stage.DROPPED
    assert run.execution.tasks[2].detail == "needs the move of a to h2, which was dropped"


def test_a_host_is_not_switched_when_that_cannot_be_announced() -> None:
    """Dies when an intent that was not committed is taken for one that was."""
    run = Run(Wake(1, "h4", "needed"), a="h1")
    run.view = replace(run.view, snapshot=switched_off(run.view.snapshot, "h4"))
    assert len(of(Intend, run.feed())) == 1
    run.view = replace(run.view, paused=True)
    assert run.feed(Intended(1, None)) == ()
    assert run.stage() is Stage.WAITING
    assert not of(SwitchPower, run.commands)


@pytest.mark.parametrize("doubt", ["flight", "gap", "no driver", "driver doubted"])
def test_a_host_is_switched_off_only_where_nothing_speaks_against_it(doubt: str) -> None:
    """Dies when any of the four is not looked at again just before."""
    run = Run(Sleep(1, "h2", "idle"), a="h1")
    seen = run.view.snapshot
    cluster = seen.cluster
    h2 = replace(cluster.hosts["h2"], can_sleep=doubt != "no driver")
    h2 = replace(h2, driver_doubted=doubt == "driver doubted")
    flights = {"a": "h2"} if doubt == "flight" else {}
    gaps = (Gap("host", "h2", GapKind.STALE, "test", START),) if doubt == "gap" else ()
    cluster = replace(cluster, hosts={**cluster.hosts, "h2": h2}, flights=flights)
    run.view = replace(run.view, snapshot=replace(seen, cluster=cluster, gaps=gaps))
    run.feed()
    assert run.stage() is Stage.DROPPED


def test_two_looks_at_an_empty_host_lie_apart() -> None:
    """Dies when any second snapshot will do."""
    run = Run(Sleep(1, "h2", "idle"), a="h1")
    run.feed()
    run.view = replace(run.view, snapshot=snapshot(START + 5, a="h1"), now=START + 5)
    assert run.feed() == ()
    assert run.stage() is Stage.WAITING
