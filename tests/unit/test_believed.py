"""A power driver is believed only as long as nothing that is seen speaks against it."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.believed import ANOTHERS, BelievedPower
from balancerd.core.model import PowerState
from balancerd.core.policies.tables import Detection
from balancerd.ports import PowerError, nothing
from balancerd.recorder import Recorder
from balancerd.watch import Watch
from tests.worlds import a_scenario, a_site, a_world

ON, OFF, UNKNOWN = PowerState.ON, PowerState.OFF, PowerState.UNKNOWN
HOSTS = ("a1", "a2", "a3")


class Crossed:
    """The world's power driver, whose commands ask about another machine for some hosts."""

    def __init__(self, world: World, **answers: PowerState) -> None:
        self._world, self.answers = world, answers
        self.wake, self.sleep, self.failures = world.wake, world.sleep, world.failures
        self.asked: list[str] = []

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        names = list(hosts)
        self.asked += names
        return {n: self.answers.get(n, state) for n, state in self._world.states(names).items()}


def looked(power: BelievedPower, times: int, *answering: str) -> None:
    for _ in range(times):
        power.compare(answering)


@contextmanager
def watching(world: World, driver: Crossed, place: Path) -> Iterator[tuple[Watch, Ledger]]:
    """A watch over a world and the driver of its hosts' power."""
    with (
        Ledger(place / "ledger.db", durable=False) as ledger,
        SamplesStore(place / "samples.db", durable=False) as samples,
    ):
        yield Watch(world, BelievedPower(driver), Recorder(ledger), samples, ()), ledger


def look(watch: Watch, world: World, times: int) -> None:
    for _ in range(times):
        watch.look(Detection(), set, nothing)
        world.advance(world.now() + 60.0)


def test_a_driver_that_calls_off_what_answers_is_believed_of_it_no_more() -> None:
    """Dies when a host that is silent later on is off because such a driver says so."""
    power = BelievedPower(Crossed(a_world(), a2=OFF))
    assert power.states(["a2"]) == {"a2": OFF}
    looked(power, 4, *HOSTS)
    assert power.states(HOSTS) == {"a1": ON, "a2": UNKNOWN, "a3": ON}
    with pytest.raises(PowerError, match=r"a2: .* another machine"):
        power.sleep("a2")


def test_what_goes_off_after_a_look_is_off() -> None:
    """Dies when a host is doubted that was read, and then switched off at once."""
    driver = Crossed(a_world())
    power = BelievedPower(driver)
    looked(power, 1, *HOSTS)
    driver.answers = {"a2": OFF}
    looked(power, 1, *HOSTS)
    looked(power, 1, "a1", "a3")
    assert power.states(["a2"]) == {"a2": OFF}


def test_a_driver_that_was_mended_is_believed_again() -> None:
    driver = Crossed(a_world(), a2=OFF)
    power = BelievedPower(driver)
    looked(power, 9, *HOSTS)
    assert power.doubted == {"a2"}
    driver.answers = {}
    looked(power, 3, *HOSTS)
    assert power.doubted == set()
    assert power.states(["a2"]) == {"a2": ON}


def test_one_host_is_asked_of_at_each_look_and_a_late_one_twice() -> None:
    """Dies when a slow driver, whose answer comes after it was waited for, is never heard."""
    driver = Crossed(a_world(), a2=UNKNOWN)
    looked(BelievedPower(driver), 5, *HOSTS)
    assert driver.asked == ["a1", "a2", "a2", "a3", "a1"]


def test_where_nobody_answers_nobody_is_asked_of() -> None:
    driver = Crossed(a_world())
    looked(BelievedPower(driver), 2)
    assert driver.asked == []


def test_no_silent_host_is_off_because_a_driver_says_so_that_called_it_off_before(
    tmp_path: Path,
) -> None:
    """Dies when drivers are not held against what is seen."""
    silent = {"kind": "unreachable", "host": "a2", "at": 300.0, "lasts": 600.0}
    world = World(a_site(a_scenario(faults=[silent])))
    with watching(world, Crossed(world, a2=OFF), tmp_path) as (watch, _):
        look(watch, world, 7)
    assert watch.snapshot.cluster.hosts["a2"].power is UNKNOWN
    assert [gap.name for gap in watch.snapshot.gaps] == ["a2"]


def test_a_doubt_is_in_the_audit_and_the_host_not_to_be_put_to_sleep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Dies when plans put such a host to sleep, of which each fails; or when nobody is told, or is
    told at each look."""
    world = a_world()
    driver = Crossed(world, a2=OFF)
    with watching(world, driver, tmp_path) as (watch, ledger), caplog.at_level(logging.INFO):
        look(watch, world, 7)
        a2 = watch.snapshot.cluster.hosts["a2"]
        assert a2.driver_doubted and not a2.may_sleep
        assert Reader(ledger.database).status(world.now()).doubted == ("a2",)
        driver.answers = {}
        look(watch, world, 4)
        assert not watch.snapshot.cluster.hosts["a2"].driver_doubted
        told = [(one["kind"], one["subject"]) for one in Reader(ledger.database).events()]
    assert told == [("trouble over", "a2: power driver"), ("trouble", "a2: power driver")]
    assert caplog.messages == [f"a2: power driver: {ANOTHERS}", "a2: power driver: over"]
