"""Hosts' power by commands of the operator's own: one each to switch on, to switch off, to ask.

A command is a list of words, run without a shell. It may hold secrets, so what is logged of it is
its first word, and what it prints is shown only without any word of its own.
"""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import IO

from balancerd.core.model import PowerState
from balancerd.ports import PowerError

LOG = logging.getLogger(__name__)

OUTPUT_AT_MOST = 4096  # bytes that are kept of what a command prints
SECRET_LENGTH = 6  # a word of a command that is as long, or longer, is never shown
CLOSING_SECONDS = 1.0  # for a killed command to let go of its output
NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Answer(StrEnum):
    """How a state command answers."""

    OUTPUT = "output"  # prints a line with "on" or "off" at one of its ends, and exits with 0
    EXIT_CODE = "exit code"  # exits with 0 for on and with 2 for off, as fence agents do


@dataclass(frozen=True, slots=True)
class Commands:
    """One host's commands. Switching on and off: exit code 0 means that it was accepted."""

    on: tuple[str, ...]
    off: tuple[str, ...]  # asks for a graceful shutdown
    state: tuple[str, ...]
    timeout: float = 60.0  # seconds
    answer: Answer = Answer.OUTPUT


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, and the beginning of what it printed."""

    code: int
    output: str
    errors: str


class ExecPower:
    """Power by commands, by host; blocks while one runs. A host without commands is UNKNOWN."""

    def __init__(self, commands: Mapping[str, Commands]) -> None:
        self._commands = dict(commands)
        self._problems: dict[str, str] = {}

    def wake(self, host: str) -> None:
        """Switch a host on; PowerError when the command fails."""
        commands = self._of(host)
        self._order(host, "switch on", commands.on, commands.timeout)

    def sleep(self, host: str) -> None:
        """Ask a host to shut down; PowerError when the command fails."""
        commands = self._of(host)
        self._order(host, "switch off", commands.off, commands.timeout)

    def _of(self, host: str) -> Commands:
        try:
            return self._commands[host]
        except KeyError:
            raise PowerError(f"{host}: no power commands are configured") from None

    def _order(self, host: str, act: str, command: tuple[str, ...], timeout: float) -> None:
        ended = run(host, act, command, timeout)
        if ended.code != 0:
            raise PowerError(_failure(host, act, command, ended))

    def state(self, host: str) -> PowerState:
        """A host's state; UNKNOWN unless the answer is beyond doubt.

        What stands in the way is logged when it changes, not every time.
        """
        try:
            state, problem = self._ask(host), ""
        except PowerError as error:
            state, problem = PowerState.UNKNOWN, str(error)
        if problem != self._problems.get(host, ""):
            LOG.warning("%s", problem or f"{host}: its power state can be read again")
        self._problems[host] = problem
        return state

    def _ask(self, host: str) -> PowerState:
        if host not in self._commands:
            return PowerState.UNKNOWN
        commands = self._commands[host]
        ended = run(host, "ask for the state", commands.state, commands.timeout)
        state = _READ[commands.answer](ended)
        if state is None:
            raise PowerError(_failure(host, "ask for the state", commands.state, ended))
        return state


def _by_output(ended: Ended) -> PowerState | None:
    """By the ends of the first line that is not empty: "Chassis Power is on", "h1: off", "ON"."""
    words = (ended.output.strip().lower().splitlines() or [""])[0].split()
    states = {"on": PowerState.ON, "off": PowerState.OFF}
    found = {states[word] for word in (*words[:1], *words[-1:]) if word in states}
    return found.pop() if ended.code == 0 and len(found) == 1 else None


def _by_exit_code(ended: Ended) -> PowerState | None:
    return {0: PowerState.ON, 2: PowerState.OFF}.get(ended.code)


_READ = {Answer.OUTPUT: _by_output, Answer.EXIT_CODE: _by_exit_code}


def run(host: str, act: str, argv: Sequence[str], timeout: float) -> Ended:
    """Run a command to its end; PowerError when it cannot be started or takes too long.

    It is a session of its own, so that what it started ends with it.
    """
    environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a command"
        raise PowerError(f"{host}: {act}: cannot run {argv[0]}: {reason}") from None
    output, errors = _Kept(process.stdout), _Kept(process.stderr)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        # It may have ended at this very moment, have become another user (sudo), or not let go.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(CLOSING_SECONDS)
        raise PowerError(f"{host}: {act}: {argv[0]} did not end in {timeout:g} s") from None
    finally:
        texts = output.text(), errors.text()
    return Ended(code, *texts)


class _Kept:
    """The beginning of a stream, which is read to its end so that its writer never waits."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream, self._bytes = stream, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._stream as stream:
            while chunk := os.read(stream.fileno(), OUTPUT_AT_MOST):
                self._bytes += chunk[: OUTPUT_AT_MOST - len(self._bytes)]

    def text(self) -> str:
        self._reader.join(CLOSING_SECONDS)
        return self._bytes.decode(errors="replace")


def _failure(host: str, act: str, argv: Sequence[str], ended: Ended) -> str:
    """One sentence on what went wrong, without what may be a secret."""
    said = " ".join((ended.errors.strip() or ended.output.strip()).split())[:200]
    for word in argv[1:]:
        if len(word) >= SECRET_LENGTH and word != host:
            said = said.replace(word, "***")
    reason = f": {said}" if said else ""
    return f"{host}: {act}: {argv[0]} ended with {ended.code}{reason}"
