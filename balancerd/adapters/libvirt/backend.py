"""The hosts of a site through libvirt: the `Backend` port."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

from balancerd.adapters.libvirt import events
from balancerd.adapters.libvirt.errors import telling
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.locate import presence_of
from balancerd.adapters.libvirt.polling import PolledHost
from balancerd.adapters.libvirt.workers import Call, Workers
from balancerd.core.observation import HostCounters, Location, Observation, Presence
from balancerd.ports import BackendError

OBSERVE_SECONDS = 8.0  # for one host; a libvirtd that answers at all does so far sooner
ASK_SECONDS = 5.0  # for each host that is asked for a VM, and for each small act
CLOSE_SECONDS = 2.0

Counters = Callable[[], HostCounters]
T = TypeVar("T")


class LibvirtBackend:
    """Reads and migrates through libvirt. A context manager: connections live inside it.

    `counters` replaces what libvirt tells of some hosts' CPU and memory, by host, with something
    finer: of the machine that balancerd itself runs on.
    """

    def __init__(
        self, hosts: Sequence[HostConfig], counters: Mapping[str, Counters] = MappingProxyType({})
    ) -> None:
        self._workers = Workers()
        self._hosts = {
            host.name: PolledHost(host, self._workers, counters.get(host.name)) for host in hosts
        }

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
        calls = [self._begin(name, "close", host.close) for name, host in self._hosts.items()]
        deadline = time.monotonic() + CLOSE_SECONDS
        for call in calls:
            if call is not None:
                call.wait(deadline - time.monotonic())

    @property
    def hanging(self) -> int:
        """Calls to libvirt that were given up and have not returned."""
        return self._workers.hanging

    def observe(self) -> Observation:
        """Read every host; one that does not answer in time is a reading with an error.

        A host that was silent last time is given only the time that the others take.
        """
        at, deadline = time.time(), time.monotonic() + OBSERVE_SECONDS
        for host in self._hosts.values():
            host.begin(OBSERVE_SECONDS)
        in_order = sorted(self._hosts.values(), key=lambda host: host.silent)
        found = {
            host.config.name: host.finish(0.0 if host.silent else deadline - time.monotonic())
            for host in in_order
        }
        return Observation(at, tuple(found[name] for name in self._hosts))

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        """Ask the named hosts about one VM, now and all at once."""
        calls = {
            name: self._begin(name, "locate", self._question(name, vm, uuid)) for name in hosts
        }
        deadline = time.monotonic() + ASK_SECONDS
        presence = {name: _answer(call, deadline) for name, call in calls.items()}
        return Location(vm, time.time(), MappingProxyType(presence))

    def _question(self, name: str, vm: str, uuid: str) -> Callable[[], Presence]:
        def ask() -> Presence:
            connection = self._host(name).connection.get(ASK_SECONDS)
            with telling(name, "locate"):
                return presence_of(connection, vm, uuid)

        return ask

    def _begin(self, name: str, act: str, work: Callable[[], T]) -> Call[T] | None:
        """Start a call; None where the host may not be asked any more."""
        try:
            return self._workers.start(name, act, work)
        except BackendError:
            return None

    def _host(self, name: str) -> PolledHost:
        try:
            return self._hosts[name]
        except KeyError:
            raise BackendError(name, "find", "no such host is configured") from None


def _answer(call: Call[Presence] | None, deadline: float) -> Presence:
    """What the host said; no answer, of whatever kind, is an answer too."""
    if call is None:
        return Presence.UNREACHABLE
    try:
        return call.result(deadline - time.monotonic())
    except Exception:  # noqa: BLE001  whatever a host says, it is an answer
        call.abandon()
        return Presence.UNREACHABLE
