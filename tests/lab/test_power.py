"""Hosts that are switched by IPMI, with ipmitool and a controller that speaks the real protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from balancerd.adapters.power import Commands, ExecPower
from balancerd.core.model import PowerState
from balancerd.ports import PowerError
from tests.lab.rig import Rig
from tests.lab.rig.bmc import PASSWORD, Bmc
from tests.lab.test_libvirt_adapter import until

NAME = "h3"


@pytest.fixture
def bmc(rig: Rig, tmp_path: Path) -> Iterator[Bmc]:
    with Bmc(rig.host(NAME), tmp_path) as bmc:
        until(lambda: power(bmc).state(NAME) is PowerState.ON, 30, "the controller answers")
        yield bmc


def power(bmc: Bmc, password: str = PASSWORD, timeout: float = 15.0) -> ExecPower:
    on, off, state = (bmc.command(word, password=password) for word in ("on", "soft", "status"))
    return ExecPower({NAME: Commands(on, off, state, timeout)})


def test_a_host_is_put_to_sleep_and_woken_and_its_state_is_told(rig: Rig, bmc: Bmc) -> None:
    driver, host = power(bmc), rig.host(NAME)
    driver.sleep(NAME)
    until(lambda: driver.state(NAME) is PowerState.OFF, 30, "it is off")
    assert not host.is_on()
    driver.wake(NAME)
    until(lambda: driver.state(NAME) is PowerState.ON, 60, "it is on")
    assert host.ask(lambda connection: connection.getHostname()) == NAME


def test_a_host_is_woken_by_a_packet_on_its_own_cable(rig: Rig) -> None:
    """One that has no controller, by wakeonlan. Dies if the command does not run as it is given."""
    layout, index = rig.layout, rig.host(NAME).index
    mac = layout.mac("mgmt", index)
    broadcast = layout.address("mgmt", 0).rpartition(".")[0] + ".255"
    magic = b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16
    nothing = ("true",)
    commands = Commands(("wakeonlan", "-i", broadcast, mac), nothing, nothing)
    with rig.host(NAME).listen("mgmt", magic) as wire:
        ExecPower({NAME: commands}).wake(NAME)
        assert wire.stop().hits == 1


def test_a_controller_that_says_yes_and_does_nothing_leaves_the_host_on(rig: Rig, bmc: Bmc) -> None:
    """Dies if a yes counts as done: only the state does."""
    driver = power(bmc)
    bmc.turn_deaf()
    driver.sleep(NAME)
    time.sleep(1)
    assert driver.state(NAME) is PowerState.ON
    assert rig.host(NAME).is_on()


def test_a_wrong_password_is_told_and_never_shown(rig: Rig, bmc: Bmc) -> None:
    driver = power(bmc, password="wrong-word")
    assert driver.state(NAME) is PowerState.UNKNOWN
    with pytest.raises(PowerError) as told:
        driver.sleep(NAME)
    assert "Unable to establish IPMI v2" in str(told.value)
    assert "wrong-word" not in str(told.value)
    assert rig.host(NAME).is_on()


def test_a_silent_controller_is_given_up_in_time_and_nothing_is_left_of_the_question(
    rig: Rig, bmc: Bmc
) -> None:
    driver = power(bmc, timeout=1.0)
    bmc.freeze()
    assert driver.state(NAME) is PowerState.UNKNOWN
    with pytest.raises(PowerError, match="did not end in 1 s"):
        driver.sleep(NAME)
    names = [child.name() for child in psutil.Process().children(recursive=True)]
    assert "ipmitool" not in names
    assert rig.host(NAME).is_on()
