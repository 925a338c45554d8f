"""The machine's clock may be set at any time; what is under way must not be taken for another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balancerd import service
from balancerd.adapters.libvirt import HostConfig, LibvirtBackend
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.model import Method
from balancerd.core.past.record import Cycle, Intent, IntentKind
from balancerd.service import Service
from balancerd.steady import CLOCK, SteadyClock

HOUR = 3600.0


class Machine:
    """Clocks that stand, until somebody turns them."""

    def __init__(self) -> None:
        self.wall, self.ticks = 1_700_000_000.0, 50.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.ticks)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_clock_that_is_set_shows_only_once_it_is_followed(step: float) -> None:
    """Dies if it is asked in between."""
    machine = Machine()
    begun = machine.clock.now()
    machine.wall += step
    machine.pass_by(5.0)
    assert machine.clock.now() == begun + 5.0
    assert machine.clock.follow() == step
    assert machine.clock.now() == machine.wall


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine whose clock the service goes by."""
    made = Machine()
    monkeypatch.setattr(service, "CLOCK", made.clock)
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", durable=False) as opened:
        yield opened


def a_service(ledger: Ledger, *, busy: bool) -> Service:
    loop: Any = Occupied(busy=busy)
    nothing: Any = None
    return Service(loop, ledger, nothing, nothing)


class Occupied:
    """A loop that has something under way, or not."""

    def __init__(self, *, busy: bool) -> None:
        self._busy = busy

    def busy(self) -> bool:
        return self._busy

    def cycle(self) -> Cycle:
        return Cycle(0.0, 0.0, "", "act", "quiet", "", 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("busy", "followed"), [(True, False), (False, True)])
def test_it_is_followed_only_while_nothing_is_under_way(
    busy: bool, followed: bool, machine: Machine, ledger: Ledger
) -> None:
    """Dies if a migration may be judged by two clocks, or the old time is kept for ever."""
    machine.wall -= HOUR
    before = machine.clock.now()
    a_service(ledger, busy=busy).cycle()
    assert machine.clock.now() == (machine.wall if followed else before)


def test_it_is_not_followed_where_the_next_balancerd_would_not_know(
    machine: Machine, tmp_path: Path
) -> None:
    """Dies if a clock is followed that was not written down: the ledger's disk is full, say."""
    with Ledger(tmp_path / "ledger.db", durable=False) as closed:
        pass
    machine.wall -= HOUR
    before = machine.clock.now()
    a_service(closed, busy=False).cycle()
    assert machine.clock.now() == before


@pytest.mark.parametrize(("open_", "booted"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_the_next_balancerd_counts_on_by_the_clock_of_the_one_that_left_something_under_way(
    step: float,
    open_: bool,
    booted: bool,
    machine: Machine,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies if a clock that is set between two processes makes their migration another's; after a
    boot, and where nothing goes on, only the machine's clock counts."""
    service.take_up_time(ledger)
    if open_:
        ledger.intend(Intent(IntentKind.MIGRATE, machine.clock.now(), "h1", "a", "u", "h2"))
    machine.pass_by(60.0)
    steady = machine.clock.now()
    machine.wall += step
    machine.clock.follow()  # as the clock of another process that begins now
    if booted:
        monkeypatch.setattr(service, "boot_id", lambda: "another boot")
    service.take_up_time(ledger)
    assert machine.clock.now() == (steady if open_ and not booted else machine.wall)


def test_what_hosts_tell_is_stamped_by_the_clock_that_it_is_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies if the adapter asks the machine's clock: all readings would be an hour old."""
    monkeypatch.setattr(CLOCK, "_offset", CLOCK._offset + HOUR)
    with LibvirtBackend([HostConfig("h1", "test:///default")]) as backend:
        seen, where = backend.observe(), backend.locate("test", "", ["h1"])
        said = backend.preflight("test", "", "h1", "h1", Method.PRE_COPY)
    stamps = [seen.at, seen.readings[0].at, where.at, said.at]
    assert stamps == pytest.approx([CLOCK.now()] * len(stamps), abs=60.0)
