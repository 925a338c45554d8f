"""Telling a daemon what to do: the production loop answers on a simulated site."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.lock import lock
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.cli.errors import Exit
from balancerd.core.past.record import Intent, IntentKind
from balancerd.loop import Loop
from tests.records import POLICY, Done, balancerctl, policy, small_site

ADVISE = POLICY.replace('"act"', '"advise"')


@contextmanager
def daemon(record: Path) -> Iterator[None]:
    """A loop in mode `advise` on the record, a second of its time every 10 ms."""
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=_serve, args=(record, ready, stop))
    thread.start()
    try:
        while not ready.wait(0.1):
            assert thread.is_alive(), "no plan was proposed"
        yield
    finally:
        stop.set()
        thread.join(30)


def _serve(record: Path, ready: threading.Event, stop: threading.Event) -> None:
    site = small_site()
    world = World(site)
    with (
        lock(record),
        Ledger(record / "ledger.db", site="small") as ledger,
        SamplesStore(record / "samples.db") as samples,
    ):
        ledger.record_policy("tested", ADVISE, world.now())
        rules = policy(ADVISE)
        loop = Loop(world, world, ledger, samples, world, lambda: rules, site.links)
        loop.start()
        while "waits for approval" not in loop.cycle().sentence:
            world.advance(world.now() + 60.0)
        ready.set()
        while not stop.wait(0.01):
            world.advance(world.now() + 1.0)
            loop.step()


def rows(record: Path, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        balancerctl(*arguments, "-o", "json", record=record).stdout
    )
    return found


def test_a_plan_that_waits_is_carried_out_once_approved(tmp_path: Path) -> None:
    with daemon(tmp_path):
        (waiting,) = rows(tmp_path, "plan", "list")
        assert waiting["state"] == "proposed"
        assert rows(tmp_path, "migrations") == []
        assert balancerctl("status", record=tmp_path).stdout.startswith("balancerd is running")
        done = balancerctl("approve", str(waiting["id"]), record=tmp_path)
        assert done == Done(Exit.DONE, f"1: plan {waiting['id']} is being carried out\n", "")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not _all_done(tmp_path):
            time.sleep(0.1)
        assert _all_done(tmp_path)
        again = balancerctl("approve", str(waiting["id"]), record=tmp_path)
        assert again.returncode == Exit.REFUSED
        assert "plan 1 does not wait for approval, it is done" in again.stderr


def _all_done(record: Path) -> bool:
    state: str = rows(record, "plan", "list")[0]["state"]
    return state == "done"


def test_what_an_operator_asks_is_answered_and_in_the_audit(tmp_path: Path) -> None:
    with daemon(tmp_path):
        (waiting,) = rows(tmp_path, "plan", "list")
        assert balancerctl("drain", "h3", record=tmp_path).stdout == "h3: is being drained\n"
        assert "draining   h3" in balancerctl("status", record=tmp_path).stdout
        again = balancerctl("drain", "h3", record=tmp_path)
        assert again == Done(Exit.DONE, "h3: is being drained already\n", "")
        assert balancerctl("undrain", "h3", record=tmp_path).stdout == "h3: is in use again\n"
        assert balancerctl("undrain", "h3", record=tmp_path).stdout == "h3: was not being drained\n"
        refused = balancerctl("abort", "vm001", record=tmp_path)
        assert (refused.returncode, refused.stderr) == (
            Exit.REFUSED,
            "balancerctl: abort vm001: is not being moved by balancerd\n",
        )
        rejected = balancerctl("reject", str(waiting["id"]), record=tmp_path)
        assert rejected.returncode == Exit.DONE
    told = rows(tmp_path, "history", "--subject", "h3")
    assert "request 1, drain h3, accepted: is being drained" in {row["detail"] for row in told}
    kinds = [(row["kind"], row["subject"]) for row in rows(tmp_path, "history")]
    assert {("request", "h3"), ("drain", "h3"), ("undrain", "h3"), ("request", "vm001")} <= {*kinds}
    assert rows(tmp_path, "plan", "list")[-1]["state"] == "superseded"


def test_a_request_nobody_answers_is_told_after_the_wait(tmp_path: Path) -> None:
    with daemon(tmp_path):
        pass
    with lock(tmp_path):
        begun = time.monotonic()
        done = balancerctl("drain", "h3", "--wait", "300ms", record=tmp_path)
    assert done.returncode == Exit.NOT_RUNNING
    assert "request 1 (drain h3) is not answered after 300ms; it stays in the ledger" in done.stderr
    assert time.monotonic() - begun < 5


def test_without_a_daemon_nothing_is_left_for_one(tmp_path: Path) -> None:
    with daemon(tmp_path):
        pass
    done = balancerctl("drain", "h3", record=tmp_path)
    assert done.returncode == Exit.NOT_RUNNING
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.requests() == ()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as ledger:
        yield ledger


def begins(ledger: Ledger) -> bool:
    """Whether an act can be begun now."""
    intent = Intent(IntentKind.WAKE, time.time(), "h1")
    return ledger.intend(intent) is not None


def test_nothing_begins_once_pause_has_returned(ledger: Ledger, tmp_path: Path) -> None:
    """The daemon needs not to be asked: it cannot write an intent any more."""
    assert begins(ledger)
    done = balancerctl("pause", "--reason", "switch upgrade", record=tmp_path)
    assert done.stdout == "paused until `balancerctl resume`; migrations under way go on\n"
    assert not begins(ledger)
    told = balancerctl("status", record=tmp_path).stdout
    assert "until resumed: switch upgrade" in told
    assert balancerctl("resume", record=tmp_path).stdout == "resumed\n"
    assert begins(ledger)
    assert balancerctl("resume", record=tmp_path).stdout == "nothing was paused\n"


def test_a_pause_ends_by_itself_when_it_was_given_a_time(ledger: Ledger, tmp_path: Path) -> None:
    assert balancerctl("pause", "--for", "400ms", record=tmp_path).returncode == Exit.DONE
    assert not begins(ledger)
    time.sleep(0.5)
    assert begins(ledger)


def test_the_longest_of_several_pauses_counts(ledger: Ledger, tmp_path: Path) -> None:
    balancerctl("pause", "--for", "2h", record=tmp_path)
    balancerctl("pause", "--for", "300ms", record=tmp_path)
    time.sleep(0.4)
    assert not begins(ledger)
    balancerctl("resume", record=tmp_path)
    assert begins(ledger)
