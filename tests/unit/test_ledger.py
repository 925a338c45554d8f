"""The ledger: intents, plans, inventory, what operators say, and how it is told again."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sqlite import audit, operator
from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.lessons import PastLessons
from balancerd.adapters.sqlite.maintenance import LedgerRetention
from balancerd.adapters.sqlite.packing import unpack
from balancerd.adapters.sqlite.past import whole_past
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.adapters.sqlite.values import Values
from balancerd.core.lessons import Basis, Lessons
from balancerd.core.model import Method, PowerState, VMState
from balancerd.core.observation import JobProgress, JobReport
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import REMEMBERED, WEEK, PastMove, rests_until
from balancerd.core.past.record import (
    Conclusion,
    Cycle,
    Intent,
    IntentKind,
    Pause,
    PlanState,
    Request,
    Verb,
)
from balancerd.core.past.vetoes import DEED
from balancerd.core.plan import Wake
from balancerd.core.units import DAY, HOUR
from balancerd.ports import LedgerError
from tests.sites import NOW, changed, done, planned, policy, site

CYCLE = Cycle(NOW, 0.5, "nothing to do", "act", "spread", "night", 2, 1, 0, 3, 0)


def migration(vm: str = "a", at: float = NOW, **fields: Any) -> Intent:
    """An intent to move a VM from h1 to h2, with every field filled."""
    filled = Intent(
        IntentKind.MIGRATE,
        at,
        "h1",
        vm,
        uuid=f"uuid of {vm}",
        target="h2",
        method=Method.AUTO_CONVERGE,
        reason="h1 is overloaded",
        bandwidth=100,
        autostart=True,
        target_defined=True,
        predicted_seconds=12.5,
        predicted_bytes=10**10,
        predicted_downtime=0.07,
    )
    return replace(filled, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, site="lab") as opened:
        yield opened


@pytest.fixture
def other(ledger: Ledger) -> Iterator[Database]:
    """The same file as another process has it."""
    with Database(ledger.database.path, LEDGER, Access.WRITE) as opened:
        yield opened


def committed(ledger: Ledger, intent: Intent) -> int:
    number = ledger.intend(intent)
    assert number is not None
    return number


# Intents


def test_an_intent_is_in_the_file_before_its_number_is_given(
    ledger: Ledger, other: Database
) -> None:
    number = committed(ledger, migration())
    assert [row["id"] for row in other.rows("SELECT id FROM open_intents")] == [number]


def test_what_is_recovered_is_what_was_meant_oldest_first(ledger: Ledger, path: Path) -> None:
    first, second, third = (committed(ledger, migration(vm)) for vm in "abc")
    ledger.conclude(Conclusion(second, NOW + 9, Outcome.DONE))
    ledger.database.close()
    with Ledger(path) as reopened:
        assert reopened.recover() == (migration("a", id=first), migration("c", id=third))


def test_power_intents_are_recovered_too(ledger: Ledger) -> None:
    number = committed(ledger, Intent(IntentKind.SLEEP, NOW, "h3", reason="empty"))
    assert ledger.recover() == (Intent(IntentKind.SLEEP, NOW, "h3", reason="empty", id=number),)


def test_an_intent_is_concluded_once(ledger: Ledger) -> None:
    number = committed(ledger, migration())
    ledger.conclude(Conclusion(number, NOW + 9, Outcome.DONE))
    with pytest.raises(LedgerError, match=f"intent {number} is concluded already: done"):
        ledger.conclude(Conclusion(number, NOW + 10, Outcome.FAILED))
    (row,) = Reader(ledger.database).migrations()
    assert row["outcome"] == "done"


def test_what_was_never_meant_cannot_be_concluded(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="there is no intent 7"):
        ledger.conclude(Conclusion(7, NOW, Outcome.DONE))


def test_a_migration_is_told_with_all_that_is_known_of_it(ledger: Ledger) -> None:
    basis = Basis(seconds_factor=2.5, bytes_factor=2.0, link="h1 > r")
    number = committed(ledger, migration(basis=basis))
    progress = JobProgress(100, 60, 40, 2, 3.0, 5.0, 20)
    ledger.record_progress(number, JobReport("a", "h1", "h2", NOW + 3, progress))
    further = replace(progress, processed=80)
    ledger.record_progress(number, JobReport("a", "h1", "h2", NOW + 4, further))
    ledger.record_progress(number, JobReport("a", "h1", "h2", NOW + 5, ended=True))
    row = ledger.database.row("SELECT processed_bytes FROM open_intents")
    assert row is not None and row[0] == 80
    ledger.conclude(
        Conclusion(number, NOW + 9, Outcome.DONE, "both hosts agree", 99, 3, 0.058, 8.5)
    )
    (told,) = Reader(ledger.database).migrations(vm="a", host="h2")
    assert told == {
        "id": number,
        "begun_at": "1970-01-12T13:46:40+00:00",
        "ended_at": "1970-01-12T13:46:49+00:00",
        "vm": "a",
        "source": "h1",
        "target": "h2",
        "method": "auto-converge",
        "outcome": "done",
        "bytes": 99,
        "iterations": 3,
        "downtime_ms": 58.0,
        "seconds": 8.5,
        "predicted_bytes": 10**10,
        "predicted_downtime_ms": 70.0,
        "predicted_seconds": 12.5,
        "predicted_least_seconds": 5.0,
        "predicted_most_seconds": 31.25,
        "predicted_least_bytes": 5 * 10**9,
        "predicted_most_bytes": 2 * 10**10,
        "predicted_least_downtime_ms": 70.0,
        "predicted_most_downtime_ms": 70.0,
        "link": "h1 > r",
        "bandwidth_bytes_per_s": 100,
        "plan": None,
        "action": None,
        "reason": "h1 is overloaded",
        "detail": "both hosts agree",
        "error": "",
        "adopted": False,
    }


BASIS = Basis(model_seconds=10.0, model_bytes=100.0, model_downtime=0.1, link="h1 > r")


def conclude_each(ledger: Ledger, outcome: Outcome, **figures: Any) -> None:
    """Ten migrations of "a" that ended like this."""
    for _ in range(10):
        number = committed(ledger, migration(basis=BASIS))
        ledger.conclude(Conclusion(number, NOW + 9, outcome, **figures))


def test_what_migrations_took_corrects_what_is_expected_after_a_restart_too(
    ledger: Ledger, other: Database
) -> None:
    """Dies if only what this process saw counts, or only what the last one wrote."""
    assert ledger.history(NOW).lessons == Lessons()
    conclude_each(ledger, Outcome.DONE, seconds=20.0, bytes=100, downtime=0.2)
    learned = ledger.history(NOW + 10).lessons
    seconds = learned.correction("seconds", "auto-converge", "h1 > r", "a")
    sent = learned.correction("bytes", "auto-converge", "h1 > r", "a")
    assert seconds.ratio == pytest.approx(2.0, rel=0.1)
    assert sent.ratio == 1.0
    assert PastLessons(other).now() == learned


def test_whoever_asks_why_remembers_what_the_loop_did_at_that_moment(ledger: Ledger) -> None:
    """Dies when he plans without its lessons, and so another plan, or with what came later."""
    before = ledger.history(NOW)
    conclude_each(ledger, Outcome.DONE, seconds=20.0, bytes=100, downtime=0.2)
    ledger.record_event(NOW + 9, DEED, "b", "paused on h1")
    ledger.record_power("h3", PowerState.OFF, NOW + 9)
    assert whole_past(ledger.database, NOW + 10) == ledger.history(NOW + 10)
    assert ledger.history(NOW + 10).moves
    assert whole_past(ledger.database, NOW) == before


@pytest.mark.parametrize(
    ("outcome", "adopted"),
    [(Outcome.FAILED, False), (Outcome.ABORTED, False), (Outcome.DONE, True)],
)
def test_a_migration_that_was_not_seen_from_start_to_end_teaches_nothing(
    ledger: Ledger, outcome: Outcome, adopted: bool
) -> None:
    """Dies if an aborted migration counts as a quick one."""
    ledger.history(NOW)
    conclude_each(ledger, outcome, seconds=1.0, adopted=adopted)
    assert ledger.history(NOW + 10).lessons == Lessons()


# Pauses


def test_once_a_pause_is_committed_anywhere_no_intent_can_be(
    ledger: Ledger, other: Database
) -> None:
    """Kills: a pause read at the beginning of a cycle instead of in the intent's statement."""
    operator.begin_pause(other, Pause(NOW, "ann", "storage work"))
    assert ledger.intend(migration()) is None
    assert ledger.recover() == ()
    assert ledger.pause(NOW) == Pause(NOW, "ann", "storage work")
    assert operator.end_pauses(other, NOW + 1, "ann") == 1
    assert ledger.pause(NOW + 1) is None
    assert ledger.intend(migration()) is not None


def test_a_pause_ends_by_itself_at_its_time(ledger: Ledger) -> None:
    operator.begin_pause(ledger.database, Pause(NOW, "ann", "", until=NOW + 60))
    assert ledger.intend(migration(at=NOW + 59.9)) is None
    assert ledger.intend(migration(at=NOW + 60)) is not None
    assert ledger.pause(NOW + 60) is None


def test_of_several_pauses_the_longest_counts_and_all_end_together(ledger: Ledger) -> None:
    for until in (NOW + 60, None, NOW + 90):
        operator.begin_pause(ledger.database, Pause(NOW, "ann", str(until), until))
    assert ledger.pause(NOW) == Pause(NOW, "ann", "None")
    assert operator.end_pauses(ledger.database, NOW + 1, "ann") == 3
    assert ledger.pause(NOW + 1) is None


def test_a_pause_outlives_the_daemon(ledger: Ledger, path: Path) -> None:
    operator.begin_pause(ledger.database, Pause(NOW, "ann", ""))
    ledger.database.close()
    with Ledger(path) as reopened:
        assert reopened.intend(migration()) is None


# History


def test_history_is_the_same_after_a_restart(ledger: Ledger, path: Path) -> None:
    """Kills: conclusions not added to the moves in memory, or in the order they came."""
    times = {"a": NOW - REMEMBERED + 5, "b": NOW - REMEMBERED - 5, "c": NOW - 10, "d": NOW - 20}
    ledger.history(NOW - REMEMBERED)
    for vm, at in times.items():
        outcome = Outcome.FAILED if vm == "c" else Outcome.DONE
        ledger.conclude(Conclusion(committed(ledger, migration(vm, at - 5)), at, outcome))
    ledger.conclude(
        Conclusion(committed(ledger, Intent(IntentKind.WAKE, NOW, "h3")), NOW, Outcome.DONE)
    )
    for host, power, at in (
        ("h3", PowerState.ON, NOW - 50),
        ("h3", PowerState.OFF, NOW - 40),
        ("h3", PowerState.ON, NOW - 30),
        ("h3", PowerState.SLEEPING, NOW - 20),
    ):
        ledger.record_power(host, power, at)
    live = ledger.history(NOW)
    ledger.database.close()
    with Ledger(path) as reopened:
        assert reopened.history(NOW) == live
    assert live.moves == (
        PastMove("a", "h1", "h2", times["a"], Outcome.DONE, 10**10),
        PastMove("d", "h1", "h2", times["d"], Outcome.DONE, 10**10),
        PastMove("c", "h1", "h2", times["c"], Outcome.FAILED, 10**10),
    )
    assert live.woken == {"h3": NOW - 30}
    assert live.slept == {"h3": NOW - 40}


def test_a_rest_does_not_shrink_while_it_lasts(ledger: Ledger) -> None:
    """Kills: moves of a week ago forgotten, though the rest that counts them is not over: over a
    month that took VMs back to where they came from."""
    limits = policy("spread").limits
    for day in range(7, 0, -1):
        at = NOW - day * DAY + HOUR
        ledger.conclude(Conclusion(committed(ledger, migration(at=at - 5)), at, Outcome.DONE))
    rest = rests_until(list(ledger.history(NOW).moves), limits)
    later = list(ledger.history(NOW + DAY).moves)
    assert rest == later[-1].at + limits.cooldown_max
    assert rests_until(later, limits) == rest


def test_a_migration_that_ended_unseen_sent_what_was_predicted(ledger: Ledger, path: Path) -> None:
    """Kills: unknown bytes counted as none, which stretches a link's budget at every restart."""
    ends = (
        ("seen", Outcome.DONE, 7),
        ("unseen", Outcome.DONE, None),
        ("broken", Outcome.FAILED, None),
        ("refused", Outcome.NOT_STARTED, None),
    )
    ledger.history(NOW - WEEK)
    for vm, outcome, sent in ends:
        intent = committed(ledger, migration(vm, predicted_bytes=100))
        ledger.conclude(Conclusion(intent, NOW, outcome, bytes=sent))
    live = ledger.history(NOW)
    ledger.database.close()
    with Ledger(path) as reopened:
        assert reopened.history(NOW) == live
    assert {move.vm: move.bytes for move in live.moves} == {
        "seen": 7,
        "unseen": 100,
        "broken": 100,
        "refused": 0,
    }


def test_only_a_host_that_was_sent_to_sleep_and_stayed_off_was_put_to_sleep(
    ledger: Ledger,
) -> None:
    """Dies when any host that went off counts, or one that came on again since."""
    for host, at, outcome in (
        ("h1", NOW - 90, Outcome.DONE),
        ("h2", NOW - 90, Outcome.DONE),
        ("h3", NOW - 90, Outcome.FAILED),
    ):
        slept = committed(ledger, Intent(IntentKind.SLEEP, at - 30, host))
        ledger.conclude(Conclusion(slept, at, outcome))
    for host in ("h1", "h2", "h3", "h4"):
        ledger.record_power(host, PowerState.ON, NOW - 200)
        ledger.record_power(host, PowerState.OFF, NOW - 90)
    ledger.record_power("h2", PowerState.ON, NOW - 60)
    ledger.record_power("h2", PowerState.OFF, NOW - 50)
    assert ledger.history(NOW).put_to_sleep == {"h1": NOW - 90}
    assert ledger.history(NOW).slept.keys() == {"h1", "h2", "h3", "h4"}


def test_a_host_that_is_put_to_sleep_is_known_at_once_and_after_a_restart(
    ledger: Ledger,
) -> None:
    """Dies when what is held in memory is not kept up with what is concluded."""
    assert not ledger.history(NOW).put_to_sleep
    for at, outcome in ((NOW - 90, Outcome.FAILED), (NOW - 60, Outcome.DONE)):
        slept = committed(ledger, Intent(IntentKind.SLEEP, at - 30, "h1"))
        ledger.conclude(Conclusion(slept, at, outcome))
    assert ledger.history(NOW).put_to_sleep == {"h1": NOW - 60}
    with Ledger(ledger.database.path) as reopened:
        assert reopened.history(NOW).put_to_sleep == {"h1": NOW - 60}


def test_a_host_that_was_never_off_was_not_woken(ledger: Ledger) -> None:
    """Dies when the first sight of a host counts as its waking: nothing could be put to sleep for
    the first half hour, and after every restart anew."""
    ledger.record_power("h1", PowerState.ON, NOW - 50)
    ledger.record_power("h2", PowerState.OFF, NOW - 50)
    ledger.record_power("h2", PowerState.ON, NOW - 40)
    ledger.record_power("h2", PowerState.ON, NOW - 10)
    assert ledger.history(NOW).woken == {"h2": NOW - 40}


def test_a_clock_that_was_set_back_loses_no_move(ledger: Ledger) -> None:
    ledger.conclude(Conclusion(committed(ledger, migration()), NOW, Outcome.DONE))
    assert len(ledger.history(NOW + 2 * WEEK).moves) == 0
    assert len(ledger.history(NOW + 1).moves) == 1


# Inventory


SITE = site("r1/h1 16c 64G: a 8c 16G, b 1c 1G | h2 16c 64G: c 1c 1G | h3 16c 64G:")


def places(ledger: Ledger) -> list[tuple[Any, ...]]:
    rows = ledger.database.rows("SELECT vm, host, from_at, until_at FROM placements ORDER BY id")
    return [tuple(row) for row in rows]


def test_placements_are_kept_over_time(ledger: Ledger) -> None:
    ledger.record_inventory(SITE)
    snapshot = planned(SITE, policy("spread"))
    moved = replace(done(SITE, snapshot.moves[0]), at=NOW + 60)
    ledger.record_inventory(moved)
    vm, target = snapshot.moves[0].vm, snapshot.moves[0].target
    assert places(ledger)[:2] + places(ledger)[3:] == [
        ("a", "h1", NOW, NOW + 60 if vm == "a" else None),
        ("b", "h1", NOW, NOW + 60 if vm == "b" else None),
        (vm, target, NOW + 60, None),
    ]


def test_what_did_not_change_is_not_written_again(ledger: Ledger) -> None:
    """Kills: writing every host and VM each cycle, which costs a simulated day its speed."""
    ledger.record_inventory(SITE)
    before = ledger.database.connection.total_changes
    ledger.record_inventory(replace(SITE, at=NOW + 60))
    assert ledger.database.connection.total_changes - before == 1  # the newest snapshot


def test_hosts_and_vms_that_go_and_come_back_are_marked(ledger: Ledger) -> None:
    smaller = site("r1/h1 16c 64G: a 8c 16G | h3 16c 64G:", at=NOW + 60)
    for snapshot in (SITE, smaller):
        ledger.record_inventory(snapshot)
    reader = Reader(ledger.database)
    assert [host["name"] for host in reader.hosts()] == ["h1", "h3"]
    assert [vm["name"] for vm in reader.vms()] == ["a"]
    assert list(ledger.known_hosts()) == ["h1", "h3"]
    ledger.record_inventory(replace(SITE, at=NOW + 120))
    assert [host["vms"] for host in reader.hosts()] == [2, 1, 0]
    assert reader.vms()[0]["on_host_since_at"] == "1970-01-12T13:46:40+00:00"


def test_what_went_while_no_balancerd_ran_is_marked_by_the_next(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.record_inventory(SITE)
    with Ledger(path) as ledger:
        ledger.record_inventory(site("r1/h1 16c 64G: a 8c 16G", at=NOW + 60))
        assert list(ledger.known_hosts()) == ["h1"]


def test_known_hosts_are_whole(ledger: Ledger) -> None:
    snapshot = changed(SITE, "h3", power=PowerState.OFF, power_curve=(90.0, 120.0), cores=16)
    ledger.record_inventory(snapshot)
    assert ledger.known_hosts() == snapshot.cluster.hosts


def test_a_host_is_idle_since_it_was_first_seen_without_a_running_vm(
    ledger: Ledger, path: Path
) -> None:
    ledger.record_inventory(SITE)
    assert ledger.history(NOW).idle_since == {"h3": NOW}
    ledger.record_inventory(replace(changed(SITE, vm="c", state=VMState.SHUTOFF), at=NOW + 60))
    assert ledger.history(NOW).idle_since == {"h3": NOW, "h2": NOW + 60}
    off = changed(SITE, "h3", power=PowerState.OFF)
    ledger.record_inventory(replace(off, at=NOW + 120))
    assert ledger.history(NOW).idle_since == {}
    ledger.record_inventory(replace(SITE, at=NOW + 180))
    ledger.database.close()
    with Ledger(path) as reopened:
        assert reopened.history(NOW).idle_since == {"h3": NOW + 180}


def test_inventory_that_was_undone_is_written_again(path: Path) -> None:
    """Kills: believing in memory what the file has lost."""
    with Ledger(path, durable=False) as ledger:
        with pytest.raises(RuntimeError), ledger.batch():
            ledger.record_inventory(SITE)
            raise RuntimeError
        assert places(ledger) == []
        ledger.record_inventory(SITE)
        assert len(places(ledger)) == 3


# Plans


def test_a_plan_comes_back_with_its_snapshot_and_its_states(ledger: Ledger) -> None:
    """Kills: any field of a plan that the tables have no column for."""
    ledger.record_policy("tested", 'summary = "x"', NOW)
    plan = planned(SITE, policy("spread"))
    plan = replace(
        plan, actions=(*plan.actions, Wake(len(plan.actions) + 1, "h3", "room", 2, (1,)))
    )
    assert plan.moves and plan.assessments and plan.certificate
    number = ledger.record_plan(plan, SITE, PlanState.PROPOSED)
    assert ledger.open_plans() == (number,)
    ledger.set_plan_state(number, PlanState.RUNNING, NOW + 1, "approved by ann")
    ledger.set_plan_state(number, PlanState.DONE, NOW + 9, "")
    assert ledger.open_plans() == ()
    reader = Reader(ledger.database)
    found = Values(reader.database).plan(number)
    assert found is not None
    row, read = found
    assert read == plan
    assert [state["state"] for state in row["states"]] == ["proposed", "running", "done"]
    assert Values(reader.database).snapshot(number) == SITE
    assert reader.plans()[0]["moves"] == len(plan.moves)
    assert reader.policy() == ("tested", 'summary = "x"')


def test_every_field_of_a_move_comes_back(ledger: Ledger) -> None:
    plan = planned(SITE, policy("spread"))
    move = replace(
        plan.moves[0],
        number=1,
        wave=3,
        after=(4, 5),
        seconds=1.5,
        bytes=7,
        downtime=0.07,
        score_after=2.5,
        parked=True,
        set_number=4,
    )
    number = ledger.record_plan(replace(plan, actions=(move,)), SITE, PlanState.RUNNING)
    found = Values(ledger.database).plan(number)
    assert found is not None and found[1].moves == (move,)


def test_what_a_plan_says_of_several_hosts_is_kept_once(ledger: Ledger) -> None:
    plan = planned(site("h1 16c 64G: a 8c 16G | h2 16c 64G: | h3 16c 64G:"), policy("spread"))
    ledger.record_plan(plan, SITE, PlanState.DONE)
    row = ledger.database.row("SELECT tables FROM plans")
    assert row is not None
    _, columns = unpack(row["tables"])
    assert columns["hosts_before.row"].tolist() == [0, 1, 1]
    assert columns["hosts_before.vms"].tolist() == [1, 0]
    found = Values(ledger.database).plan(1)
    assert found is not None and found[1].before == plan.before


def test_the_newest_snapshot_is_the_last_one_recorded(ledger: Ledger) -> None:
    reader = Reader(ledger.database)
    assert Values(reader.database).snapshot() is None
    ledger.record_inventory(SITE)
    later = replace(SITE, at=NOW + 60)
    ledger.record_inventory(later)
    assert Values(reader.database).snapshot() == later


def test_a_damaged_document_is_one_sentence(ledger: Ledger) -> None:
    ledger.record_inventory(SITE)
    ledger.database.execute("UPDATE newest_snapshot SET figures = x'00112233'")
    with pytest.raises(LedgerError, match="a document in the ledger is damaged"):
        Values(ledger.database).snapshot()


def test_a_text_of_a_policy_is_kept_once(ledger: Ledger) -> None:
    for at, text in ((NOW, "one"), (NOW + 1, "two"), (NOW + 2, "one")):
        assert ledger.record_policy("p", text, at), "another one is in force now"
        assert not ledger.record_policy("p", text, at)
    rows = ledger.database.rows("SELECT text FROM policies ORDER BY id")
    assert [row["text"] for row in rows] == ["one", "two"]
    assert Reader(ledger.database).policy() == ("p", "one")


# Operators


def test_a_request_is_answered_once(ledger: Ledger, other: Database) -> None:
    asked = Request(0, NOW, Verb.DRAIN, "h1", "ann", {"until": "02:00"})
    number = operator.ask(other, asked)
    assert ledger.requests() == (replace(asked, id=number),)
    ledger.answer(number, NOW + 1, True, "is being drained")  # noqa: FBT003
    assert ledger.requests() == ()
    with pytest.raises(LedgerError, match=f"no request {number} that waits"):
        ledger.answer(number, NOW + 2, False, "no")  # noqa: FBT003
    (row,) = Reader(ledger.database).requests()
    assert (row["accepted"], row["answer"]) == (True, "is being drained")


def test_a_drain_begins_and_ends_once(ledger: Ledger) -> None:
    for draining in (True, True, False, False, True):
        ledger.set_draining("h1", draining, NOW)
    ledger.set_draining("h2", draining=True, at=NOW)
    ledger.set_draining("h2", draining=False, at=NOW)
    assert ledger.draining() == {"h1"}
    rows = ledger.database.rows("SELECT host FROM drains WHERE host = 'h1'")
    assert len(rows) == 2


def test_status_is_the_newest_cycle_and_what_is_open(ledger: Ledger) -> None:
    ledger.record_cycle(replace(CYCLE, at=NOW - 60))
    ledger.record_cycle(CYCLE)
    committed(ledger, migration())
    operator.ask(ledger.database, Request(0, NOW, Verb.ABORT, "a", "ann"))
    ledger.set_draining("h2", draining=True, at=NOW)
    status = Reader(ledger.database).status(NOW)
    assert (status.running, status.cycle, status.pause) == (False, CYCLE, None)
    assert (status.under_way, status.waiting, status.draining) == (1, 1, ("h2",))


def test_the_figures_of_migrations_are_of_those_that_ended_the_newest_first(
    ledger: Ledger,
) -> None:
    """Dies when `report` counts what hosts objected to, or what is still under way."""
    for seconds, outcome in (1.0, Outcome.DONE), (2.0, Outcome.OBJECTED), (3.0, Outcome.FAILED):
        ledger.conclude(Conclusion(committed(ledger, migration()), NOW, outcome, seconds=seconds))
    committed(ledger, migration("b"))
    found = Reader(ledger.database).ends()
    assert [(row["outcome"], row["seconds"]) for row in found] == [("failed", 3.0), ("done", 1.0)]
    whole = Reader(ledger.database).migrations()[-1]
    assert found[-1] == {key: whole[key] for key in found[-1]}


# The audit


def test_every_act_and_every_word_of_an_operator_is_in_the_audit(ledger: Ledger) -> None:
    number = committed(ledger, migration())
    ledger.conclude(Conclusion(number, NOW, Outcome.DONE))
    operator.begin_pause(ledger.database, Pause(NOW, "ann", "x"))
    operator.end_pauses(ledger.database, NOW, "ann")
    asked = operator.ask(ledger.database, Request(0, NOW, Verb.DRAIN, "h1", "ann"))
    ledger.answer(asked, NOW, True, "")  # noqa: FBT003
    ledger.set_draining("h1", draining=True, at=NOW)
    ledger.record_plan(planned(SITE, policy("spread")), SITE, PlanState.RUNNING)
    ledger.record_event(NOW, "trouble", "h2", "does not answer")
    kinds = [event["kind"] for event in reversed(Reader(ledger.database).events())]
    assert kinds == [
        *("intent", "conclusion", "pause", "resume", "request", "answer", "drain", "plan"),
        "trouble",
    ]
    assert Reader(ledger.database).audit().fault == ""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET detail = 'x' WHERE id = 2",
        "DELETE FROM events WHERE id = 2",
        "INSERT OR REPLACE INTO events VALUES (2, 0.0, 'a', 'b', 'c', 'd')",
    ],
)
def test_the_audit_cannot_be_changed_by_mistake(ledger: Ledger, statement: str) -> None:
    for at in (1, 2, 3):
        ledger.record_event(at, "kind", "subject", "detail")
    with pytest.raises(LedgerError, match="event"):
        ledger.database.execute(statement)
    assert Reader(ledger.database).audit().events == 3


@pytest.mark.parametrize("column", ["at", "kind", "subject", "detail", "hash"])
@pytest.mark.parametrize("event", [1, 3, 5])
def test_a_changed_line_of_the_audit_is_found(ledger: Ledger, column: str, event: int) -> None:
    """Kills: a column left out of what is sealed."""
    for at in range(1, 6):
        ledger.record_event(at, "kind", "subject", "detail")
    ledger.database.execute("DROP TRIGGER events_are_not_changed")
    value = 9.0 if column == "at" else "other"
    ledger.database.execute(f"UPDATE events SET {column} = ? WHERE id = ?", (value, event))
    assert Reader(ledger.database).audit().fault == (
        f"event {event} or the one before it was changed"
    )


@pytest.mark.parametrize("event", [1, 3])
def test_a_missing_line_of_the_audit_is_found(ledger: Ledger, event: int) -> None:
    for at in range(1, 6):
        ledger.record_event(at, "kind", "subject", "detail")
    ledger.database.execute("DROP TRIGGER events_are_not_deleted")
    ledger.database.execute("DELETE FROM events WHERE id = ?", (event,))
    assert Reader(ledger.database).audit().fault == f"event {event} is missing"


@pytest.mark.parametrize("kept", [0, 3])
def test_a_cut_off_end_of_the_audit_is_found(ledger: Ledger, kept: int) -> None:
    """Dies when only what is there is looked at: each of those lines is as it was."""
    for at in range(1, 6):
        ledger.record_event(at, "kind", "subject", "detail")
    kept_elsewhere = Reader(ledger.database).audit().head
    ledger.database.execute("DROP TRIGGER events_are_not_deleted")
    ledger.database.execute("DELETE FROM events WHERE id > ?", (kept,))
    verdict = Reader(ledger.database).audit()
    assert verdict.fault == f"the last line is event {kept}, but event 5 was written"
    assert verdict.head != kept_elsewhere
    ledger.record_event(6, "kind", "subject", "life goes on")
    assert Reader(ledger.database).audit().fault == f"event {kept + 1} is missing"


def test_lines_of_the_audit_in_another_order_are_found(ledger: Ledger) -> None:
    for at in range(1, 6):
        ledger.record_event(at, "kind", "subject", str(at))
    ledger.database.execute("DROP TRIGGER events_are_not_changed")
    for old, new in ((2, -2), (3, 2), (-2, 3)):
        ledger.database.execute("UPDATE events SET id = ? WHERE id = ?", (new, old))
    assert Reader(ledger.database).audit().fault == "event 2 or the one before it was changed"


def test_a_line_that_was_put_in_between_is_found(ledger: Ledger) -> None:
    for at in range(1, 6):
        ledger.record_event(at, "kind", "subject", str(at))
    ledger.database.execute("DROP TRIGGER events_are_not_changed")
    ledger.database.execute("DROP TRIGGER events_are_added_at_the_end")
    for event in (5, 4, 3):
        ledger.database.execute("UPDATE events SET id = id + 1 WHERE id = ?", (event,))
    row = ledger.database.row("SELECT at, kind, subject, hash FROM events WHERE id = 2")
    assert row is not None
    forged = audit.seal(row[3], 3, row[0], row[1], row[2], "it was somebody else")
    ledger.database.execute(
        "INSERT INTO events (id, at, kind, subject, detail, hash) VALUES (3, ?, ?, ?, ?, ?)",
        (row[0], row[1], row[2], "it was somebody else", forged),
    )
    assert Reader(ledger.database).audit().fault == "event 4 or the one before it was changed"


def test_an_end_that_was_written_anew_is_found(ledger: Ledger) -> None:
    """Whole as a chain, and not the one that was written."""
    for at in range(1, 4):
        ledger.record_event(at, "kind", "subject", str(at))
    ledger.database.execute("DROP TRIGGER events_are_not_changed")
    before = ledger.database.row("SELECT hash FROM events WHERE id = 2")
    assert before is not None
    forged = audit.seal(before[0], 3, 3.0, "kind", "subject", "other")
    ledger.database.execute("UPDATE events SET detail = 'other', hash = ? WHERE id = 3", (forged,))
    assert Reader(ledger.database).audit().fault == "event 3 is not the one that was written"


def test_old_lines_go_and_the_chain_still_holds(ledger: Ledger) -> None:
    for at in range(1, 6):
        ledger.record_event(at * DAY, "kind", "subject", str(at))
    audit.prune(ledger.database, 3 * DAY, 9 * DAY)
    verdict = Reader(ledger.database).audit()
    assert (verdict.events, verdict.fault) == (4, "")
    audit.prune(ledger.database, 30 * DAY, 31 * DAY)
    ledger.record_event(32 * DAY, "kind", "subject", "after all the others")
    assert Reader(ledger.database).audit().fault == ""


# Retention, and simulated records


def test_what_is_past_its_retention_goes_and_what_is_open_stays(ledger: Ledger) -> None:
    """Kills: conclusions pruned without their intents, which would then pass for open."""
    plan = planned(SITE, policy("spread"))
    old = ledger.record_plan(plan, SITE, PlanState.RUNNING)
    ledger.set_plan_state(old, PlanState.DONE, NOW, "")
    running = ledger.record_plan(plan, SITE, PlanState.RUNNING)
    ended = committed(ledger, migration("a", plan=old, action=1))
    ledger.conclude(Conclusion(ended, NOW, Outcome.DONE))
    left = committed(ledger, migration("b", plan=running, action=1))
    ledger.record_cycle(replace(CYCLE, plan=running))
    for at, power in ((NOW - 9, PowerState.ON), (NOW - 8, PowerState.OFF), (NOW, PowerState.ON)):
        ledger.record_power("h1", power, at)
    ledger.maintain(NOW + 10 * DAY, LedgerRetention(records=9 * DAY, snapshots=DAY))
    assert [intent.id for intent in ledger.recover()] == [left]
    assert ledger.open_plans() == (running,)
    reader = Reader(ledger.database)
    assert [row["id"] for row in reader.plans()] == [running]
    assert Values(reader.database).snapshot(running) is None
    assert reader.cycles() == []
    assert ledger.history(NOW).woken == {"h1": NOW}
    assert ledger.history(NOW).slept == {"h1": NOW - 8}
    assert reader.audit().fault == ""


def test_a_durable_ledger_takes_no_batch(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="commits every call"), ledger.batch():
        pass


def test_a_refused_call_does_not_undo_the_batch_around_it(path: Path) -> None:
    with Ledger(path, durable=False) as ledger, ledger.batch():
        number = committed(ledger, migration())
        ledger.conclude(Conclusion(number, NOW, Outcome.DONE))
        with pytest.raises(LedgerError):
            ledger.conclude(Conclusion(number, NOW, Outcome.DONE))
    with Ledger(path) as ledger:
        assert ledger.recover() == ()
        assert Reader(ledger.database).audit().events == 2


def test_a_simulated_record_has_its_last_snapshot(path: Path) -> None:
    with Ledger(path, durable=False) as ledger:
        ledger.record_inventory(replace(SITE, at=NOW - 300))
        ledger.record_inventory(SITE)
    with Database(path, LEDGER, Access.READ) as database:
        assert Values(database).snapshot() == SITE


@pytest.mark.parametrize("kept", [True, False])
def test_a_record_to_be_thrown_away_may_leave_out_the_plans_snapshots(
    path: Path, kept: bool
) -> None:
    plan = planned(SITE, policy("spread"))
    with Ledger(path, durable=False, snapshots=kept) as ledger:
        ledger.record_inventory(SITE)
        number = ledger.record_plan(plan, SITE, PlanState.RUNNING)
        assert Values(ledger.database).snapshot(number) == (SITE if kept else None)


def test_views_read_without_the_code(ledger: Ledger, path: Path) -> None:
    """Whoever opens the file with any SQLite tool finds names, times and units."""
    ledger.record_inventory(SITE)
    for vm, outcome in (("a", Outcome.DONE), ("a", Outcome.FAILED), ("b", Outcome.DONE)):
        number = committed(ledger, migration(vm))
        ledger.conclude(Conclusion(number, NOW, outcome, bytes=10, downtime=0.05))
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT vm, migrations, done, failed, bytes FROM moves_by_vm")
    assert rows.fetchall() == [("a", 2, 1, 1, 20), ("b", 1, 1, 0, 10)]
    row = connection.execute("SELECT begun_time, source, target FROM migrations").fetchone()
    assert row == ("1970-01-12T13:46:40+00:00", "h1", "h2")
    assert connection.execute("SELECT name FROM sites").fetchall() == [("lab",)]
    connection.close()


ENDS = ["outcome", "detail", "bytes", "iterations", "downtime_ms", "seconds", "error", "adopted"]


@pytest.mark.parametrize("column", ENDS)
def test_a_changed_figure_of_an_end_is_found(ledger: Ledger, column: str) -> None:
    """Kills: a figure that stands in the table and not in the audit."""
    number = committed(ledger, migration())
    ledger.conclude(Conclusion(number, NOW, Outcome.DONE, "x", 10**9, 4, 0.3, 12.5, "e", 9, 10))
    assert Reader(ledger.database).audit().fault == ""
    value = 1 if column == "adopted" else 7
    ledger.database.execute(f"UPDATE conclusions SET {column} = ?", (value,))
    assert "the end of intent 1 was changed" in Reader(ledger.database).audit().fault


def test_an_end_that_was_taken_away_is_found(ledger: Ledger) -> None:
    number = committed(ledger, migration())
    ledger.conclude(Conclusion(number, NOW, Outcome.DONE))
    ledger.database.execute("DELETE FROM conclusions")
    assert Reader(ledger.database).audit().fault == "the end that event 2 tells of is missing"
