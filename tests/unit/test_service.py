"""What a service that runs for months has to say."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.config import Retention
from balancerd.core.past.record import Cycle
from balancerd.core.policies.choices import Mode, Objective
from balancerd.core.units import HOUR
from balancerd.ports import LedgerError
from balancerd.service import MAINTENANCE_WAITS, Sayings, Service

PEACE = Cycle(
    at=0.0,
    seconds=0.1,
    sentence="nothing to do: 0 hosts overloaded",
    mode=Mode.ACT,
    objective=Objective.SPREAD,
    window="",
    hosts_on=3,
    hosts_asleep=0,
    hosts_unknown=0,
    vms=2,
    overloaded=0,
    frozen="",
)
BUSY = replace(PEACE, sentence="nothing would help: 1 host overloaded", overloaded=1)


def test_a_host_that_wavers_for_a_day_has_few_lines_in_the_log() -> None:
    """Dies when each change to and fro is told: thousands of lines a day."""
    sayings = Sayings()
    told = [
        sayings.is_new(cycle, 30.0 * number) for number, cycle in enumerate([PEACE, BUSY] * 1440)
    ]
    assert told[:4] == [True, True, False, False]
    assert sum(told) == 2 * 24


def test_what_is_said_of_another_site_is_told_again() -> None:
    sayings = Sayings()
    asleep = replace(PEACE, hosts_asleep=1, hosts_on=2)
    assert [sayings.is_new(cycle, 0.0) for cycle in (PEACE, asleep, asleep, PEACE)] == [
        True,
        True,
        False,
        True,
    ]


def test_a_site_in_peace_has_a_line_an_hour() -> None:
    sayings = Sayings()
    assert [sayings.is_new(PEACE, at) for at in (1.0, HOUR, HOUR + 1.0)] == [True, False, True]


class Busy:
    """A loop that has something under way, or not."""

    def __init__(self) -> None:
        self.is_busy = True

    def busy(self) -> bool:
        return self.is_busy

    def cycle(self) -> Cycle:
        return PEACE


@pytest.fixture
def loop() -> Busy:
    return Busy()


@pytest.fixture
def service(tmp_path: Path, loop: Any) -> Iterator[Service]:
    setup: Any = SimpleNamespace(configuration=SimpleNamespace(retention=Retention()))
    with Ledger(tmp_path / "ledger.db") as ledger, SamplesStore(tmp_path / "samples.db") as samples:
        yield Service(loop, ledger, samples, setup)


def backups(service: Service) -> int:
    return len(list(service.ledger.database.path.parent.glob("backups/*.db")))


def test_maintenance_waits_until_nothing_is_under_way(service: Service, loop: Busy) -> None:
    """Dies when a VM that arrived paused stands still while a record of years is copied."""
    service.maintain_soon()
    service.cycle()
    assert backups(service) == 0
    loop.is_busy = False
    service.cycle()
    assert backups(service) == 1
    assert service.maintenance_due is None


def test_but_not_for_ever(service: Service) -> None:
    """Dies when a site that always moves something is never backed up."""
    service.maintain_soon()
    assert service.maintenance_due is not None
    service.maintenance_due -= MAINTENANCE_WAITS
    service.cycle()
    assert backups(service) == 1


def test_a_ledger_that_cannot_be_copied_is_pruned_all_the_same(service: Service) -> None:
    """Dies when a full disk stays full as there is no room for a backup."""
    service.ledger.record_cycle(replace(PEACE, at=0.0))
    (service.ledger.database.path.parent / "backups").touch()
    with pytest.raises(LedgerError, match="backups"):
        service.ledger.maintain(1e9)
    assert service.ledger.database.rows("SELECT * FROM cycles") == []


def test_one_part_of_maintenance_that_fails_does_not_keep_the_other_from_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: float) -> None:
        raise LedgerError("samples.db: the disk is full")

    monkeypatch.setattr(service.samples, "roll_up", fail)
    service.maintain()
    assert backups(service) == 1
