"""The loop on a small simulated site with a real ledger: what it keeps, refuses and repeats."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sim.scenario import Fault, FaultKind
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.adapters.sqlite.values import Values
from balancerd.core.model import Snapshot
from balancerd.core.observation import Observation
from balancerd.core.outcome import Outcome
from balancerd.core.past.breakers import RULES, Scope
from balancerd.core.past.history import History
from balancerd.core.past.record import (
    Conclusion,
    Intent,
    IntentKind,
    Pause,
    PlanState,
    Request,
    Verb,
)
from balancerd.core.plan import Plan
from balancerd.core.planner import plan
from balancerd.core.policies.policy import Policy
from balancerd.loop import TOO_LATE, Loop
from balancerd.ports import LedgerError, nothing
from tests.worlds import a_site


class FullDisk(Ledger):
    """A ledger whose writes fail while `full`, as on a disk without room."""

    full = False
    closed = False  # takes no intent, as under a pause, and says nothing of one

    def intend(self, intent: Intent) -> int | None:
        self._write()
        return None if self.closed else super().intend(intent)

    def conclude(self, conclusion: Conclusion) -> None:
        self._write()
        super().conclude(conclusion)

    def record_event(self, at: float, kind: str, subject: str, detail: str) -> None:
        self._write()
        super().record_event(at, kind, subject, detail)

    def set_plan_state(self, plan: int, state: PlanState, at: float, detail: str) -> None:
        self._write()
        super().set_plan_state(plan, state, at, detail)

    def answer(self, request: int, at: float, accepted: bool, detail: str) -> None:
        self._write()
        super().answer(request, at, accepted, detail)

    def _write(self) -> None:
        if self.full:
            raise LedgerError("ledger.db: database or disk is full")


class Hanging(World):
    """A world in which the next look takes five seconds, as a host begins to hang. What the others
    say is from the first of them, or from the last."""

    hangs = late = False
    between: Callable[[], object] = staticmethod(nothing)  # what others do in the third of them

    def observe(self, meanwhile: Callable[[], None] = nothing) -> Observation:
        seen, seconds = super().observe(), 5 if self.hangs else 0
        self.hangs = False
        for second in range(seconds):
            self.advance(self.now() + 1.0)
            if second == 2:
                self.between()
            meanwhile()
        return super().observe() if self.late else seen


def a_policy(**changes: Any) -> Policy:
    """Decides at the third cycle: hosts are known after one reading, loads after two."""
    fields: dict[str, Any] = {
        "summary": "test",
        "name": "test",
        "mode": "act",
        "objective": "quiet",
        "detection": {"window": 60.0, "warm_up": 30.0, "trusted_after": 0.0},
        "capacity": {"memory_reserve_share": 0.0},
        "limits": {"bandwidth": 10, "stall": 600.0, "deadline": 3600.0},
    }
    return Policy.model_validate(fields | changes)


class Site:
    """A world of three hosts with both VMs on the first, its record, and a loop over them."""

    def __init__(self, directory: Path) -> None:
        self.world = Hanging(a_site(demand=[[2.0, 2.0]]))
        self.ledger = FullDisk(directory / "ledger.db")
        self.samples = SamplesStore(directory / "samples.db", durable=False)
        self.policy = a_policy()
        self.begin_again()

    def begin_again(self) -> None:
        """A new process on the same record."""
        self.loop = Loop(
            self.world,
            self.world,
            self.ledger,
            self.samples,
            self.world,
            lambda: self.policy,
            self.world.site.links,
        )

    def cycles(self, count: int, seconds: float = 60.0) -> str:
        """So many cycles; the last one's sentence."""
        sentence = ""
        for _ in range(count):
            sentence = self.loop.cycle().sentence
            self.world.advance(self.world.now() + seconds)
            self.loop.step()
        return sentence

    def migrations(self) -> list[Any]:
        """Vm and outcome of every migration on record, oldest first."""
        rows = self.ledger.database.rows("SELECT vm, outcome FROM migrations ORDER BY id")
        return [tuple(row) for row in rows]

    def leave(self, verb: Verb, subject: str) -> int:
        """Leave a request for the loop."""
        asked = Request(0, self.world.now(), verb, subject, "eve")
        return operator.ask(self.ledger.database, asked)

    def ask(self, verb: Verb, subject: str) -> tuple[bool, str]:
        """Leave a request, let the loop see it, and read the answer."""
        number = self.leave(verb, subject)
        self.loop.step()
        row = self.ledger.database.row(
            "SELECT accepted, answer FROM requests WHERE id = ?", (number,)
        )
        assert row is not None
        return bool(row[0]), str(row[1])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with made.ledger, made.samples:
        made.loop.start()
        yield made


def test_an_overloaded_host_is_relieved_and_the_end_is_recorded_once(site: Site) -> None:
    site.cycles(8)
    assert [outcome for _, outcome in site.migrations()] == ["done"]
    assert len({site.world.running(vm) for vm in ("v0", "v1")}) == 2


def test_what_cannot_be_recorded_is_not_done(site: Site) -> None:
    """Dies when an intent that failed to be written is taken for one that was."""
    site.ledger.full = True
    site.cycles(6)
    assert site.world.migrating() == 0
    assert not site.migrations()
    site.ledger.full = False
    site.cycles(6)
    assert [outcome for _, outcome in site.migrations()] == ["done"]


def test_an_intent_that_is_not_taken_is_tried_again_but_not_for_ever(site: Site) -> None:
    """Hangs, and is killed, when a refused start goes back to waiting and is tried at once."""
    site.ledger.closed = True
    site.cycles(6)
    assert site.migrations() == []
    site.ledger.closed = False
    site.world.advance(site.world.now() + 2.0)
    site.loop.step()
    assert site.world.migrating() == 1


def test_an_end_that_could_not_be_recorded_is_recorded_later(site: Site) -> None:
    """Dies when the executor forgets a conclusion that the ledger refused."""
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    site.ledger.full = True
    site.cycles(4)
    assert [outcome for _, outcome in site.migrations()] == ["under way"]
    site.ledger.full = False
    site.cycles(1)
    assert [outcome for _, outcome in site.migrations()] == ["done"]


def test_a_broken_ledger_freezes_but_does_not_blind(site: Site) -> None:
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    site.ledger.full = True
    site.world.advance(site.world.now() + 200)
    cycle = site.loop.cycle()
    assert "disk is full" in cycle.frozen
    assert cycle.vms == 2


def test_a_full_disk_is_told_once_however_long_and_whatever_is_wanted_meanwhile(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Dies when each cycle, each step, or each try to do something says it anew."""
    caplog.set_level("INFO", "balancerd")
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    (vm,) = [vm for vm, _ in site.migrations()]
    site.leave(Verb.ABORT, vm)
    site.ledger.full = True
    caplog.clear()
    for _ in range(5):
        site.cycles(1, seconds=2.0)
    assert caplog.messages == [
        "the ledger is broken, nothing will be done: ledger.db: database or disk is full",
        f"{vm} given up: eve wanted it: cannot be recorded, so it is not done",
    ]
    site.ledger.full = False
    caplog.clear()
    site.cycles(3, seconds=2.0)
    assert f"{vm} given up: eve wanted it" in caplog.messages
    assert f"abort {vm} by eve: its source is asked to give up" in caplog.messages
    assert "the ledger is broken, nothing will be done: over" in caplog.messages
    assert site.migrations()[0] == (vm, "aborted")


def test_an_approval_that_cannot_be_recorded_waits_and_is_not_told_that_nothing_waits(
    site: Site,
) -> None:
    """Dies when the plan is taken, or the answer given, before the record has it."""
    site.policy = a_policy(mode="advise")
    site.cycles(6)
    site.leave(Verb.APPROVE, "1")
    site.ledger.full = True
    site.cycles(2, seconds=1.0)
    assert site.world.migrating() == 0
    site.ledger.full = False
    site.cycles(2, seconds=1.0)
    assert site.world.migrating() == 1
    assert [row["answer"] for row in Reader(site.ledger.database).requests()] == [
        "plan 1 is being carried out"
    ]


def test_a_plan_that_ends_while_the_disk_is_full_is_not_open_for_ever(site: Site) -> None:
    """Dies when its end is only tried to be recorded: it stays "running" until the next start."""
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    site.ledger.full = True
    while site.loop.busy():
        site.cycles(1)
    assert site.ledger.open_plans() == (1,)
    site.ledger.full = False
    site.cycles(1)
    assert 1 not in site.ledger.open_plans()


def test_nor_is_one_that_is_dropped_then(site: Site) -> None:
    """Dies when "proposed" stays in the record for a plan that nobody can approve."""
    site.policy = a_policy(mode="advise")
    site.cycles(6)
    site.leave(Verb.REJECT, "1")
    site.ledger.full = True
    site.cycles(1, seconds=1.0)
    site.ledger.full = False
    site.cycles(1, seconds=1.0)
    assert 1 not in site.ledger.open_plans()


def test_a_plan_that_is_carried_out_at_once_was_never_proposed(site: Site) -> None:
    """Dies when it is marked in a second step: where that fails, it waits in the record for an
    approval that would be refused."""
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    found = Values(site.ledger.database).plan(1)
    assert found is not None
    (state,) = found[0]["states"]
    assert (state["state"], state["detail"]) == ("running", f"by policy {site.policy.name}")


def test_observe_never_plans(site: Site) -> None:
    site.policy = a_policy(mode="observe")
    assert site.cycles(6) == "observing"
    assert not site.ledger.database.rows("SELECT * FROM plans")


def test_advise_waits_and_an_approval_lets_it_go_on(site: Site) -> None:
    site.policy = a_policy(mode="advise")
    assert "plan 1 waits for approval" in site.cycles(6)
    assert site.world.migrating() == 0
    assert site.ask(Verb.APPROVE, "2") == (False, "no such plan waits for approval")
    assert site.ask(Verb.APPROVE, "1")[0]
    assert site.world.migrating() == 1


def test_a_rejected_plan_is_gone(site: Site) -> None:
    site.policy = a_policy(mode="advise")
    site.cycles(6)
    assert site.ask(Verb.REJECT, "1")[0]
    assert not site.ask(Verb.APPROVE, "1")[0]


def test_an_approval_of_a_plan_that_was_dropped_is_told_why(site: Site) -> None:
    site.policy = a_policy(mode="advise")
    site.cycles(6)
    site.policy = a_policy()
    site.cycles(1)
    assert site.ask(Verb.APPROVE, "1") == (
        False,
        "plan 1 does not wait any more: the policy acts by itself now",
    )


def test_the_proposal_stays_the_one_the_operator_reads(site: Site) -> None:
    site.policy = a_policy(mode="advise")
    site.cycles(15)
    assert len(site.ledger.database.rows("SELECT * FROM plans")) == 1


def test_a_pause_stops_starts_and_outlives_a_restart(site: Site) -> None:
    operator.begin_pause(site.ledger.database, Pause(site.world.now(), "eve", "test"))
    site.cycles(6)
    site.begin_again()
    site.loop.start()
    site.cycles(6)
    assert site.world.migrating() == 0
    operator.end_pauses(site.ledger.database, site.world.now(), "eve")
    site.cycles(3)
    assert site.migrations()


def test_a_migration_is_taken_up_by_the_next_balancerd(site: Site) -> None:
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    site.begin_again()
    assert "left under way: 1 action" in site.loop.start()
    site.cycles(6)
    assert [outcome for _, outcome in site.migrations()] == ["done"]
    (row,) = site.ledger.database.rows("SELECT adopted FROM migrations")
    assert row[0]


def test_what_an_earlier_balancerd_left_unanswered_is_not_done_to_a_later_migration(
    site: Site,
) -> None:
    """Dies when an abort that came to nothing ends whatever moves the VM next, days later."""
    site.leave(Verb.ABORT, "v0")
    site.leave(Verb.DRAIN, "a1")
    site.begin_again()
    site.loop.start()
    site.cycles(1)
    answers = [row["answer"] for row in Reader(site.ledger.database).requests()]
    assert answers == ["is being drained", TOO_LATE]


def test_a_vm_of_which_nobody_knows_what_came_is_left_where_it_is(site: Site) -> None:
    """Its target is silent; the plans go on without it. Dies when it is planned for like any."""
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    vm, _, target = site.world.ours()[0]
    site.world.strike(Fault(kind=FaultKind.UNREACHABLE, host=target, at=0.0, lasts=3600.0))
    seen: list[Snapshot] = []

    def look(snapshot: Snapshot, policy: Policy, history: History, now: float) -> Plan:
        seen.append(snapshot)
        return plan(snapshot, policy, history, now)

    site.loop._planner = look
    site.policy = a_policy(detection={"unknown_hosts": 1.0})
    site.cycles(10)
    assert site.migrations() == [(vm, "under way")]
    (told,) = (one for one in seen[-1].exclusions if one.vm == vm)
    assert "is not settled" in told.detail


def test_a_restart_remembers_the_demand_of_vms(site: Site) -> None:
    """Dies without the samples being read at the start: both VMs would be strangers for 5 minutes,
    expected at half their size, and the host that is too full would seem to have room."""
    site.policy = a_policy(mode="observe", detection={"warm_up": 30.0, "trusted_after": 300.0})
    site.cycles(12)
    site.begin_again()
    site.loop.start()
    site.cycles(2)
    snapshot = Values(site.ledger.database).snapshot()
    assert snapshot is not None
    assert all(forecast.spread < 0.01 for forecast in snapshot.forecasts.values())


def test_what_a_look_before_a_cycle_reads_is_not_kept_as_samples(site: Site) -> None:
    """The cycle's own readings tell the same, and of the time since."""
    site.policy = a_policy(mode="observe")
    for _ in range(3):
        site.loop.look()
        site.world.advance(site.world.now() + 1.0)
        site.loop.cycle()
        site.world.advance(site.world.now() + 59.0)
    ticks = [at for (at,) in site.samples.database.rows("SELECT at FROM ticks ORDER BY at")]
    assert [at - site.world.now() for at in ticks] == [-179.0, -119.0, -59.0]


def test_an_operator_gives_one_migration_up(site: Site) -> None:
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    ((vm, _),) = site.migrations()
    assert site.ask(Verb.ABORT, vm) == (True, "its source is asked to give up")
    for _ in range(2):  # with the first news of the job, and with that of its end
        site.world.advance(site.world.now() + 5)
        site.loop.step()
    assert site.migrations() == [(vm, "aborted")]
    assert site.ask(Verb.ABORT, vm) == (False, "is not being moved by balancerd")


def test_an_operator_need_not_wait_for_a_host_that_begins_to_hang(site: Site) -> None:
    """Dies when the loop stands still while hosts are waited for."""
    while not site.world.migrating():
        site.cycles(1, seconds=1.0)
    ((vm, _),) = site.migrations()
    site.world.between = lambda: site.leave(Verb.ABORT, vm)
    site.world.hangs, begun = True, site.world.now()
    site.loop.cycle()
    asked, answered = site.ledger.database.rows("SELECT at, answered_at FROM requests")[0]
    assert (asked, answered) == (begun + 3.0, begun + 3.0)
    assert not site.world.migrating()


def test_what_was_begun_while_a_host_was_waited_for_is_not_taken_for_somebody_elses(
    site: Site,
) -> None:
    """Dies when it is asked what we move before hosts are waited for, and not after."""
    site.policy = a_policy(mode="advise")
    site.cycles(3)
    (plan,) = site.ledger.open_plans()
    site.world.between = lambda: site.leave(Verb.APPROVE, str(plan))
    site.world.hangs = site.world.late = True
    site.loop.cycle()
    assert site.world.migrating() == 1
    assert not site.ledger.database.rows("SELECT 1 FROM events WHERE kind = 'veto'")


def test_a_host_is_drained_and_given_back(site: Site) -> None:
    site.policy = a_policy(objective="quiet", thresholds={"cpu": {"overload": 1.0, "release": 0.9}})
    site.cycles(2)
    assert site.ask(Verb.DRAIN, "nowhere") == (False, "no such host")
    assert site.ask(Verb.DRAIN, "a1")[0]
    site.cycles(12)
    assert all("a1" not in site.world.running(vm) for vm in ("v0", "v1"))
    assert site.ask(Verb.UNDRAIN, "a1")[0]
    assert site.ledger.draining() == frozenset()


def test_a_vm_that_an_operator_moved_is_left_alone_and_named_in_the_audit(site: Site) -> None:
    """Dies when only a job that still runs is respected: the next plan would move it back."""
    site.policy = a_policy(mode="observe")
    site.cycles(2)
    site.world.hand.migrate("v0", "a2")
    site.cycles(3)
    deeds = site.ledger.history(site.world.now()).deeds
    assert "from a1 to a2" in deeds["v0"].what
    site.begin_again()
    assert site.ledger.history(site.world.now()).deeds == deeds


def test_an_approval_that_comes_late_starts_nothing_on_what_was_seen_before(site: Site) -> None:
    """Dies when a snapshot never grows too old to act on."""
    site.policy = a_policy(mode="advise")
    assert "plan 1 waits for approval" in site.cycles(6)
    site.world.advance(site.world.now() + site.policy.detection.stale_after + 1.0)
    assert site.ask(Verb.APPROVE, "1")[0]
    assert site.world.migrating() == 0
    site.loop.step()
    assert site.world.migrating() == 1


def test_nothing_is_planned_while_the_site_rests_from_failures(site: Site) -> None:
    """Dies when the site's breaker holds back starts alone: the plan would wait, and grow old."""
    now = site.world.now()
    for n in range(RULES[Scope.SITE].trips):
        intent = Intent(IntentKind.MIGRATE, now, f"g{n}", f"x{n}", target=f"k{n}")
        number = site.ledger.intend(intent)
        assert number is not None
        site.ledger.conclude(Conclusion(number, now, Outcome.FAILED, "test"))
    assert site.cycles(4).startswith("resting until")
    assert not site.ledger.database.rows("SELECT * FROM plans")
