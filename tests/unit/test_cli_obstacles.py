"""`status` names what is left alone just now: vetoes in force, breakers that are open."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.model import Method
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion, Cycle, Intent, IntentKind
from balancerd.core.past.vetoes import DEED
from tests.records import POLICY, balancerctl
from tests.sites import NOW, site

CYCLE = Cycle(NOW, 0.5, "nothing to do", "act", "spread", "", 2, 1, 0, 3, 0)
INTENT = Intent(IntentKind.MIGRATE, 0.0, "h1", vm="a", target="h2", method=Method.PRE_COPY)


@pytest.fixture
def now() -> float:
    return time.time()


@pytest.fixture
def record(tmp_path: Path, now: float) -> Path:
    """A record in which v1 was just moved by somebody, and a move between two hosts failed."""
    with Ledger(tmp_path / "ledger.db", durable=False) as ledger:
        ledger.record_policy("tested", POLICY, now - 900.0)
        ledger.record_event(now - 600.0, DEED, "v1", "moved from h1 to h3")
        ledger.record_event(now - 7200.0, DEED, "v2", "paused on h1")
        number = ledger.intend(replace(INTENT, at=now - 90.0))
        assert number is not None
        ledger.conclude(Conclusion(number, now - 60.0, Outcome.FAILED, "broke off"))
    return tmp_path


def status(record: Path) -> dict[str, Any]:
    found = json.loads(balancerctl("status", "-o", "json", record=record).stdout)
    assert isinstance(found, dict)
    return found


def test_a_veto_is_named_as_long_as_it_is_in_force(record: Path) -> None:
    """One from two hours ago is not: `limits.veto` is an hour."""
    vetoes = status(record)["vetoes"]
    assert [(one["vm"], one["what"]) for one in vetoes] == [("v1", "moved from h1 to h3")]


def test_open_breakers_are_named_with_what_they_are_for(record: Path) -> None:
    breakers = status(record)["open_breakers"]
    assert [(one["scope"], one["name"]) for one in breakers] == [("pair", "h1 > h2")]
    assert breakers[0]["failures"] == 1


def test_who_drains_a_host_means_its_vms(record: Path, now: float) -> None:
    with Ledger(record / "ledger.db", durable=False) as ledger:
        ledger.record_inventory(site("h1 8c 32G | h3 8c 32G: v1 1c 1G", at=now))
        ledger.set_draining("h3", draining=True, at=now)
    assert status(record)["vetoes"] == []


def test_a_person_reads_it_too(record: Path) -> None:
    with Ledger(record / "ledger.db", durable=False) as ledger:
        ledger.record_cycle(CYCLE)
    told = balancerctl("status", record=record).stdout
    assert "vetoes     v1: somebody moved from h1 to h3; left alone until" in told
    assert "resting    pair h1 > h2: failed 1 time; rests until" in told
