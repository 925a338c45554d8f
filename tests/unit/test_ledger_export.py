"""The export: one story in the order of time, that a scorer can follow without the ledger."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.export import export
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.core.model import Load, Method, PowerState, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion, Intent, IntentKind, PlanState
from balancerd.core.plan import Move
from tests.sites import NOW, done, planned, policy, site

SITE = site("h1 16c 64G: a 8c 16G, b 1c 1G | h2 16c 64G: c 1c 1G | h3 16c 64G:")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def story(ledger: Ledger, since: float = 0.0) -> list[str]:
    """The events in short, with the seconds since NOW."""
    with Database(ledger.database.path, LEDGER, Access.READ) as database:
        return [told(event) for event in export(database, since)]


def told(event: dict[str, Any]) -> str:
    seconds = event["t"][14:19].replace(":", "")
    match event["event"]:
        case "place":
            return f"{seconds} {event['vm']} on {event['host']}"
        case "move_start":
            return f"{seconds} {event['vm']} {event['from']}>{event['to']}"
        case "move_end":
            return f"{seconds} {event['vm']} {event['outcome']}"
        case "power":
            return f"{seconds} {event['host']} {event['state']}"
        case "plan":
            return f"{seconds} plan {event['id']}"
    return str(event)


def move(vm: str, source: str, target: str) -> Move:
    return Move(1, vm, source, target, Method.PRE_COPY, "")


def begin(ledger: Ledger, vm: str, source: str, target: str, at: float) -> int:
    intent = Intent(IntentKind.MIGRATE, at, source, vm, target=target, method=Method.PRE_COPY)
    number = ledger.intend(intent)
    assert number is not None
    return number


def end(ledger: Ledger, intent: int, at: float, outcome: Outcome = Outcome.DONE) -> None:
    ledger.conclude(Conclusion(intent, at, outcome, bytes=9, downtime=0.05))


def seen(ledger: Ledger, at: float, *moves: Move) -> Snapshot:
    snapshot = replace(done(SITE, *moves), at=at)
    ledger.record_inventory(snapshot)
    return snapshot


PLACES = ["4640 a on h1", "4640 b on h1", "4640 c on h2"]


def test_events_have_the_keys_that_are_fixed(ledger: Ledger, path: Path) -> None:
    ledger.record_inventory(SITE)
    ledger.record_power("h3", PowerState.OFF, NOW + 1)
    number = ledger.record_plan(
        replace(planned(SITE, policy("spread")), at=NOW + 2), SITE, PlanState.RUNNING
    )
    end(ledger, begin(ledger, "a", "h1", "h2", NOW + 3), NOW + 4.5)
    with Database(path, LEDGER, Access.READ) as database:
        events = list(export(database, 0.0))
    move_ = {"vm": "a", "from": "h1", "to": "h2", "method": "pre-copy"}
    assert events[0] == {
        "t": "1970-01-12T13:46:40+00:00",
        "event": "place",
        "vm": "a",
        "host": "h1",
    }
    assert [event["event"] for event in events[1:3]] == ["place", "place"]
    reason = events[4].pop("reason")
    assert reason
    assert events[3:] == [
        {"t": "1970-01-12T13:46:41+00:00", "event": "power", "host": "h3", "state": "off"},
        {"t": "1970-01-12T13:46:42+00:00", "event": "plan", "id": number, "policy": "tested"},
        {"t": "1970-01-12T13:46:43+00:00", "event": "move_start", **move_},
        {
            "t": "1970-01-12T13:46:44.500+00:00",
            "event": "move_end",
            **move_,
            "bytes": 9,
            "downtime_ms": 50.0,
            "seconds": None,
            "outcome": "done",
        },
    ]


def test_a_place_is_told_once_and_then_only_when_no_move_explains_it(ledger: Ledger) -> None:
    """Kills: a place for every arrival, which a scorer would count beside the move."""
    seen(ledger, NOW)
    first = begin(ledger, "a", "h1", "h2", NOW + 1)
    seen(ledger, NOW + 5, move("a", "h1", "h2"))  # before the end is recorded
    end(ledger, first, NOW + 6)
    seen(ledger, NOW + 7, move("a", "h1", "h2"), move("b", "h1", "h3"))  # by the operator
    assert story(ledger) == [
        *PLACES,
        "4641 a h1>h2",
        "4646 a done",
        "4647 b on h3",
    ]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.QUARANTINED])
def test_a_move_that_did_not_end_well_failed(ledger: Ledger, outcome: Outcome) -> None:
    seen(ledger, NOW)
    end(ledger, begin(ledger, "a", "h1", "h2", NOW + 1), NOW + 6, outcome)
    seen(ledger, NOW + 9)
    assert story(ledger) == [*PLACES, "4641 a h1>h2", "4646 a failed"]


def test_a_vm_seen_on_the_target_of_a_failed_move_is_told_there(ledger: Ledger) -> None:
    seen(ledger, NOW)
    first = begin(ledger, "a", "h1", "h2", NOW + 1)
    seen(ledger, NOW + 5, move("a", "h1", "h2"))
    end(ledger, first, NOW + 6, Outcome.ABORTED)
    assert story(ledger) == [*PLACES, "4641 a h1>h2", "4646 a aborted", "4646 a on h2"]


def test_a_move_that_was_not_started_is_no_event(ledger: Ledger) -> None:
    seen(ledger, NOW)
    end(ledger, begin(ledger, "a", "h1", "h2", NOW + 1), NOW + 2, Outcome.NOT_STARTED)
    assert story(ledger) == PLACES


def test_at_one_moment_a_move_ends_before_the_next_of_its_vm_starts(ledger: Ledger) -> None:
    """Virtual clocks put many things at one moment. Kills: ordering by time alone."""
    seen(ledger, NOW)
    end(ledger, begin(ledger, "a", "h1", "h2", NOW + 1), NOW + 5)
    end(ledger, begin(ledger, "a", "h2", "h3", NOW + 5), NOW + 5)
    end(ledger, begin(ledger, "a", "h3", "h1", NOW + 5), NOW + 9)
    assert story(ledger)[3:] == [
        "4641 a h1>h2",
        "4645 a done",
        "4645 a h2>h3",
        "4645 a done",
        "4645 a h3>h1",
        "4649 a done",
    ]


def test_a_power_that_was_told_is_no_news(ledger: Ledger) -> None:
    ledger.record_inventory(SITE)
    for state, at in (("on", 0), ("on", 1), ("off", 2), ("off", 3), ("on", 4)):
        ledger.record_power("h3", PowerState(state), NOW + at)
    assert story(ledger) == [*PLACES, "4640 h3 on", "4642 h3 off", "4644 h3 on"]


def test_at_one_moment_a_host_is_on_before_a_vm_moves_there_and_off_after_it_left(
    ledger: Ledger,
) -> None:
    """Kills: all power before all moves, by which a host goes off with a VM on it."""
    ledger.record_inventory(SITE)
    ledger.record_power("h3", PowerState.ON, NOW + 1)
    intent = begin(ledger, "c", "h2", "h3", NOW + 1)
    end(ledger, intent, NOW + 2)
    ledger.record_power("h2", PowerState.OFF, NOW + 2)
    assert story(ledger)[3:] == ["4641 h3 on", "4641 c h2>h3", "4642 c done", "4642 h2 off"]


def test_a_later_beginning_starts_from_where_everything_was_then(ledger: Ledger) -> None:
    """Kills: places and power at the record's beginning told as those of the export's."""
    seen(ledger, NOW)
    for host, at in (("h3", NOW + 1), ("h2", NOW + 2)):
        ledger.record_power(host, PowerState.OFF, at)
    ledger.record_power("h3", PowerState.ON, NOW + 3)
    end(ledger, begin(ledger, "a", "h1", "h2", NOW + 4), NOW + 5)
    across = begin(ledger, "b", "h1", "h3", NOW + 6)
    seen(ledger, NOW + 7, move("a", "h1", "h2"))
    end(ledger, across, NOW + 9)
    seen(ledger, NOW + 11, move("a", "h1", "h2"), move("b", "h1", "h3"))
    assert story(ledger, NOW + 8) == [
        "4648 a on h2",
        "4648 b on h1",
        "4648 c on h2",
        "4648 h2 off",
        "4648 h3 on",
        "4651 b on h3",
    ]


def test_readings_are_told_when_they_are_asked_for(ledger: Ledger, path: Path) -> None:
    seen(ledger, NOW)
    with SamplesStore(path.parent / "samples.db") as samples:
        samples.append(NOW, {"h1": Load(9.0, 9.0, 5)}, {})
        samples.append(NOW + 60, {}, {"a": Load(8.0, 8.0, 7)})
        with Database(path, LEDGER, Access.READ) as database:
            events = list(export(database, NOW + 1, samples.database))
    assert events[-1] == {
        "t": "1970-01-12T13:47:40+00:00",
        "event": "sample",
        "vm": "a",
        "cpu_reference_cores": 8.0,
        "memory_bytes": 7,
    }
    assert [event["event"] for event in events].count("sample") == 1


def test_the_story_stays_still_while_the_daemon_goes_on(ledger: Ledger, path: Path) -> None:
    seen(ledger, NOW)
    with Database(path, LEDGER, Access.READ) as database:
        events = export(database, 0.0)
        next(events)
        end(ledger, begin(ledger, "a", "h1", "h2", NOW + 1), NOW + 2)
        assert [told(event) for event in events] == PLACES[1:]
