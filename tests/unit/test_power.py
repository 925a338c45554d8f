"""Power by commands: real ones, small scripts, good and bad."""

import logging
import os
import stat
import time
from pathlib import Path

import pytest

from balancerd.adapters.power import OUTPUT_AT_MOST, Answer, Commands, ExecPower
from balancerd.core.model import PowerState
from balancerd.ports import PowerError

ON, OFF, UNKNOWN = PowerState.ON, PowerState.OFF, PowerState.UNKNOWN


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def power(
    state: str = "echo on", on: str = "true", off: str = "true", timeout: float = 5.0
) -> ExecPower:
    return ExecPower({"h1": Commands(shell(on), shell(off), shell(state), timeout)})


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("echo on", ON),
        ("echo ' OFF since Tuesday'", OFF),
        ("echo on; exit 1", UNKNOWN),
        ("exit 2", UNKNOWN),
        ("echo Chassis Power is on", ON),
        ("echo Chassis Power is off", OFF),
        ("echo h1: off", OFF),
        ("echo off; echo on", OFF),
        ("echo on or off", UNKNOWN),
        ("echo it is on now", UNKNOWN),
        ("echo online", UNKNOWN),
        ("true", UNKNOWN),
        ("printf '\\377\\376'", UNKNOWN),
        ("kill -9 $$", UNKNOWN),
    ],
)
def test_by_output_a_state_is_known_only_from_an_end_of_a_line_and_exit_code_0(
    script: str, state: PowerState
) -> None:
    """Dies when the exit code is not looked at, for a broken script's last word would count; or
    where the words of ipmitool and FreeIPMI are not understood."""
    assert power(script).state("h1") is state


@pytest.mark.parametrize(
    ("script", "state"),
    [("exit 0", ON), ("echo on; exit 2", OFF), ("exit 1", UNKNOWN), ("echo off", ON)],
)
def test_by_exit_code_what_is_printed_does_not_count(script: str, state: PowerState) -> None:
    commands = Commands(shell("true"), shell("true"), shell(script), 5.0, Answer.EXIT_CODE)
    assert ExecPower({"h1": commands}).state("h1") is state


def test_a_host_without_commands_is_unknown_and_cannot_be_switched() -> None:
    driver = ExecPower({})
    assert driver.state("h9") is UNKNOWN
    with pytest.raises(PowerError, match="h9: no power commands are configured"):
        driver.wake("h9")


def test_a_command_is_given_its_words_and_no_shell(tmp_path: Path) -> None:
    """Dies when a shell is between: the semicolon would end the command."""
    script = tmp_path / "record"
    script.write_text(f'#!/bin/sh\necho "$1" > "{tmp_path}/seen"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    words = (str(script), "h1; echo $HOME")
    ExecPower({"h1": Commands(words, words, words)}).wake("h1")
    assert (tmp_path / "seen").read_text() == "h1; echo $HOME\n"


def test_wake_and_sleep_run_their_own_command_and_fail_with_it() -> None:
    driver = power(on="exit 3", off="true")
    driver.sleep("h1")
    with pytest.raises(PowerError, match=r"h1: switch on: /bin/sh ended with 3"):
        driver.wake("h1")


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """Dies when only the command itself is killed: its child writes the file later."""
    late = tmp_path / "late"
    driver = power(on=f"(sleep 0.6; touch {late}) & sleep 60", timeout=0.2)
    begun = time.monotonic()
    with pytest.raises(PowerError, match=r"did not end in 0\.2 s"):
        driver.wake("h1")
    assert time.monotonic() - begun < 5.0
    time.sleep(0.8)
    assert not late.exists()


def test_a_command_that_cannot_be_killed_is_given_up_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies if it is waited for: what sudo runs is another user's, and what hangs in the kernel does
    not end."""

    def refused(_group: int, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refused)
    begun = time.monotonic()
    with pytest.raises(PowerError, match="did not end"):
        power(on="sleep 9", timeout=0.1).wake("h1")
    assert time.monotonic() - begun < 8


def test_a_state_command_that_hangs_is_ended_and_tells_nothing() -> None:
    driver = power("sleep 60", timeout=0.2)
    assert driver.state("h1") is UNKNOWN


def test_a_flood_of_output_is_read_but_not_kept() -> None:
    """Dies when reading stops at the cap: the command would fail, or wait for ever."""
    flood = f"head -c {100 * OUTPUT_AT_MOST} /dev/zero | tr '\\0' x"
    driver = power(on=f"{flood} && exit 7", timeout=10.0)
    with pytest.raises(PowerError, match="ended with 7") as caught:
        driver.wake("h1")
    assert len(str(caught.value)) < 400


def test_a_secret_of_the_command_is_never_told() -> None:
    """Dies when argv or raw output goes into the message."""
    words = ("/bin/sh", "-c", 'echo "bad password $0 for $1" >&2; exit 1', "swordfish", "h1")
    driver = ExecPower({"h1": Commands(words, words, words)})
    with pytest.raises(PowerError, match=r"bad password \*\*\* for h1") as caught:
        driver.wake("h1")
    assert "swordfish" not in str(caught.value)


def test_a_command_that_does_not_exist_is_one_sentence() -> None:
    words = ("/nonexistent/bmc",)
    driver = ExecPower({"h1": Commands(words, words, words)})
    with pytest.raises(PowerError, match="cannot run /nonexistent/bmc: No such file"):
        driver.sleep("h1")


def test_a_lasting_problem_is_logged_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    driver = power(f"test -e {mended} && echo on")
    with caplog.at_level(logging.WARNING):
        driver.state("h1")
        driver.state("h1")
        assert len(caplog.records) == 1
        mended.touch()
        driver.state("h1")
    assert "can be read again" in caplog.records[-1].message


def test_commands_do_not_inherit_the_way_to_the_service_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "NOTIFY_SOCKET", "/run/notify")
    assert power('test -z "$NOTIFY_SOCKET" && echo on').state("h1") is ON
