"""A host's management controller: OpenIPMI's simulator, which speaks IPMI 2.0 over UDP.

What is behind it is a script: it writes down what the machine is told, and says what the machine's
power is. The machine itself is a lab host that follows.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .hosts import Host
from .layout import LabError

USER, PASSWORD = "balancerd", "secret-word"

LAN = """\
name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{directory}/chassis"
  user 2 true "{user}" "{password}" admin 10 none md5 straight
"""
CONTROLLER = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
"""
CHASSIS = """\
#!/bin/sh
cd {directory}
case "$1 $2" in
    "get power") echo "power:$(cat power)" ;;
    "set power") [ -e deaf ] || echo "$3" >wanted ;;
    "set shutdown") [ -e deaf ] || echo 0 >wanted ;;
esac
"""


class Bmc:
    """Switches a host as IPMI tells it, from `with` on."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory, self.port = host, directory, _free_port()
        texts = {"lan": LAN, "controller": CONTROLLER, "chassis": CHASSIS}
        facts = {"port": self.port, "directory": directory, "user": USER, "password": PASSWORD}
        for name, text in texts.items():
            (directory / name).write_text(text.format(**facts))
        (directory / "chassis").chmod(0o755)
        (directory / "state").mkdir()
        self._tell()
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def command(self, *words: str, password: str = PASSWORD) -> tuple[str, ...]:
        """What an operator would configure."""
        login = ("-H", "127.0.0.1", "-p", str(self.port), "-U", USER, "-P", password)
        return ("ipmitool", "-I", "lanplus", "-C", "3", *login, "power", *words)

    def turn_deaf(self) -> None:
        """It says yes to everything from now on, and does nothing."""
        (self.directory / "deaf").touch()

    def freeze(self) -> None:
        self._simulator.send_signal(signal.SIGSTOP)

    def __enter__(self) -> Bmc:
        files = ["-c", "lan", "-f", "controller", "-s", "state", "-n"]
        with (self.directory / "log").open("w") as log:
            self._simulator = subprocess.Popen(
                ["ipmi_sim", *files],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._follower.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._follower.join()
        with suppress(ProcessLookupError):
            os.killpg(self._simulator.pid, signal.SIGKILL)
        self._simulator.wait()
        self.host.power_on()

    def _follow(self) -> None:
        """The machine: it does what it is told, and takes its time."""
        wanted = self.directory / "wanted"
        while not self._ended.is_set():
            if wanted.exists() and (what := wanted.read_text().strip()):
                wanted.unlink()
                with suppress(LabError):
                    self.host.power_on() if what == "1" else self.host.power_off()
                self._tell()
            time.sleep(0.1)

    def _tell(self) -> None:
        new = self.directory / "power.new"
        new.write_text(f"{int(self.host.is_on())}\n")
        new.rename(self.directory / "power")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
