"""What the looking verbs say of a record, in every form."""

import csv
import io
import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.cli.errors import Exit
from balancerd.core.files.cluster_file import parse_cluster_file
from tests.records import balancerctl, make_record

LISTINGS = (
    ("hosts",),
    ("vms",),
    ("plan", "list"),
    ("history",),
    ("migrations",),
    ("policy", "keys"),
)
UNITS = re.compile(r"(^|_)(bytes|ms|seconds|reference_cores|bytes_per_s|utilisation|percent)$")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("record")
    make_record(directory)
    return directory


def shown(record: Path, *arguments: str) -> str:
    done = balancerctl(*arguments, record=record)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    return done.stdout


def rows(record: Path, *arguments: str) -> list[dict[str, Any]]:
    found = json.loads(shown(record, *arguments, "-o", "json"))
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("listing", LISTINGS, ids=" ".join)
def test_a_listing_says_the_same_in_every_form(record: Path, listing: tuple[str, ...]) -> None:
    found = rows(record, *listing)
    lines = shown(record, *listing, "-o", "jsonl").splitlines()
    table = list(csv.DictReader(io.StringIO(shown(record, *listing, "-o", "csv"))))
    assert found
    assert [json.loads(line) for line in lines] == found
    assert [list(row) for row in table] == [list(row) for row in found]
    drawn = shown(record, *listing).splitlines()
    assert len(drawn) >= 2 + len(found)
    assert not any("\x1b" in line or line != line.rstrip() for line in drawn)


@pytest.mark.parametrize("listing", LISTINGS, ids=" ".join)
def test_keys_are_snake_case_and_times_have_an_offset(
    record: Path, listing: tuple[str, ...]
) -> None:
    for row in rows(record, *listing):
        for key, value in row.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", key)
            if value is not None and (key == "at" or key.endswith("_at")):
                assert datetime.fromisoformat(value).utcoffset() is not None
            if isinstance(value, float):
                assert UNITS.search(key) or key.startswith("score"), key


def test_hosts_have_a_verdict_and_its_numbers(record: Path) -> None:
    found = {row["name"]: row for row in rows(record, "hosts")}
    assert list(found) == ["h0", "h1", "h2", "h3"]
    asleep = [row for row in found.values() if row["verdict"] == "asleep"]
    assert asleep
    assert all(row["power"] == "off" and row["vms"] == 0 for row in asleep)
    assert sum(row["vms"] for row in found.values()) == 12
    assert found["h0"]["memory_utilisation"] > 0.7


def test_vms_can_be_asked_for_by_host(record: Path) -> None:
    everything = rows(record, "vms")
    on_h0 = rows(record, "vms", "--host", "h0")
    assert [row for row in everything if row["host"] == "h0"] == on_h0
    assert on_h0


def test_a_plan_is_shown_with_all_that_belongs_to_it(record: Path) -> None:
    first = min(row["id"] for row in rows(record, "plan", "list") if row["moves"])
    document = json.loads(shown(record, "plan", "show", str(first), "-o", "json"))
    assert {"moves", "refusals", "certificate", "hosts_before", "score_after"} <= document.keys()
    assert {"vm", "from", "to", "method", "wave", "after"} <= document["moves"][0].keys()
    drawn = shown(record, "plan", "show", str(first))
    move = document["moves"][0]
    assert f"{move['vm']}  {move['from']} → {move['to']}" in drawn
    assert move["reason"] in drawn
    assert "intermediate states keep every rule" in drawn


def test_the_newest_plan_is_shown_unless_told_otherwise(record: Path) -> None:
    newest = max(row["id"] for row in rows(record, "plan", "list"))
    assert json.loads(shown(record, "plan", "show", "-o", "json"))["id"] == newest


def test_migrations_of_one_vm_or_host(record: Path) -> None:
    everything = rows(record, "migrations")
    vm, host = everything[0]["vm"], everything[0]["target"]
    assert all(row["vm"] == vm for row in rows(record, "migrations", "--vm", vm))
    assert rows(record, "migrations", "--host", host) == [
        row for row in everything if host in (row["source"], row["target"])
    ]


def test_since_counts_back_from_the_newest_entry(record: Path) -> None:
    """Also where that was years ago; dies when it counts from now."""
    everything = rows(record, "history", "--limit", "1000")
    newest = datetime.fromisoformat("2026-03-02T00:59:00+00:00")
    ages = [(newest - datetime.fromisoformat(row["at"])).total_seconds() for row in everything]
    span = (min(ages) + max(ages)) / 2
    recent = rows(record, "history", "--limit", "1000", "--since", f"{span:.0f}s")
    assert recent == [row for row, age in zip(everything, ages, strict=True) if age <= round(span)]
    assert 0 < len(recent) < len(everything)
    assert rows(record, "history", "--since", "2026-03-03") == []
    assert rows(record, "history", "--since", "2026-03-02T00:00:00+00:00", "--limit", "1000") == (
        everything
    )


def test_the_export_tells_the_same_story_as_the_listings(record: Path) -> None:
    events = [json.loads(line) for line in shown(record, "export").splitlines()]
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    ended = [event for event in events if event["event"] == "move_end"]
    assert len(ended) == len(rows(record, "migrations"))
    place = {event["vm"]: event["host"] for event in events if event["event"] == "place"}
    place |= {event["vm"]: event["to"] for event in ended if event["outcome"] == "done"}
    assert place == {row["name"]: row["host"] for row in rows(record, "vms")}
    samples = shown(record, "export", "--samples", "--since", "5m").splitlines()
    assert any(json.loads(line)["event"] == "sample" for line in samples)


def test_the_export_has_the_forms_of_a_listing_too(record: Path) -> None:
    events = [json.loads(line) for line in shown(record, "export").splitlines()]
    assert rows(record, "export") == events
    table = list(csv.DictReader(io.StringIO(shown(record, "export", "-o", "csv"))))
    assert [row["event"] for row in table] == [event["event"] for event in events]
    drawn = shown(record, "export", "-o", "table").splitlines()
    assert len(drawn) == 2 + len(events)


def test_a_snapshot_is_a_cluster_file(record: Path) -> None:
    snapshot = parse_cluster_file(shown(record, "snapshot"), "snapshot")
    assert len(snapshot.cluster.vms) == 12
    assert shown(record, "snapshot") == shown(record, "snapshot", "-o", "json")
    assert "12 VMs, 0 of them under way" in shown(record, "snapshot", "-o", "table")
    done = balancerctl("snapshot", "--plan", "99", record=record)
    assert done.returncode == Exit.INVALID
    assert "the snapshot of plan 99 is not kept" in done.stderr


def test_status_of_a_record_nobody_writes(record: Path) -> None:
    done = balancerctl("status", record=record)
    assert done.returncode == Exit.NOT_RUNNING
    assert done.stdout.startswith("balancerd is not running\npolicy     tested: act, pack\n")
    done = balancerctl("status", "-o", "json", record=record)
    assert json.loads(done.stdout)["cycle"]["at"] == "2026-03-02T00:59:00+00:00"


def test_a_clock_that_is_wrong_is_shown_and_told_of_where_it_matters(
    record: Path, tmp_path: Path
) -> None:
    """Dies when a host is blamed whose clock differs by less than VMs may be moved over."""
    shutil.copy(record / "ledger.db", tmp_path)
    with Database(tmp_path / "ledger.db", LEDGER, Access.OWN) as ledger:
        for host, ahead in (("h0", 59.0), ("h1", 300.0), ("h2", -61.0)):
            ledger.execute(
                "UPDATE hosts SET definition = json_set(definition, '$.clock_ahead_seconds', ?)"
                " WHERE name = ?",
                (ahead, host),
            )
    shown = {row["name"]: row["clock_ahead_seconds"] for row in rows(tmp_path, "hosts")}
    assert shown == {"h0": 59.0, "h1": 300.0, "h2": -61.0, "h3": None}
    done = balancerctl("status", "-o", "json", record=tmp_path)
    assert json.loads(done.stdout)["clocks"] == [
        "h1 is 5m ahead (limits.clock_skew)",
        "h2 is 1m1s behind (limits.clock_skew)",
    ]
    assert "clocks     h1 is 5m ahead" in balancerctl("status", record=tmp_path).stdout


def test_a_power_driver_that_is_not_believed_is_told_of_with_what_to_do(
    record: Path, tmp_path: Path
) -> None:
    """Dies when it stands in the log alone: nobody would mend the command."""
    shutil.copy(record / "ledger.db", tmp_path)
    with Database(tmp_path / "ledger.db", LEDGER, Access.OWN) as ledger:
        ledger.execute(
            "UPDATE hosts SET definition = json_set(definition, '$.driver_doubted', json('true'))"
            " WHERE name = 'h1'"
        )
    doubted = {row["name"]: row["driver_doubted"] for row in rows(tmp_path, "hosts")}
    assert doubted == {"h0": False, "h1": True, "h2": False, "h3": False}
    assert "its power driver is not believed (see status)" in shown(tmp_path, "hosts")
    told = balancerctl("status", record=tmp_path).stdout
    assert "power      h1: its power driver said that it is off, and it answered" in told
    assert "see whether power.state in the configuration asks about another machine" in told


def test_an_empty_record_is_told_in_words(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger.db", LEDGER, Access.OWN):
        pass
    assert shown(tmp_path, "hosts") == "no host was seen yet\n"
    assert shown(tmp_path, "migrations") == "no migrations\n"
    assert shown(tmp_path, "migrations", "-o", "json") == "[]\n"
    assert balancerctl("plan", "show", record=tmp_path).returncode == Exit.INVALID
    assert "no plan was made yet" in balancerctl("plan", "show", record=tmp_path).stderr
    assert "none completed yet" in balancerctl("status", record=tmp_path).stdout


def test_looking_changes_nothing(record: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(record, copy)
    before = {path.name: path.read_bytes() for path in copy.glob("*.db")}
    for listing in LISTINGS:
        shown(copy, *listing)
    assert {path.name: path.read_bytes() for path in copy.glob("*.db")} == before


def test_the_audit_is_verified_and_its_first_fault_named(tmp_path: Path) -> None:
    make_record(tmp_path)
    assert "each as it was written" in shown(tmp_path, "audit", "verify")
    with Database(tmp_path / "ledger.db", LEDGER, Access.WRITE) as ledger:
        ledger.execute("DROP TRIGGER events_are_not_changed")
        ledger.execute("UPDATE events SET detail = 'nothing' WHERE id = 2")
    done = balancerctl("audit", "verify", "-o", "json", record=tmp_path)
    assert done.returncode == Exit.FAILED
    assert "event 2" in json.loads(done.stdout)["fault"]
