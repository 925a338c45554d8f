"""The lab as a whole: hosts, networks and storage come up and go together."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from . import cgroups, network, ssh
from .console import Listener
from .guests import Guest, GuestSpec, create_disk
from .hosts import Host, HostSilentError, in_namespaces
from .layout import MAX_HOSTS, MAX_INSTANCES, NETWORKS, HostSpec, LabError, Layout, cache_directory
from .shell import succeeds

T = TypeVar("T")
R = TypeVar("R")

TOOLS = (
    *("ip", "tc", "nsenter", "unshare", "ssh", "ssh-keygen", "certtool"),
    *("ipmi_sim", "ipmitool", "wakeonlan"),
)
ACTIVE_STATES = (1, 2, 3, 4, 7)  # running, blocked, paused, shutting down, suspended


def why_unavailable() -> str | None:
    """Why no lab can run here, in one sentence, or None if it can."""
    if os.geteuid() != 0:
        return "the lab needs root"
    cache = cache_directory()
    done = [cache / f"{part}.done" for part in ("root", "kernel", "guest", "outward")]
    if not all(path.exists() for path in done):
        return "the lab is not installed (tests/lab/rig/install does it)"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"tools are missing: {', '.join(missing)} (tests/lab/rig/install)"
    if not succeeds(in_namespaces("probe")):
        return "this machine does not allow namespaces and mounts (an unprivileged container?)"
    try:
        import libvirt  # noqa: F401
    except ImportError:
        return "the Python package libvirt-python is missing"
    return None


class Rig:
    """A lab of `hosts` hosts. Use it as a context manager, or with up() and down().

    The root namespace has an address on the management network: any process of this machine reaches
    the hosts by their `uri`, for example qemu+tcp://10.77.0.11/system, without entering anything.
    Migrations go over `migration_uri`, a network that only the hosts are on.
    """

    def __init__(
        self,
        hosts: int = 3,
        spec: HostSpec | Sequence[HostSpec] = HostSpec(),  # noqa: B008  a frozen value
        instance: int = 0,
    ) -> None:
        if not 1 <= hosts <= MAX_HOSTS:
            raise LabError(f"a lab has 1 to {MAX_HOSTS} hosts, not {hosts}")
        self.layout = Layout(instance)
        self.specs = [spec] * hosts if isinstance(spec, HostSpec) else list(spec)
        if len(self.specs) != hosts:
            raise LabError(f"{hosts} hosts need {hosts} sizes, not {len(self.specs)}")
        self.hosts: tuple[Host, ...] = ()
        self.listener = Listener(self.layout.shared / "console")
        self._lock: socket.socket | None = None
        self._warden: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Rig:
        self.up()
        self._post_warden()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # ---- up and down ----

    def up(self) -> None:
        """Brings the lab up, after clearing what a killed one left. On failure nothing stays."""
        if (why := why_unavailable()) is not None:
            raise LabError(f"the lab cannot run: {why}")
        self._take_lock()
        try:
            self._clear()
            self._build()
        except BaseException:
            self.down()
            raise

    def _post_warden(self) -> None:
        """A process that takes the lab down if this one is killed: it waits for the end of a pipe.

        Guests of a killed test session would burn CPU until somebody noticed.
        """
        take_down = [sys.executable, "-m", __package__, "--instance", str(self.layout.instance)]
        self._warden = subprocess.Popen(
            ["/bin/sh", "-c", 'cat; exec "$@"', "sh", *take_down, "down"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[3],
            start_new_session=True,
        )

    def _dismiss_warden(self) -> None:
        if self._warden is not None:
            self._warden.kill()
            self._warden.communicate()
            self._warden = None

    def _build(self) -> None:
        layout = self.layout
        for directory in (
            layout.run,
            layout.shared / "console",
            cache_directory() / "capabilities",
        ):
            directory.mkdir(parents=True, exist_ok=True)
        trees = cgroups.find_trees(layout)
        network.create_switch(layout, trees)
        cgroups.weigh(layout, trees, len(self.specs))
        self.hosts = self._make_hosts(trees)
        ssh.furnish(layout, [host.name for host in self.hosts])
        layout.state.write_text(json.dumps([asdict(spec) for spec in self.specs]))
        in_parallel(Host.power_on, self.hosts)
        self._quieten_libvirt()

    def _make_hosts(self, trees: cgroups.Trees) -> tuple[Host, ...]:
        return tuple(
            Host(self.layout, number, spec, trees) for number, spec in enumerate(self.specs, 1)
        )

    def down(self) -> None:
        """Removes everything. Harmless if there is nothing, thorough if something was killed."""
        self._take_lock()
        self._dismiss_warden()
        self.listener.stop()
        self._clear()
        self.hosts = ()
        self._release_lock()

    def _clear(self) -> None:
        layout = self.layout
        if layout.run.exists():
            cgroups.remove_all(layout, cgroups.find_trees(layout))
        network.remove_link(layout)
        cgroups.unmount_own(layout)
        for directory in (layout.run, layout.storage):
            shutil.rmtree(directory, ignore_errors=True)

    @classmethod
    def attach(cls, instance: int = 0) -> Rig:
        """Takes hold of a lab that is up, started by another process."""
        layout = Layout(instance)
        if not layout.state.exists():
            raise LabError("the lab is not up")
        trees = cgroups.find_trees(layout)
        if not network.switch_exists(layout, trees):
            raise LabError("the lab is not up")
        specs = [HostSpec(**fields) for fields in json.loads(layout.state.read_text())]
        rig = cls(len(specs), specs, instance)
        rig.hosts = rig._make_hosts(trees)
        rig._quieten_libvirt()
        return rig

    @classmethod
    def free(cls, hosts: int = 3, spec: HostSpec | Sequence[HostSpec] = HostSpec()) -> Rig:  # noqa: B008
        """A lab under the first free number above 0, so that test sessions never meet."""
        for instance in range(1, MAX_INSTANCES):
            rig = cls(hosts, spec, instance)
            with suppress(LabError):
                rig._take_lock()
                return rig
        raise LabError(f"all {MAX_INSTANCES - 1} labs for tests are in use")

    def _take_lock(self) -> None:
        """Held until down() or the end of the process. A lab whose lock is free may be cleared.

        An abstract socket: its name is known throughout the network namespace, which is what labs
        would quarrel about, also between a chroot and the machine around it.
        """
        if self._lock is not None:
            return
        layout, lock = self.layout, socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0{layout.label}")
        except OSError:
            lock.close()
            raise LabError(f"another process is using {layout.label}") from None
        if network.link_exists(layout) and not layout.run.exists():
            lock.close()
            raise LabError(f"{layout.label} is up elsewhere on this machine (device {layout.link})")
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @staticmethod
    def _quieten_libvirt() -> None:
        """libvirt prints every error to stderr unless told otherwise."""
        import libvirt

        libvirt.registerErrorHandler(lambda _context, _error: None, None)

    # ---- hosts ----

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise LabError(f"no host {name!r}; there are {names}")

    def hosts_on(self) -> list[Host]:
        return [host for host in self.hosts if host.is_on()]

    # ---- guests ----

    def define(self, name: str, host: str, spec: GuestSpec = GuestSpec()) -> Guest:  # noqa: B008
        """A persistent guest on a host, not started."""
        place = self.host(host)
        for device, disk in spec.disks():
            create_disk(place, self.layout.shared, name, disk, device)
        place.ask(lambda connection: connection.defineXML(spec.xml(name)).name())
        return Guest(self, name)

    def start(
        self,
        name: str,
        host: str,
        spec: GuestSpec = GuestSpec(),  # noqa: B008
        *,
        wait: bool = True,
    ) -> Guest:
        """Defines and starts a guest; with `wait` returns when its heart beats."""
        guest = self.define(name, host, spec)
        guest.start(host, wait=wait)
        return guest

    def start_all(self, guests: dict[str, tuple[str, GuestSpec]]) -> dict[str, Guest]:
        """Guests by name, as (host, spec), booted side by side."""
        started = {
            name: self.start(name, host, spec, wait=False) for name, (host, spec) in guests.items()
        }
        for guest in started.values():
            guest.wait_ready()
        return started

    def guest(self, name: str) -> Guest:
        return Guest(self, name)

    def states(self, name: str) -> dict[str, tuple[int, int]]:
        """Host -> libvirt's state and reason of a guest, on every host that knows it."""
        on = self.hosts_on()
        answers = in_parallel(Host.guests, on)
        return {h.name: seen[name] for h, seen in zip(on, answers, strict=True) if name in seen}

    def where(self, name: str) -> list[str]:
        """Hosts on which a guest is active (a paused copy counts). Asks every host that is on."""
        return [h for h, (state, _) in self.states(name).items() if state in ACTIVE_STATES]

    def running_on(self, name: str) -> list[str]:
        """Hosts on which a guest's CPUs run. Two of them: split brain."""
        return [h for h, (state, _) in self.states(name).items() if state == 1]

    def placement(self) -> dict[str, list[str]]:
        """Host -> its active guests."""
        on = self.hosts_on()
        return {
            host.name: sorted(name for name, (state, _) in seen.items() if state in ACTIVE_STATES)
            for host, seen in zip(on, in_parallel(Host.guests, on), strict=True)
        }

    def forget(self, name: str) -> None:
        """Deletes a guest's console and disks."""
        self.listener.forget(name)
        (self.layout.shared / "console" / f"{name}.log").unlink(missing_ok=True)
        for image in self.layout.shared.glob(f"{name}.*"):
            image.unlink(missing_ok=True)
        for host in self.hosts:
            host.delete_images(f"{name}.*")

    # ---- clean slate ----

    def reset(self) -> None:
        """All hosts on, libvirtd alive, cables in, no speed limits, no guests: as after up()."""
        in_parallel(_reset_host, self.hosts)
        shared = self.layout.shared
        for name in {path.stem for path in (*shared.glob("*.*"), *shared.glob("console/*.log"))}:
            self.forget(name)
        self.listener.consoles.clear()

    def wait_for(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until `ready()`; LabError naming `what` if that takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise LabError(f"not within {seconds:g} s: {what}")
            time.sleep(0.1)


def _reset_host(host: Host) -> None:
    host.power_on()
    for which in NETWORKS:
        host.mend(which)
        host.limit(which, None)
    if host.libvirtd_pid() is None:
        host.start_libvirtd()
    host.thaw_libvirtd()
    host.set_clock(0)
    host.decertify()
    host.thaw_sshd()
    if not host.sshd_pids():
        host.start_sshd()
    _drop_guests(host)


def _drop_guests(host: Host) -> None:
    import libvirt

    for guest in host.qemu_pids():
        with suppress(LabError):
            host.kill_qemu(guest)

    def undefine(connection: Any) -> None:
        for domain in connection.listAllDomains():
            with suppress(libvirt.libvirtError):
                if domain.isActive():
                    domain.destroy()
            with suppress(libvirt.libvirtError):
                domain.undefine()

    try:
        host.ask(undefine, timeout=15)
    except HostSilentError:
        # A migration that was struck may never give up its VM's lock; a new libvirtd has none.
        host.restart_libvirtd()
        host.ask(undefine, timeout=30)
    host.delete_images()


def in_parallel(work: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """`work` on every thing at once; the first failure is raised when all have ended."""
    things = list(things)
    with ThreadPoolExecutor(max(1, len(things))) as pool:
        return list(pool.map(work, things))
