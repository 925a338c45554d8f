"""A VM whose disks nothing locks: it arrives paused, and is resumed once its source is gone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.actuator import Actuator
from balancerd.adapters.sim.scenario import Fault, FaultKind
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.executing.execution import Stage
from balancerd.core.executing.executor import adopt
from balancerd.core.executing.messages import (
    Acted,
    Ask,
    Conclude,
    Intend,
    Intended,
    Located,
    Settle,
    StartMigration,
)
from balancerd.core.executing.reconcile import Act
from balancerd.core.executing.verification import CONFIRMED_AFTER
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import JobReport, Location, Preflight, Presence, Side
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History
from balancerd.core.past.record import Intent, IntentKind
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Methods
from balancerd.loop import Loop
from balancerd.ports import LedgerError
from balancerd.recorder import Recorder
from tests.executions import POLICY, START, P, Run, of, one_move
from tests.worlds import a_scenario, a_world, live, send

FOUND = Preflight("a", START, Side("h1"), Side("h2"), persistent=True)
OPEN = Intent(IntentKind.MIGRATE, START, "h1", "a", "uuid-a", "h2", Method.PRE_COPY, id=7)


def checked(image_locks: bool | None, policy: Policy = POLICY) -> Run:
    """A move that was intended, after its hosts told of its locks."""
    run = one_move(policy)
    run.feed()
    where = Location("a", START, {"h1": P.RUNNING, "h2": P.ABSENT})
    run.feed(Located(1, where, replace(FOUND, image_locks=image_locks)))
    run.feed(Intended(1, 71))
    return run


def arrived(source: Presence = P.ABSENT, target: Presence = P.HANDED_OVER) -> Run:
    """A move without locks whose call returned, and what both hosts say then."""
    run = checked(None)
    run.progress(1000, START + 1)
    report = JobReport("a", "h1", "h2", START + 9, ended=True, downtime=0.1)
    run.feed(report, at=START + 9)
    run.located(1, source, target)
    return run


def adopted(*, hand_over: bool) -> Run:
    """What the next balancerd finds open in the ledger."""
    run = one_move()
    run.execution = adopt([replace(OPEN, hand_over=hand_over)])
    run.feed(at=START + 60)
    assert of(Ask, run.commands)
    return run


def acts(run: Run) -> list[Act]:
    return [command.act for command in run.commands if isinstance(command, Settle)]


@pytest.mark.parametrize(("image_locks", "hand_over"), [(True, False), (None, True)])
def test_only_a_vm_without_locks_is_handed_over_and_its_intent_says_so(
    image_locks: bool | None, hand_over: bool
) -> None:
    """Dies if the start differs from what was announced."""
    run = checked(image_locks)
    (intend,) = (c for c in run.commands if isinstance(c, Intend))
    (start,) = (c for c in run.commands if isinstance(c, StartMigration))
    assert (intend.intent.hand_over, start.hand_over) == (hand_over, hand_over)


def test_a_vm_that_is_handed_over_never_goes_on_in_post_copy() -> None:
    """Dies if policy and tag decide alone: libvirt refuses both at once."""
    run = one_move(POLICY.model_copy(update={"methods": Methods(post_copy=True)}))
    vm = run.view.snapshot.cluster.vms["a"]
    cluster = replace(run.view.snapshot.cluster, vms={"a": replace(vm, tags={"post-copy": "yes"})})
    run.view = replace(run.view, snapshot=replace(run.view.snapshot, cluster=cluster))
    run.feed()
    where = Location("a", START, {"h1": P.RUNNING, "h2": P.ABSENT})
    run.feed(Located(1, where, FOUND))
    run.feed(Intended(1, 71))
    (start,) = (c for c in run.commands if isinstance(c, StartMigration))
    assert (start.method, start.hand_over) == (Method.PRE_COPY, True)
    assert not run.execution.tasks[1].post_copy


def test_it_goes_on_at_once_when_both_hosts_say_that_it_was_handed_over() -> None:
    """Dies if the VM stands still until the same was said twice."""
    run = arrived()
    assert acts(run) == [Act.RESUME_TARGET]
    run.feed(Acted(1), at=START + 9.25)
    assert run.outcome() is Outcome.DONE
    (conclude,) = (c for c in run.commands if isinstance(c, Conclude))
    assert conclude.conclusion.downtime == pytest.approx(0.35), "the wait is part of its pause"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (P.RUNNING_WITH_JOB, P.HANDED_OVER),
        (P.UNREACHABLE, P.HANDED_OVER),
        (P.ABSENT, P.UNREACHABLE),
        (P.ABSENT, P.INCOMING),
        (P.SHUTOFF, P.HANDED_OVER),
        (P.CRASHED, P.HANDED_OVER),
    ],
)
def test_it_stays_paused_while_its_source_is_not_known_to_have_given_it_away(
    source: Presence, target: Presence
) -> None:
    """Dies if the target's word is enough, or a source that ended otherwise."""
    run = arrived(source, target)
    run.feed(at=START + 60)
    run.located(1, source, target)
    assert not acts(run)
    assert run.outcome() is None


def test_a_source_that_went_on_keeps_the_vm_and_the_paused_copy_is_ended() -> None:
    """What came of the fault without locks: two copies ran. Dies if either is resumed."""
    run = arrived(P.RUNNING)
    assert not acts(run), "to be confirmed"
    run.feed(at=START + 10 + CONFIRMED_AFTER)
    run.located(1, P.RUNNING, P.HANDED_OVER)
    assert acts(run) == [Act.DESTROY_TARGET]


def test_what_arrived_while_balancerd_was_dead_is_resumed_by_the_next_one() -> None:
    """Dies if the intent forgets that the VM was to be resumed."""
    run = adopted(hand_over=True)
    run.located(1, P.ABSENT, P.HANDED_OVER)
    run.feed(Acted(1))
    assert (acts(run), run.outcome()) == ([Act.RESUME_TARGET], Outcome.DONE)


def test_a_target_that_forgot_how_the_vm_came_has_it_resumed_all_the_same() -> None:
    """libvirtd started again knows of a paused VM only. Dies if that is taken for a user's."""
    run = adopted(hand_over=True)
    run.located(1, P.ABSENT, P.PAUSED)
    assert acts(run) == [Act.RESUME_TARGET]


@pytest.mark.parametrize("target", [P.HANDED_OVER, P.PAUSED])
def test_a_vm_that_somebody_paused_before_it_left_stays_paused(target: Presence) -> None:
    """Dies if every copy that arrives paused is taken for one that we are to resume."""
    run = adopted(hand_over=False)
    run.located(1, P.ABSENT, target)
    assert not acts(run)
    assert run.outcome() is Outcome.DONE


def test_a_resumption_that_fails_is_tried_again() -> None:
    run = arrived()
    run.feed(Acted(1, "h2: resume: no answer in time"))
    assert run.stage() is Stage.VERIFYING
    run.feed(at=START + 30)
    run.located(1, P.ABSENT, P.HANDED_OVER)
    assert acts(run) == [Act.RESUME_TARGET] * 2


# ---- with the real loop, ledger and simulated hosts ----


class Killed(BaseException):
    """balancerd dies here."""


class Dying(World):
    """A world in which balancerd dies just before it lets an arrived VM go on, while `kills`."""

    kills = 0
    resumed = 0

    def resume_arrived(self, vm: str, host: str) -> None:
        if self.kills:
            self.kills -= 1
            raise Killed
        self.resumed += 1
        super().resume_arrived(vm, host)


class FullAudit(Ledger):
    """A ledger whose audit takes no line of an act upon a copy."""

    def record_event(self, at: float, kind: str, subject: str, detail: str) -> None:
        if kind == "settle":
            raise LedgerError("ledger.db: database or disk is full")
        super().record_event(at, kind, subject, detail)


def one_plan(_: Snapshot, policy: Policy, past: History, now: float) -> Plan:
    """The move of v0 to a2, once."""
    moves = () if past.moves else (Move(1, "v0", "a1", "a2", Method.PRE_COPY, "test"),)
    return Plan(now, policy.name, policy.objective, moves, "test", 1.0, 0.0)


@pytest.fixture
def world() -> Dying:
    return Dying(a_world(a_scenario(migration={"disk_locks": False})).site)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with FullAudit(tmp_path / "ledger.db", durable=False) as made:
        yield made


def lived(world: Dying, ledger: Ledger, samples: SamplesStore, seconds: float) -> None:
    """A balancerd from its start, for so long or until it is killed."""
    rules = Policy.model_validate(
        {"summary": "test", "mode": "act", "detection": {"warm_up": 0.0, "trusted_after": 0.0}}
    )
    loop = Loop(
        world, world, ledger, samples, world, lambda: rules, world.site.links, planner=one_plan
    )
    world.forget()
    loop.start()
    end = world.now() + seconds
    loop.look()
    while world.now() < end:
        world.advance(world.now() + 5.0)
        loop.cycle()


def test_a_balancerd_killed_before_it_resumed_leaves_that_to_the_next_one_which_does_it_once(
    world: Dying, tmp_path: Path
) -> None:
    """Dies if the hand-over is in balancerd's memory only."""
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        SamplesStore(tmp_path / "samples.db") as samples,
    ):
        world.kills = 1
        with pytest.raises(Killed):
            lived(world, ledger, samples, 300.0)
        assert world.running("v0") == ()
        assert world.copies("v0") == {"a2": Presence.HANDED_OVER}
        lived(world, ledger, samples, 60.0)
        assert (world.running("v0"), world.resumed) == (("a2",), 1)
        (moved,) = Reader(ledger.database).migrations(vm="v0")
        assert (moved["outcome"], bool(moved["adopted"])) == ("done", True)
    assert world.violations == []


def test_what_was_announced_is_done_though_its_line_of_the_audit_cannot_be_written(
    world: Dying, ledger: FullAudit
) -> None:
    """Dies if our full disk leaves a VM paused whose resumption is committed with its intent."""
    send(world, "v0", "a1", "a2", hand_over=True)
    live(world, 60.0)
    over = Actuator(world, world, Recorder(ledger), world)
    resume = Settle(1, Act.RESUME_TARGET, "v0", "a1", "a2", autostart=False)
    assert over.perform(resume) == Acted(1, "cannot be recorded, so it is not done")
    assert over.perform(replace(resume, announced=True)) == Acted(1)
    assert world.running("v0") == ("a2",)


def test_no_fault_makes_a_vm_run_twice_that_is_handed_over() -> None:
    """The simulated hosts as the real ones: what runs twice otherwise, waits paused."""
    fault = Fault(kind=FaultKind.MIGRATION_FAILS, phase="gap")
    left = set()
    for seed in range(40):
        world = a_world(a_scenario(migration={"disk_locks": False}, seed=seed, faults=[fault]))
        send(world, "v0", "a1", "a2", hand_over=True)
        live(world, 60.0)
        assert len(world.running("v0")) <= 1
        left.add((world.running("v0"), world.copies("v0").get("a2", P.ABSENT)))
    assert (("a1",), P.HANDED_OVER) in left
