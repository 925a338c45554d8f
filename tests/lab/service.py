"""balancerd on the lab's hosts, run as its user would run it: files, a process, balancerctl."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.lab.rig import Rig

CYCLE_SECONDS = 2
_BIN = Path(sys.executable).parent
TABLES = (("migrations",), ("plan", "list"), ("hosts",))  # what tells the story of a test


Band = tuple[float, float, float]  # overload, release, landing
CALM: Band = (0.95, 0.90, 0.85)
# Half-way, as ratios go, between one guest that uses 40 to 50 % of a host's CPU and two: hosts
# share this machine's cores, and TCG's own part differs by machine.
CPU_OF_ONE_GUEST: Band = (0.64, 0.62, 0.60)
# Between one guest of a quarter of a host's memory and two, with 5 % for the host itself. Memory
# does not waver: whatever is not about CPU goes by it.
MEMORY_OF_ONE_GUEST: Band = (0.42, 0.40, 0.38)


def policy(
    objective: str,
    mode: str = "act",
    limits: str = "",
    cpu: Band = CALM,
    memory: Band = CALM,
    steal: float = 1.0,
) -> str:
    """A policy for hosts of one CPU and 2 GiB, with spans short enough for a test.

    That vCPUs wait says something about this machine, and nothing about the lab's hosts: only who
    is about CPU may go by it.
    """
    return f"""
summary = "lab"
mode = "{mode}"
objective = "{objective}"

[thresholds.cpu]
{_band(cpu)}
idle = 0.05

[thresholds.memory]
{_band(memory)}
idle = 0.30

[detection]
window = "6s"
warm_up = "4s"
trusted_after = "20s"
stale_after = "15s"
steal = {steal}

[capacity]
memory_reserve_share = 0.0
spread_factor = 0.0

[limits]
stall = "20s"
{limits}
"""


def _band(band: Band) -> str:
    overload, release, landing = band
    return f"overload = {overload}\nrelease = {release}\nlanding = {landing}"


class Service:
    """One record directory, its configuration, and the process that works on it."""

    def __init__(
        self, rig: Rig, directory: Path, policy_text: str, cycle: float = CYCLE_SECONDS
    ) -> None:
        self.rig, self.cycle = rig, cycle
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.log = directory / "log"
        self.ledger = directory / "state" / "ledger.db"
        (directory / "policy.toml").write_text(policy_text)
        self.configure()

    def configure(self, uris: Mapping[str, str] = {}, *, tls: bool = False) -> None:
        """Write the configuration. `uris`: by host, for those that are not reached by plain TCP;
        their peers reach them by ssh then."""
        hosts = "\n".join(
            f'[[host]]\nname = "{host.name}"\nuri = "{uris.get(host.name, host.uri)}"\n'
            f'migration_uri = "{host.migration_uri}"\n'
            + (f'peer_uri = "{host.peer_ssh_uri}"\n' if host.name in uris else "")
            for host in self.rig.hosts
        )
        (self.directory / "balancerd.toml").write_text(f"""
site = "lab"
state_directory = "state"
policy = "policy.toml"
cycle = "{self.cycle}s"
tls = {str(tls).lower()}

[storage]
shared = ["/lab/shared"]

{hosts}""")

    def start(self) -> None:
        """Start balancerd and wait for its first completed cycle."""
        before = self.cycles()
        self.launch()
        self.until(lambda: self.cycles() > before, 120, "first cycle")

    def launch(self, terminal: int | None = None) -> None:
        """Start balancerd; `terminal`: the one it is started from, by its file descriptor."""
        command = [str(_BIN / "balancerd"), "--config", str(self.directory / "balancerd.toml")]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command if terminal is None else ["setsid", "--ctty", *command],
                stdin=terminal,
                stdout=log,
                stderr=log,
                text=True,
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(15)
        self.process = None
        return code

    def stand_still(self) -> None:
        """Stop the process where it is (SIGSTOP): what it began goes on without it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End balancerd, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def tell(self) -> None:
        """Write down what happened: pytest shows it where a test failed."""
        if self.log.exists():
            sys.stdout.write(self.log.read_text())
            sys.stdout.writelines(self.ctl(*verb) for verb in TABLES)

    def ctl(self, *arguments: str, code: int = 0) -> str:
        """balancerctl on this record; its standard output."""
        environment = {**os.environ, "BALANCERD_RECORD": str(self.directory / "state")}
        found = subprocess.run(
            [_BIN / "balancerctl", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert found.returncode == code, f"{arguments}: {found.returncode}\n{found.stderr}"
        return found.stdout

    def listing(self, *arguments: str) -> list[dict[str, Any]]:
        """A listing verb's rows."""
        rows: list[dict[str, Any]] = json.loads(self.ctl(*arguments, "-o", "json"))
        return rows

    def migrations(self) -> list[dict[str, Any]]:
        """What balancerctl tells of migrations."""
        return self.listing("migrations")

    def plan(self, number: int) -> dict[str, Any]:
        """One plan as balancerctl tells it."""
        shown: dict[str, Any] = json.loads(self.ctl("plan", "show", str(number), "-o", "json"))
        return shown

    def cycles(self) -> int:
        """Completed cycles so far, counted in the record."""
        counted = self.recorded("SELECT count(*) AS cycles FROM cycles")
        return int(counted[0]["cycles"]) if counted else 0

    def recorded(self, query: str) -> list[dict[str, Any]]:
        """What the ledger has, with nobody's rounding; nothing as long as there is no ledger."""
        try:
            with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as ledger:
                ledger.row_factory = sqlite3.Row
                return [dict(row) for row in ledger.execute(query)]
        except sqlite3.OperationalError:
            return []

    def after_cycles(self, count: int) -> None:
        """Wait until so many more cycles are done."""
        goal = self.cycles() + count
        self.until(lambda: self.cycles() >= goal, 60 + 8 * count * self.cycle, f"{count} cycles")

    def until(self, happened: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something, for as long as a slow machine may need; the test fails where it does
        not come."""
        end = time.monotonic() + seconds
        while not happened():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"balancerd ended while waiting for {what}")
            if time.monotonic() > end:
                raise AssertionError(f"no {what} within {seconds:.0f} s")
            time.sleep(0.1)


MakeService = Callable[[str], Service]
