"""The last step before the world: what cannot be recorded is not done; silent is not off."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from balancerd.actuator import Actuator
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.believed import ANOTHERS, BelievedPower
from balancerd.core.executing.messages import (
    AbortMigration,
    Acted,
    Ask,
    Located,
    SetDowntime,
    Settle,
    StartMigration,
    StartRefused,
    SwitchPower,
    Tuned,
)
from balancerd.core.executing.reconcile import Act
from balancerd.core.model import Method, PowerState
from balancerd.core.observation import Presence
from balancerd.ports import LedgerError
from balancerd.recorder import Recorder
from tests.worlds import a_scenario, a_world, live, send

REFUSED = "cannot be recorded, so it is not done"
UNDEFINE = Settle(1, Act.UNDEFINE_TARGET, "v0", "a1", "a2", autostart=False)


class FullAudit(Ledger):
    """A ledger whose audit takes no line while `full`."""

    full = False

    def record_event(self, at: float, kind: str, subject: str, detail: str) -> None:
        if self.full:
            raise LedgerError("ledger.db: database or disk is full")
        super().record_event(at, kind, subject, detail)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FullAudit]:
    with FullAudit(tmp_path / "ledger.db", durable=False) as made:
        yield made


def over(world: World, ledger: Ledger) -> Actuator:
    return Actuator(world, world, Recorder(ledger), world)


def test_no_copy_is_touched_that_the_audit_does_not_tell_of(ledger: FullAudit) -> None:
    """Dies when the act goes on although its line could not be written."""
    world = a_world()
    world.hand.define("v0", "a2")
    ledger.full = True
    assert over(world, ledger).perform(UNDEFINE) == Acted(1, REFUSED)
    assert "a2" in world.copies("v0")
    ledger.full = False
    assert over(world, ledger).perform(UNDEFINE) == Acted(1)
    assert "a2" not in world.copies("v0")


def test_no_longer_pause_is_allowed_that_the_audit_does_not_tell_of(ledger: FullAudit) -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    ledger.full = True
    longer = SetDowntime(1, "v0", "a1", 0.5, "stalled")
    assert over(world, ledger).perform(longer) == Tuned(1, "downtime", REFUSED)


def test_no_migration_is_given_up_that_the_audit_does_not_tell_of(ledger: FullAudit) -> None:
    """Dies when only what starts something is recorded before it is done."""
    world = a_world()
    send(world, "v0", "a1", "a2")
    give_up = AbortMigration(1, "v0", "a1", "stalled")
    ledger.full = True
    over(world, ledger).perform(give_up)
    live(world, 1.0)
    assert world.migrating() == 1
    ledger.full = False
    over(world, ledger).perform(give_up)
    live(world, 1.0)
    assert world.migrating() == 0


def test_what_is_tried_again_and_again_has_one_line_in_the_audit_until_the_next_migration(
    ledger: FullAudit, caplog: pytest.LogCaptureFixture
) -> None:
    """Dies when an act that a host refuses for months is written down every twenty seconds."""
    world = a_world()
    actuator = over(world, ledger)
    for _ in range(3):
        actuator.perform(AbortMigration(1, "v0", "a1", "stalled"))
    told = [row["detail"] for row in Reader(ledger.database).events()]
    assert told == ["given up: stalled"]
    assert len(caplog.messages) == len(set(caplog.messages))
    actuator.perform(StartMigration(1, 1, "v0", "a1", "a2", Method.PRE_COPY, 10**6, 0.1))
    actuator.perform(AbortMigration(1, "v0", "a1", "stalled"))
    assert len(Reader(ledger.database).events()) == 2


class Crossed:
    """A power driver whose commands for one host ask about another, which is off."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wake, self.sleep, self.failures = world.wake, world.sleep, world.failures

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        return dict.fromkeys(hosts, PowerState.OFF)


def test_a_host_that_its_power_driver_does_not_know_is_not_put_to_sleep(ledger: FullAudit) -> None:
    """Dies when the driver is not asked while it can be told that it is wrong: later on, nobody
    could tell a host that is silent from one that is off."""
    world = a_world()
    crossed = Actuator(world, BelievedPower(Crossed(world)), Recorder(ledger), world)
    asleep = crossed.perform(SwitchPower(1, 1, "a3", wake=False))
    assert asleep == StartRefused(1, f"a3: {ANOTHERS}")
    live(world, 600.0)
    assert world.states(["a3"]) == {"a3": PowerState.ON}
    assert crossed.perform(SwitchPower(1, 1, "a3", wake=True)) is None
    assert over(world, ledger).perform(SwitchPower(1, 1, "a3", wake=False)) is None


def test_a_host_that_is_silent_but_not_proven_off_may_have_the_vm(ledger: FullAudit) -> None:
    """Dies when silence alone means that nothing runs there."""
    silent = {"kind": "unreachable", "host": "a2", "at": 0.0, "lasts": 600.0}
    world = a_world(a_scenario(faults=[silent]))
    live(world, 10.0)
    found = over(world, ledger).perform(Ask(1, "v0", "", ("a1", "a2", "a3")))
    assert isinstance(found, Located)
    assert found.location.presence == {
        "a1": Presence.RUNNING,
        "a2": Presence.UNREACHABLE,
        "a3": Presence.ABSENT,
    }
