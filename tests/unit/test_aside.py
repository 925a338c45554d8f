"""Power beside the loop: a slow command holds up nobody, and a failed order is told once."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from balancerd.adapters.aside import AT_ONCE, PowerAside
from balancerd.core.model import PowerState
from balancerd.ports import PowerError

ON, OFF, UNKNOWN = PowerState.ON, PowerState.OFF, PowerState.UNKNOWN
HUNG = tuple(f"hung{n}" for n in range(AT_ONCE + 4))


class Driver:
    """Orders wait at the gate, and then fail if `error` says so. Of hosts that hang, so do answers,
    which tell what was true when they were asked for."""

    def __init__(self, error: str = "", hanging: Sequence[str] = ()) -> None:
        self.gate, self.error, self.done = threading.Event(), error, list[str]()
        self.hanging, self.now, self.asked = set(hanging), OFF, list[str]()

    def state(self, host: str) -> PowerState:
        self.asked.append(host)
        state = self.now
        if host in self.hanging:
            self.gate.wait(5.0)
        if host == "broken":
            raise ZeroDivisionError(host)
        return state

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
    while time.monotonic() < deadline:
        if hold():
            return True
        time.sleep(0.005)
    return False


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


def test_hosts_that_hang_are_waited_for_once_and_never_hold_up_the_others() -> None:
    """Dies if a slow host is waited for again, or if slow hosts take the places of the others."""
    driver = Driver(hanging=HUNG)
    power = PowerAside(driver, patience=0.3)
    first = power.states(HUNG)
    assert set(first.values()) == {UNKNOWN}
    begun = time.monotonic()
    found = power.states([*HUNG, "h1"])
    assert time.monotonic() - begun < 0.2
    assert found == {**dict.fromkeys(HUNG, UNKNOWN), "h1": OFF}
    driver.gate.set()


def test_an_answer_that_comes_late_counts_once_when_its_host_is_asked_for_again() -> None:
    """Dies if a slow host is never known, or if what it once said counts for ever."""
    driver = Driver(hanging=["h1"])
    power = PowerAside(driver, patience=0.05)
    assert power.states(["h1"]) == {"h1": UNKNOWN}
    driver.gate.set()
    assert eventually(lambda: power.states(["h1"])["h1"] is OFF)
    driver.gate.clear()
    assert eventually(lambda: power.states(["h1"])["h1"] is UNKNOWN)
    assert power.states(["h1"]) == {"h1": UNKNOWN}
    driver.gate.set()


def test_an_answer_that_was_kept_too_long_does_not_count() -> None:
    driver = Driver(hanging=["h1"])
    power = PowerAside(driver, patience=0.05, kept=0.0)
    power.states(["h1"])
    driver.gate.set()
    assert eventually(lambda: not _asking())
    driver.gate.clear()
    assert power.states(["h1"]) == {"h1": UNKNOWN}
    driver.gate.set()


def test_no_state_from_before_an_order_is_believed_after_it() -> None:
    """Dies if a host that was just woken is still told to be off: nothing may run there then."""
    driver = Driver(hanging=["h1"])
    power = PowerAside(driver, patience=0.05)
    power.states(["h1"])
    power.wake("h1")
    driver.now = ON
    driver.gate.set()
    assert eventually(lambda: not _asking())
    assert power.states(["h1"])["h1"] is not OFF
    assert eventually(lambda: power.states(["h1"])["h1"] is ON)


def test_a_host_that_answers_in_time_again_is_waited_for_again() -> None:
    driver = Driver(hanging=["h1"])
    power = PowerAside(driver, patience=0.05)
    power.states(["h1"])
    driver.gate.set()
    driver.hanging.clear()
    assert eventually(lambda: not _asking())
    assert eventually(lambda: power.states(["h1"]) == {"h1": OFF})
    driver.now = ON
    assert eventually(lambda: power.states(["h1"]) == {"h1": ON})
    assert power.states(["h1"]) == {"h1": ON}


def test_a_question_that_breaks_is_an_unknown_state() -> None:
    assert PowerAside(Driver()).states(["broken", "h1"]) == {"broken": UNKNOWN, "h1": OFF}


def test_no_hosts_have_no_states() -> None:
    assert PowerAside(Driver()).states([]) == {}


def _asking() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("power state")]
