"""The hosts of a site through libvirt: the `Backend` port."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import libvirt

from balancerd.adapters.libvirt import acts, events
from balancerd.adapters.libvirt.clocks import skew
from balancerd.adapters.libvirt.connection import connected
from balancerd.adapters.libvirt.errors import telling
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.jobs import Figures, completed, figures_of
from balancerd.adapters.libvirt.lane import Lane
from balancerd.adapters.libvirt.locate import find, presence_of
from balancerd.adapters.libvirt.migration import Migration
from balancerd.adapters.libvirt.order import Order
from balancerd.adapters.libvirt.polling import PolledHost
from balancerd.adapters.libvirt.preflight import ask_both
from balancerd.adapters.libvirt.reports import Reports
from balancerd.adapters.libvirt.sampling import Sampler
from balancerd.adapters.libvirt.workers import Call, Workers
from balancerd.core.model import Method
from balancerd.core.observation import (
    HostCounters,
    JobReport,
    Location,
    Observation,
    Preflight,
    Presence,
)
from balancerd.ports import BackendError, nothing
from balancerd.steady import CLOCK

OBSERVE_SECONDS = 5.0  # for one host; a libvirtd that answers at all does so far sooner
MEANWHILE_SECONDS = 0.25  # so long hosts are waited for before what is under way is looked after
ASK_SECONDS = 5.0  # for each host that is asked for a VM, and for each small act
CLOSE_SECONDS = 2.0

Counters = Callable[[], HostCounters]
T = TypeVar("T")


class LibvirtBackend:
    """Reads and migrates through libvirt. A context manager: connections live inside it.

    `counters` replaces what libvirt tells of some hosts' CPU and memory, by host, with something
    finer: of the machine that balancerd itself runs on. `encrypted` asks for TLS between the hosts
    for the guests' memory; a host that is not set up for it then refuses the migration. `ring` is
    called after each end of a migration, from that migration's thread.
    """

    def __init__(
        self,
        hosts: Sequence[HostConfig],
        counters: Mapping[str, Counters] = MappingProxyType({}),
        *,
        encrypted: bool = False,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self._encrypted, self._ring = encrypted, ring
        self._workers = Workers()
        self._reports = Reports()
        self._lock = threading.Lock()
        self._migrations: dict[str, Migration] = {}  # by VM
        self._uuids: dict[str, str] = {}  # of the VMs that were located
        self._hosts = {
            host.name: PolledHost(host, self._workers, counters.get(host.name)) for host in hosts
        }
        self._lanes = {host.name: Lane(host.name, host.uri, self._workers) for host in hosts}
        self._samplers = {host.name: Sampler(host, self._workers) for host in hosts}

    def __enter__(self) -> Self:
        events.ensure_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the hosts. Migrations under way go on without us."""
        deadline = time.monotonic() + CLOSE_SECONDS
        closing = [
            self._workers.leave(name, "close", close)
            for name, host in self._hosts.items()
            for close in (host.close, self._lanes[name].close, self._samplers[name].close)
        ]
        for call in closing:
            call.wait(deadline - time.monotonic())

    @property
    def hanging(self) -> int:
        """Calls to libvirt that were given up and have not returned."""
        return self._workers.hanging

    def observe(self, meanwhile: Callable[[], None] = nothing) -> Observation:
        """Read every host; one that does not answer in time is a reading with an error.

        A host that was silent last time is given only the time that the others take.
        """
        at, deadline = CLOCK.now(), time.monotonic() + OBSERVE_SECONDS
        for host in self._hosts.values():
            host.begin()
            if not host.silent:
                self._samplers[host.config.name].begin()
        for host in self._hosts.values():
            if not host.silent:
                _wait(host, deadline, meanwhile)
        return Observation(at, tuple(host.finish() for host in self._hosts.values()))

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        """Ask the named hosts about one VM, now and all at once."""
        self._remember(vm, uuid)
        calls = {name: self._question(name, vm, uuid) for name in hosts}
        deadline = time.monotonic() + ASK_SECONDS
        presence = {name: _answer(call, deadline) for name, call in calls.items()}
        return Location(vm, CLOCK.now(), MappingProxyType(presence))

    def _question(self, name: str, vm: str, uuid: str) -> Call[Presence] | None:
        """Ask one host; None where it may not be asked now."""
        try:
            return self._lane(name).start(
                "locate", lambda connection: presence_of(connection, vm, uuid)
            )
        except BackendError:
            return None

    def preflight(self, vm: str, uuid: str, source: str, target: str, method: Method) -> Preflight:
        """Ask both hosts what speaks for or against a migration: the source, then the target."""
        found = ask_both(self._ask, self._config, vm, uuid, source, target, method)
        if source not in self._hosts or target not in self._hosts:
            return found
        return replace(found, skew=skew(self._hosts[source].clock, self._hosts[target].clock))

    def _ask(self, host: str, question: Callable[[libvirt.virConnect], T]) -> T:
        def ask(connection: libvirt.virConnect) -> T:
            with telling(host, "preflight"):
                return question(connection)

        return self._lane(host).run("preflight", ask, ASK_SECONDS)

    def migrate(
        self,
        vm: str,
        source: str,
        target: str,
        method: Method,
        bandwidth: int,
        downtime: float,
        *,
        hand_over: bool = False,
    ) -> None:
        """Start a migration on a thread of its own; BackendError when one of the VM is in hand."""
        migration = self._enlist(
            vm, source, target, method, bandwidth, downtime, hand_over=hand_over
        )
        self._launch(migration, migration.run)

    def adopt(self, vm: str, source: str, target: str) -> None:
        """Watch a migration that is under way. One in hand already needs no second watcher."""
        with self._lock:
            if vm in self._migrations:
                return
        migration = self._enlist(vm, source, target, Method.PRE_COPY, 0, 0.0)
        self._launch(migration, migration.follow)

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        """Change the cap of a migration under way."""
        with self._lock:
            migration = self._migrations.get(vm)
        if migration is not None:
            migration.keep_bandwidth(bandwidth)
        self._act(
            vm, host, "set the bandwidth", lambda domain: acts.set_bandwidth(domain, bandwidth)
        )

    def set_downtime(self, vm: str, host: str, downtime: float) -> None:
        """Change the longest pause of a migration under way."""
        with self._lock:
            migration = self._migrations.get(vm)
        if migration is not None:
            migration.keep_downtime()
        self._act(vm, host, "set the downtime", lambda domain: acts.set_downtime(domain, downtime))

    def switch_to_post_copy(self, vm: str, host: str) -> None:
        """Let a VM run on its target now, and its memory follow."""
        self._act(vm, host, "switch to post-copy", acts.switch_to_post_copy)

    def abort(self, vm: str, host: str) -> None:
        """Ask the source to give up. That it has is told by `reports`, and by both hosts."""
        self._act(vm, host, "abort the migration", acts.abort)

    def resume(self, vm: str, host: str) -> None:
        """Let a copy go on that a migration left paused on its source."""
        self._act(vm, host, "resume", acts.resume, identified=True)

    def resume_arrived(self, vm: str, host: str) -> None:
        """Let a copy go on that arrived paused."""
        self._act(vm, host, "resume", acts.resume_arrived, identified=True)

    def destroy(self, vm: str, host: str) -> None:
        """End a paused half of a migration."""
        self._act(vm, host, "destroy", acts.destroy, identified=True, needed=False)

    def undefine(self, vm: str, host: str) -> None:
        """Remove a definition of a VM that is not active here."""
        self._act(vm, host, "undefine", acts.undefine, identified=True, needed=False)

    def set_autostart(self, vm: str, host: str, autostart: bool) -> None:
        """Set whether the VM starts with its host."""
        self._act(
            vm,
            host,
            "set autostart",
            lambda domain: domain.setAutostart(int(autostart)),
            identified=True,
        )

    def reports(self) -> tuple[JobReport, ...]:
        """News of migrations since the last call."""
        return self._reports.drain()

    def _enlist(
        self,
        vm: str,
        source: str,
        target: str,
        method: Method,
        bandwidth: int,
        downtime: float,
        *,
        hand_over: bool = False,
    ) -> Migration:
        """Note a migration as in hand: one of each VM at a time."""
        hosts = self._config(source), self._config(target)
        with self._lock:
            if vm in self._migrations:
                raise BackendError(source, "migrate", f"a migration of {vm} is in hand already")
            uuid = self._uuids.get(vm, "")
            order = Order(vm, uuid, *hosts, method, bandwidth, downtime, self._encrypted, hand_over)
            ask = self._figures_question(vm, uuid, target)
            self._migrations[vm] = Migration(order, self._reports.add, ask)
            return self._migrations[vm]

    def _launch(self, migration: Migration, work: Callable[[], JobReport]) -> None:
        vm = migration.order.vm

        def carry_out() -> None:
            end = work()
            with self._lock:
                del self._migrations[vm]  # before it is told: the next one may be ordered then
            self._reports.add(end)
            self._ring()

        threading.Thread(target=carry_out, name=f"migrate {vm}", daemon=True).start()

    def _figures_question(self, vm: str, uuid: str, target: str) -> Callable[[], Figures]:
        """Asks the target for a migration's figures, when the source did not tell them."""
        host = self._config(target)

        def ask() -> Figures:
            with connected(target, host.uri) as connection:
                domain = find(connection, vm, uuid)
                return Figures() if domain is None else figures_of(completed(domain))

        def ask_in_time() -> Figures:
            try:
                return self._workers.run(target, "figures", ask, ASK_SECONDS)
            except (BackendError, libvirt.libvirtError):
                return Figures()

        return ask_in_time

    def _act(
        self,
        vm: str,
        host: str,
        act: str,
        work: Callable[[libvirt.virDomain], object],
        *,
        identified: bool = False,
        needed: bool = True,
    ) -> None:
        """Do something to a VM on a host, within the deadline; BackendError when it was not done.

        `identified`: only to the VM that was located, never to a namesake. `needed`: the VM must
        be there; else its absence is as good.
        """
        ordered = time.monotonic()
        with self._lock:
            uuid = self._uuids.get(vm, "")
        if identified and not uuid:
            raise BackendError(host, act, f"which VM {vm} is meant has not been established")

        def perform(connection: libvirt.virConnect) -> None:
            with telling(host, act):
                domain = find(connection, vm, uuid)
                if time.monotonic() > ordered + ASK_SECONDS:
                    # Whoever ordered it was told that it was not done, and has gone on from there.
                    raise BackendError(host, act, "the host answered too late: it is not done")
                if domain is not None:
                    work(domain)
                elif needed:
                    raise BackendError(host, act, f"{vm} is not there")

        try:
            self._lane(host).run(act, perform, ASK_SECONDS)
        except acts.Refused as refusal:
            raise BackendError(host, act, f"refused for {vm}: {refusal}") from None

    def _remember(self, vm: str, uuid: str) -> None:
        if uuid:
            with self._lock:
                self._uuids[vm] = uuid

    def _config(self, name: str) -> HostConfig:
        try:
            return self._hosts[name].config
        except KeyError:
            raise BackendError(name, "find", "no such host is configured") from None

    def _lane(self, name: str) -> Lane:
        self._config(name)
        return self._lanes[name]


def _wait(host: PolledHost, deadline: float, meanwhile: Callable[[], None]) -> None:
    """Give a host until the deadline to be read; what is to be done meanwhile is done."""
    while (left := deadline - time.monotonic()) > 0:
        if host.wait(min(left, MEANWHILE_SECONDS)):
            return
        meanwhile()


def _answer(call: Call[Presence] | None, deadline: float) -> Presence:
    """What the host said; no answer, of whatever kind, is an answer too."""
    if call is None:
        return Presence.UNREACHABLE
    try:
        return call.result(deadline - time.monotonic())
    except Exception:  # noqa: BLE001  whatever a host says, it is an answer
        return Presence.UNREACHABLE
