"""VMs that belong together start all, or none of them does."""

from dataclasses import replace

import pytest

from balancerd.core.executing.execution import Stage
from balancerd.core.executing.messages import Ask, Intended, StartMigration
from balancerd.core.model import Cluster
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.placing.constraints import Gate
from balancerd.core.plan import Move
from balancerd.core.policies.limits import Limits
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB
from tests.executions import POLICY, START, P, Run, move, of
from tests.sites import planned, policy, rule, site

TOGETHER = Policy.model_validate(
    {
        "summary": "test",
        "name": "test",
        "mode": "act",
        "limits": {"per_host": 1, "backoff": 300.0},
        "constraint": [{"kind": "together", "vms": ["a", "b"]}],
    }
)


def member(number: int, vm: str, target: str = "h2") -> Move:
    return replace(move(number, vm, "h1", target), set_number=1)


def a_pair(policy: Policy = TOGETHER) -> Run:
    """Two VMs of one set on h1, on their way to h2."""
    return Run(member(1, "a"), member(2, "b"), a="h1", b="h1", policy=policy)


def committed() -> Run:
    """The hosts said nothing against either of the pair: the first is asked about once more."""
    run = a_pair()
    run.feed()
    run.located(1, P.RUNNING, P.ABSENT)
    run.located(2, P.RUNNING, P.ABSENT)
    return run


def host_with(run: Run, memory: int) -> None:
    """From now on, h2 has so much memory."""
    cluster: Cluster = run.view.snapshot.cluster
    hosts = {**cluster.hosts, "h2": replace(cluster.hosts["h2"], memory=memory)}
    seen = replace(run.view.snapshot, cluster=replace(cluster, hosts=hosts))
    run.view = replace(run.view, snapshot=seen)


def test_all_members_are_asked_about_before_any_starts() -> None:
    run = a_pair()
    assert [command.task for command in run.feed() if isinstance(command, Ask)] == [1, 2]
    run.located(1, P.RUNNING, P.ABSENT)
    assert run.stage(1) is Stage.WAITING
    run.located(2, P.RUNNING, P.ABSENT)
    assert (run.stage(1), run.stage(2)) == (Stage.CHECKING, Stage.WAITING)
    assert not of(StartMigration, run.commands)


def test_once_committed_they_start_one_after_the_other_as_limits_allow() -> None:
    run = committed()
    run.located(1, P.RUNNING, P.ABSENT)
    run.feed(Intended(1, 71))
    run.feed()
    assert (run.stage(1), run.stage(2)) == (Stage.RUNNING, Stage.WAITING)
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    run.located(2, P.RUNNING, P.ABSENT)
    run.feed(Intended(2, 72))
    assert (run.stage(1), run.stage(2)) == (Stage.DONE, Stage.RUNNING)


@pytest.mark.parametrize("refused", [1, 2])
def test_none_starts_where_the_hosts_speak_against_one(refused: int) -> None:
    """Dies if members are not asked about before the first starts."""
    run = a_pair()
    run.feed()
    run.located(3 - refused, P.RUNNING, P.ABSENT)
    run.located(refused, P.RUNNING, P.RUNNING)
    run.feed(Intended(refused, 70))
    assert (run.stage(1), run.stage(2)) == (Stage.DROPPED, Stage.DROPPED)
    assert "belongs with the move of" in run.execution.tasks[3 - refused].detail
    assert not of(StartMigration, run.commands)


def test_none_starts_where_there_is_room_for_one_only() -> None:
    """Dies if members are charged one by one, as they come."""
    run = a_pair()
    host_with(run, 2 * GIB)
    run.feed()
    assert (run.stage(1), run.stage(2)) == (Stage.DROPPED, Stage.DROPPED)


def test_none_starts_while_failures_keep_one_back() -> None:
    """Dies if only the member that is tried is asked for breakers."""
    failed = tuple(
        PastMove("b", "h1", "h3", START - 20.0 + n, Outcome.NOT_STARTED) for n in range(2)
    )
    run = a_pair()
    run.view = replace(run.view, history=History(moves=failed))
    assert run.feed() == ()


def test_what_still_waits_is_dropped_with_a_member_that_did_not_get_there() -> None:
    """Dies without `left_behind`."""
    run = committed()
    run.located(1, P.PAUSED, P.ABSENT)
    assert (run.stage(1), run.stage(2)) == (Stage.DROPPED, Stage.DROPPED)


def test_a_set_that_was_held_up_by_a_pause_is_asked_about_again() -> None:
    """Dies if a clearance never grows old."""
    run = committed()
    run.located(1, P.RUNNING, P.ABSENT)
    run.view = replace(run.view, paused=True)
    run.feed(Intended(1, None))
    later = START + 2 * POLICY.detection.stale_after
    run.view = replace(run.view, paused=False, now=later)
    assert [command.task for command in run.feed() if isinstance(command, Ask)] == [1, 2]
    run.located(1, P.RUNNING, P.ABSENT)
    assert run.stage(1) is Stage.WAITING


def test_moves_of_no_set_do_not_wait_for_each_other() -> None:
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h3", "h4"), a="h1", b="h3")
    run.started(1)
    assert run.stage(2) is Stage.CHECKING


def test_a_group_takes_room_once_however_many_of_it_come() -> None:
    """Dies if the gate charges a whole group with each of its members."""
    run = a_pair(TOGETHER.model_copy(update={"limits": Limits(per_host=2)}))
    host_with(run, 4 * GIB)
    gate = Gate.of(run.view.snapshot, run.view.policy, History(), START)
    for one in (member(1, "a"), member(2, "b")):
        assert gate.refuses(one) is None
        gate.admit(one)
    row = gate.layout.host_row["h2"]
    assert gate.layout.used_count[row] == 2


def test_the_planner_makes_one_set_of_vms_that_move_as_one() -> None:
    """Dies if the moves of one block are planned as if each went alone."""
    crowded = site("h1 4c 32G: a 1.5c 2G, b 1.5c 2G, c 0.2c 2G | h2 8c 32G:")
    made = planned(crowded, policy("spread", rule("together", "a b")))
    numbers = {one.vm: one.set_number for one in made.moves}
    assert numbers.keys() >= {"a", "b"}
    assert numbers["a"] == numbers["b"] > 0
    assert not numbers.get("c")
