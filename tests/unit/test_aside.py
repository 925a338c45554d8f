"""Power orders beside the loop: a slow command holds up nobody, a failed one is told once."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

import pytest

from balancerd.adapters.aside import PowerAside
from balancerd.core.model import PowerState
from balancerd.ports import PowerError


class Driver:
    """Orders wait at the gate, and then fail if `error` says so."""

    def __init__(self, error: str = "") -> None:
        self.gate, self.error, self.done = threading.Event(), error, list[str]()

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        return dict.fromkeys(hosts, PowerState.ON)

    def wake(self, host: str) -> None:
        self.gate.wait(5.0)
        if self.error:
            raise PowerError(self.error)
        self.done.append(f"wake {host}")

    def sleep(self, host: str) -> None:
        self.gate.wait(5.0)
        raise ZeroDivisionError(host)


def eventually(hold: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 5.0
    while not hold() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(hold())


def test_an_order_returns_before_it_is_carried_out() -> None:
    """Dies when the caller waits: the gate opens only afterwards."""
    driver = Driver()
    PowerAside(driver).wake("h1")
    assert driver.done == []
    driver.gate.set()
    assert eventually(lambda: driver.done == ["wake h1"])


def test_a_failure_is_told_once_with_its_reason() -> None:
    driver = Driver("h1: no such user")
    power, told = PowerAside(driver), dict[str, str]()
    driver.gate.set()
    power.wake("h1")
    assert eventually(lambda: told.update(power.failures()) or told)
    assert told == {"h1": "h1: no such user"}
    assert power.failures() == {}


def test_a_driver_that_breaks_is_told_too() -> None:
    driver = Driver()
    power, told = PowerAside(driver), dict[str, str]()
    driver.gate.set()
    power.sleep("h1")
    assert eventually(lambda: told.update(power.failures()) or told)
    assert "ZeroDivisionError" in told["h1"]


def test_a_host_takes_one_order_at_a_time_and_others_go_on() -> None:
    driver = Driver()
    power = PowerAside(driver)
    power.wake("h1")
    with pytest.raises(PowerError, match="still under way"):
        power.wake("h1")
    power.wake("h2")
    driver.gate.set()
    assert eventually(lambda: len(driver.done) == 2)
    power.wake("h1")
