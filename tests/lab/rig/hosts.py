"""One host of the lab: namespaces around a libvirtd of its own.

All knowledge of a running host is in files and in the kernel, so that any process (a test, the
command line) can take hold of a lab that another one started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from . import network, ssh
from .certificates import Authority
from .cgroups import Group, Trees
from .layout import MAX_HOSTS, HostSpec, LabError, Layout, cache_directory
from .shell import run
from .wire import Wire

T = TypeVar("T")
PORT = 16509

LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "0.0.0.0"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_dir = "/run/libvirt"
host_uuid = "{uuid}"
max_clients = 500
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

# The keepalive decides how long a migration waits for a peer that is gone: 5 s here, not 30.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
keepalive_interval = 1
keepalive_count = 5
migrate_tls_x509_cert_dir = "/etc/libvirt/migration"
migrate_tls_x509_verify = 1
"""

# libvirt makes the target's image of a disk that moves along, but only where it has a pool.
LOCAL_POOL = """\
<pool type="dir">
  <name>local</name>
  <target><path>/lab/local</path></target>
</pool>
"""


class HostSilentError(LabError):
    """A host's libvirtd did not answer in time."""


def ask_libvirt(uri: str, work: Callable[[Any], T], seconds: float) -> T:
    """The result of `work(connection)`, over a connection of its own that may hang.

    Everything that belongs to the connection lives and dies in one thread, which is left behind
    after `seconds`. Not even an error's traceback may carry a libvirt object out of it: dropping
    the last one closes the connection, and that waits for ever for a host that lost its power.
    """
    results: list[T] = []
    errors: list[Exception] = []
    done = threading.Event()

    def body() -> None:
        import libvirt

        try:
            connection = libvirt.open(uri)
            results.append(work(connection))
        except Exception as error:  # noqa: BLE001  it is raised again in the caller's thread
            errors.append(error.with_traceback(None))
        done.set()

    threading.Thread(target=body, daemon=True).start()
    if not done.wait(seconds):
        raise HostSilentError(f"libvirtd at {uri} did not answer within {seconds:g} s")
    if errors:
        raise errors[0]
    return results[0]


class Host:
    """`name`, `uri` and `migration_uri` are what a balancerd configuration needs to know."""

    def __init__(self, layout: Layout, index: int, spec: HostSpec, trees: Trees) -> None:
        self.layout = layout
        self.index = index
        self.spec = spec
        self.trees = trees
        self.name = f"h{index}"
        self.address = layout.address("mgmt", index)
        self.uri = f"qemu+tcp://{self.address}/system"
        self.ssh_uri = ssh.uri(layout, index)
        self.peer_ssh_uri = f"qemu+ssh://root@{self.name}/system"
        self.migration_uri = f"tcp://{layout.address('migration', index)}"
        self.uuid = layout.host_uuid(index)
        self.run = layout.host_run(self.name)
        self.disk = layout.host_disk(self.name)
        self.group = Group(trees, f"{layout.label}/{self.name}")

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.uri}>"

    # ---- power ----

    def power_on(self) -> None:
        """Boots the host: namespaces, cables, libvirtd. Returns when libvirtd listens."""
        if self.is_on():
            return
        self.power_off()  # clears what a crashed host left
        self._write_disk()
        self.run.mkdir(parents=True, exist_ok=True)
        self.group.create()
        self.group.limit(self.spec)
        pid = self._start_init()
        network.plug(self.layout, self.index, pid)
        self.start_libvirtd()
        self.start_sshd()

    def power_off(self, *, silent: bool = True) -> None:
        """Cuts the power. A silent host's peers get no word of it, as when a real one dies; else
        its connections are reset."""
        if silent:
            network.unplug(self.layout, self.index)
        self.group.kill()
        self.group.remove()
        network.unplug(self.layout, self.index)
        _remove_tree(self.run)

    def is_on(self) -> bool:
        with suppress(LabError):
            return self.pid in self.group.pids()
        return False

    @property
    def pid(self) -> int:
        """The host's first process, as numbered outside."""
        try:
            return int((self.run / "pid").read_text())
        except (FileNotFoundError, ValueError):
            raise LabError(f"{self.name} is powered off") from None

    def _write_disk(self) -> None:
        for name in (
            *("etc/migration", "etc/qemu/networks", "etc/storage/autostart"),
            *("lib", "log", "local"),
        ):
            (self.disk / name).mkdir(parents=True, exist_ok=True)
        (self.disk / "etc/libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=self.uuid))
        (self.disk / "etc/qemu.conf").write_text(QEMU_CONF)
        (self.disk / "etc/storage/local.xml").write_text(LOCAL_POOL)
        autostart = self.disk / "etc/storage/autostart/local.xml"
        autostart.unlink(missing_ok=True)
        autostart.symlink_to("/etc/libvirt/storage/local.xml")
        names = [f"{self.layout.address('mgmt', i)} h{i}" for i in range(1, MAX_HOSTS + 1)]
        (self.disk / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))

    def _init_spec(self) -> dict[str, Any]:
        cache = cache_directory()
        return {
            "name": self.name,
            "run": str(self.run),
            "tree": str(cache / "root"),
            "writable": [
                (str(self.disk / "etc"), "etc/libvirt"),
                (str(self.disk / "lib"), "var/lib/libvirt"),
                (str(self.disk / "log"), "var/log/libvirt"),
                (str(cache / "capabilities"), "var/cache/libvirt"),
                (str(self.disk / "local"), "lab/local"),
                (str(ssh.host_directory(self.layout, self.name)), "etc/ssh"),
                (str(self.layout.shared), "lab/shared"),
            ],
            "read_only": [
                (str(self.disk / "hosts"), "etc/hosts"),
                (str(cache / "guest"), "lab/guest"),
            ],
            "cpus": self.spec.cpus,
            "memory_bytes": self.spec.memory_mib << 20,
            "cgroup": self.trees.version,
            "cpuacct": str(self.trees.cpuacct / self.group.name),
            "memory": str(self.trees.memory / self.group.name),
        }

    def _start_init(self) -> int:
        process = subprocess.Popen(
            self.group.joining(in_namespaces(json.dumps(self._init_spec()))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said = [process.stdout.readline().strip() for _ in range(2)]
        if said[1] != "ready":
            process.wait()
            why = said[1].removeprefix("failed ") or process.stderr.read().strip()
            raise LabError(f"{self.name} does not start: {why}")
        threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie behind
        pid = int(said[0].split()[1])
        (self.run / "pid").write_text(str(pid))
        return pid

    # ---- commands inside ----

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside the host, with the host's own tools."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--ipc", "--net"]
        enter += ["--pid", "--root", "--wd", "/bin/busybox", "env", "-i", "HOME=/", "TERM=linux"]
        return self.group.joining([*enter, "PATH=/usr/sbin:/usr/bin", *argv])

    def command(self, *argv: str, timeout: float = 30) -> str:
        """Output of a command run inside the host."""
        return run(self.entering(argv), timeout=timeout, name=f"{self.name}: {' '.join(argv)}")

    # ---- libvirtd ----

    def start_libvirtd(self) -> None:
        clock = "/usr/lib/balancerd-lab/clock.so"
        environment = [
            f"LD_PRELOAD=/usr/lib/balancerd-lab/outward.so:{clock}",
            f"LAB_CLOCK={clock}",
            f"LAB_MEMORY_BYTES={self.spec.memory_mib << 20}",
        ]
        self.command("/bin/busybox", "env", *environment, "libvirtd", "-d", "--listen")
        _wait(self._answers, 15, f"libvirtd of {self.name} does not answer")

    def _answers(self) -> bool:
        """Whether libvirtd serves clients; asked inside the host, for its cable may be cut."""
        if self.libvirtd_pid() is None:
            log = (self.disk / "log/libvirtd.log").read_text().strip().splitlines() or ["no word"]
            raise LabError(f"libvirtd of {self.name} ended: {log[-1]}")
        try:
            self.command("virsh", "-q", "uri")
        except LabError:
            return False
        return True

    def set_clock(self, ahead: int) -> None:
        """Sets the host's clock so many seconds ahead, for libvirtd and all QEMUs started from now
        on, until the host is powered off."""
        if ahead != self.clock():
            self._clock_file.write_text(f"{ahead}\n")
            self.restart_libvirtd()

    def clock(self) -> int:
        """Seconds by which its clock is ahead of this machine's."""
        file = self._clock_file
        return int(file.read_text()) if file.exists() else 0

    @property
    def _clock_file(self) -> Path:
        return Path("/proc") / str(self.pid) / "root/run/clock"

    def libvirtd_pid(self) -> int | None:
        return next((pid for pid in self.group.pids() if _name_of(pid) == "libvirtd"), None)

    def kill_libvirtd(self, number: int = signal.SIGKILL) -> None:
        """Ends libvirtd (its QEMUs live on), by default as a crash would."""
        pid = self._need_libvirtd()
        os.kill(pid, number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            _wait(lambda: _name_of(pid) != "libvirtd", 15, f"libvirtd of {self.name} does not end")

    def freeze_libvirtd(self) -> None:
        """libvirtd hangs: connections are accepted, nothing is answered."""
        os.kill(self._need_libvirtd(), signal.SIGSTOP)

    def thaw_libvirtd(self) -> None:
        os.kill(self._need_libvirtd(), signal.SIGCONT)

    def restart_libvirtd(self) -> None:
        if self.libvirtd_pid() is not None:
            self.kill_libvirtd()
        self.start_libvirtd()

    def _need_libvirtd(self) -> int:
        pid = self.libvirtd_pid()
        if pid is None:
            raise LabError(f"{self.name} has no libvirtd running")
        return pid

    # ---- certificates ----

    def certify(
        self, authority: Authority, *, expired: bool = False, with_address: bool = True
    ) -> None:
        """Sets the host up for encrypted migrations; the certificate has its name, and as a rule
        the address that peers migrate to."""
        addresses = [self.layout.address("migration", self.index)] if with_address else []
        authority.issue(self._certificates, self.name, addresses, expired=expired)

    def decertify(self) -> None:
        """Takes all certificates away."""
        for path in self._certificates.glob("*.pem"):
            path.unlink()

    @property
    def _certificates(self) -> Path:
        return self.disk / "etc/migration"

    # ---- sshd ----

    def start_sshd(self) -> None:
        self.command("/bin/busybox", "mkdir", "-p", "/run/sshd")
        self.command("/usr/sbin/sshd")

    def sshd_pids(self) -> list[int]:
        """sshd, and its part in each session."""
        return [pid for pid in self.group.pids() if _name_of(pid) in ("sshd", "sshd-session")]

    def kill_sshd(self) -> None:
        """Ends sshd and all sessions."""
        for pid in self.sshd_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait(lambda: not self.sshd_pids(), 15, f"sshd of {self.name} does not end")

    def freeze_sshd(self) -> None:
        """sshd hangs: connections are accepted, and nobody says a word."""
        for pid in self.sshd_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw_sshd(self) -> None:
        for pid in self.sshd_pids():
            with suppress(ProcessLookupError):  # the last words of a session that was given up
                os.kill(pid, signal.SIGCONT)

    # ---- network ----

    def cut(self, which: str) -> None:
        """Pulls the cable of network `which`, "mgmt" or "migration", until mend or power-off."""
        network.set_cable(self.layout, self.index, which, connected=False)

    def mend(self, which: str) -> None:
        network.set_cable(self.layout, self.index, which, connected=True)

    def limit(self, which: str, megabit_per_s: float | None) -> None:
        """Limits the speed of a link in both directions, or (None) lifts the limit."""
        network.limit_speed(self.layout, self.index, self.pid, which, megabit_per_s)

    def listen(self, which: str, words: bytes) -> Wire:
        """Listens on the cable to network `which` for certain words."""
        return network.listen(self.layout, self.index, which, words)

    # ---- guests ----

    def qemu_pids(self) -> dict[str, int]:
        """Guest -> its QEMU process on this host, whatever libvirtd knows."""
        found = {}
        for pid in self.group.pids():
            if (guest := _guest_of(pid)) is not None:
                found[guest] = pid
        return found

    def kill_qemu(self, guest: str, number: int = signal.SIGKILL) -> None:
        pid = self.qemu_pids().get(guest)
        if pid is None:
            raise LabError(f"{self.name} runs no QEMU of {guest}")
        os.kill(pid, number)

    def ask(self, work: Callable[[Any], T], timeout: float = 10) -> T:
        """The result of `work(connection)`, or HostSilentError. `work` must return plain values.

        The connection is a fresh one each time: libvirtd may have been killed meanwhile.
        """
        return ask_libvirt(self.uri, work, timeout)

    def guests(self) -> dict[str, tuple[int, int]]:
        """Guest -> libvirt's state and reason, inactive ones included."""

        def states(connection: Any) -> dict[str, tuple[int, int]]:
            import libvirt

            found = {}
            for domain in connection.listAllDomains():
                with suppress(libvirt.libvirtError):  # it left meanwhile
                    state, reason = domain.state()
                    found[domain.name()] = (state, reason)
            return found

        return self.ask(states)

    def delete_images(self, pattern: str = "*") -> None:
        """Deletes guests' images on the host's own storage, and has libvirt notice."""
        images = list((self.disk / "local").glob(pattern))
        for image in images:
            image.unlink()
        if images and self.is_on():
            self.ask(lambda c: c.storagePoolLookupByName("local").refresh())

    def busy_seconds(self) -> float:
        """CPU time the host has used since it was switched on, as libvirt tells it."""

        def busy(connection: Any) -> float:
            stats = connection.getCPUStats(-1)
            seconds: float = (stats["user"] + stats["kernel"]) / 1e9
            return seconds

        return self.ask(busy)


def in_namespaces(argument: str) -> list[str]:
    """The command that runs inside.py in namespaces of its own."""
    namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]
    script = [sys.executable, "-I", "-S", str(Path(__file__).with_name("inside.py")), argument]
    return ["unshare", "--propagation", "unchanged", *namespaces, *script]


def _name_of(pid: int) -> str | None:
    """The program a live process runs; None for one that ended, collected or not."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return None
    return None if tail.split()[0] in ("Z", "X") else head.partition("(")[2]


def _guest_of(pid: int) -> str | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    if not words[0].endswith("qemu-system-x86_64") or "-name" not in words:
        return None
    name = words[words.index("-name") + 1].split(",")[0]
    return name.removeprefix("guest=")


def _wait(ready: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(otherwise)
        time.sleep(0.02)


def _remove_tree(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
