"""The machine's clock may be set at any time; what is under way must not be taken for another."""

from typing import Any, cast

import pytest

from balancerd import service
from balancerd.adapters.libvirt import HostConfig, LibvirtBackend
from balancerd.core.past.record import Cycle
from balancerd.loop import Loop
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
    busy: bool, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies if a migration may be judged by two clocks, or the old time is kept for ever."""
    machine, nothing = Machine(), cast(Any, None)
    monkeypatch.setattr(service, "CLOCK", machine.clock)
    running = Service(cast(Loop, Occupied(busy=busy)), nothing, nothing, nothing)
    machine.wall -= HOUR
    before = machine.clock.now()
    running.cycle()
    assert machine.clock.now() == (machine.wall if followed else before)


def test_what_hosts_tell_is_stamped_by_the_clock_that_it_is_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies if the adapter asks the machine's clock: all readings would be an hour old."""
    monkeypatch.setattr(CLOCK, "_offset", CLOCK._offset + HOUR)
    with LibvirtBackend([HostConfig("h1", "test:///default")]) as backend:
        seen, where = backend.observe(), backend.locate("test", "", ["h1"])
        said = backend.preflight("test", "", "h1", "h1", cast(Any, None))
    stamps = [seen.at, seen.readings[0].at, where.at, said.at]
    assert stamps == pytest.approx([CLOCK.now()] * len(stamps), abs=60.0)
