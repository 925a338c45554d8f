"""Reads one host: a few bulk calls, and the definitions only of those VMs that changed."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from balancerd.adapters.libvirt.definition import Storage, unreadable, vm_of
from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.facts import facts_of, storage_of
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.jobs import read_job
from balancerd.adapters.libvirt.states import Condition, Job, vm_state
from balancerd.adapters.libvirt.statistics import WANTED, disk_sizes, host_counters, vm_counters
from balancerd.adapters.libvirt.xml import XMLError
from balancerd.core.model import VM, Host
from balancerd.core.observation import HostReading, JobProgress, VMReading

REFRESH_SECONDS = 600.0  # facts and definitions are read anew after so long, events or not

_ACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
_INACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
# What a changed definition shows in the statistics, in case an event was missed.
_FINGERPRINT = ("vcpu.current", "vcpu.maximum", "balloon.maximum", "block.count", "net.count")
_DEFINITION_EVENTS = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_DISK_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB,
)

_Record = tuple[libvirt.virDomain, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Definition:
    """A VM as it was last defined, and by what to tell that this still holds."""

    vm: VM
    fingerprint: tuple[object, ...]
    read_at: float


@dataclass(frozen=True, slots=True)
class _Flags:
    """UUIDs of the domains that start with the host, and of those that have no definition."""

    autostart: frozenset[str]
    transient: frozenset[str]


class HostReader:
    """Reads one host again and again. One reading at a time; `watch` and its events at any time."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._definitions: dict[str, _Definition] = {}
        self._facts: Host | None = None
        self._storage = Storage()
        self._facts_at = 0.0
        self._changed: set[str] = set()
        self._changed_lock = threading.Lock()

    def watch(self, connection: libvirt.virConnect) -> None:
        """Ask a new connection for the events after which a definition is read anew."""
        self._facts = None  # another connection may be another libvirtd, or even another host
        for event in _DEFINITION_EVENTS:
            connection.domainEventRegisterAny(None, event, self._note_change, None)

    def _note_change(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, *_details: object
    ) -> None:
        with self._changed_lock:
            self._changed.add(domain.UUIDString())

    def read(self, connection: libvirt.virConnect) -> HostReading:
        """The host now. libvirtError when the host fails; one domain's failure is only its own."""
        now = time.monotonic()
        with self._changed_lock:
            changed, self._changed = self._changed, set()
        for uuid in changed:
            self._definitions.pop(uuid, None)
        facts = self._current_facts(connection, now)
        at = time.time()
        counters = host_counters(connection)
        vms = self._vms(connection, now)
        return HostReading(self._config.name, at, facts, counters, vms)

    def _current_facts(self, connection: libvirt.virConnect, now: float) -> Host:
        if self._facts is None or now > self._facts_at + REFRESH_SECONDS:
            self._facts = facts_of(self._config, connection)
            self._storage = storage_of(self._config, connection)
            self._facts_at = now
        return self._facts

    def _vms(self, connection: libvirt.virConnect, now: float) -> tuple[VMReading, ...]:
        active = statistics_of(connection, WANTED, _ACTIVE | _NOWAIT)
        inactive = statistics_of(connection, libvirt.VIR_DOMAIN_STATS_STATE, _INACTIVE)
        records = _by_uuid([*inactive, *active])  # of one that was just started, the active counts
        flags = _flags(connection)
        readings = [self._vm(record, flags, now) for record in records.values()]
        self._definitions = {k: v for k, v in self._definitions.items() if k in records}
        return tuple(sorted((r for r in readings if r is not None), key=lambda r: r.vm.name))

    def _vm(self, record: _Record, flags: _Flags, now: float) -> VMReading | None:
        """One VM; None when it vanished between two calls."""
        domain, statistics = record
        try:
            vm = self._definition(domain, statistics, now)
            job, progress = _job(domain)
        except libvirt.libvirtError as error:
            if code(error) == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        uuid = domain.UUIDString()
        state = vm_state(
            Condition(statistics.get("state.state", 0), statistics.get("state.reason", 0), job)
        )
        vm = replace(
            vm,
            state=state,
            persistent=uuid not in flags.transient,
            autostart=uuid in flags.autostart,
        )
        counters = vm_counters(statistics) if _is_active(domain) else None
        return VMReading(vm, state, counters, progress)

    def _definition(
        self, domain: libvirt.virDomain, statistics: Mapping[str, Any], now: float
    ) -> VM:
        """The VM as it is defined, from memory where nothing speaks for a change."""
        uuid = domain.UUIDString()
        sizes = disk_sizes(statistics)
        fingerprint = (domain.ID(), *map(statistics.get, _FINGERPRINT), *sorted(sizes.items()))
        known = self._definitions.get(uuid)
        if known and known.fingerprint == fingerprint and now < known.read_at + REFRESH_SECONDS:
            return known.vm
        try:
            vm = vm_of(domain.XMLDesc(0), replace(self._storage, sizes=sizes))
        except XMLError as error:
            memory = statistics.get("balloon.maximum", 0) * 1024
            vcpus = statistics.get("vcpu.current", 1)
            vm = unreadable(domain.name(), uuid, memory, vcpus, error)
        self._definitions[uuid] = _Definition(vm, fingerprint, now)
        return vm


def _is_active(domain: libvirt.virDomain) -> bool:
    return bool(domain.ID() >= 0)


def _job(domain: libvirt.virDomain) -> tuple[Job, JobProgress | None]:
    return read_job(domain) if _is_active(domain) else (Job.NONE, None)


def _by_uuid(records: Iterable[_Record]) -> dict[str, _Record]:
    return {record[0].UUIDString(): record for record in records}


def _flags(connection: libvirt.virConnect) -> _Flags:
    autostart = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    transient = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)
    return _Flags(
        frozenset(domain.UUIDString() for domain in autostart),
        frozenset(domain.UUIDString() for domain in transient),
    )


def statistics_of(connection: libvirt.virConnect, wanted: int, which: int) -> list[_Record]:
    """All domains' statistics in one call; one by one where a single domain spoils that call."""
    try:
        return list(connection.getAllDomainStats(wanted, which))
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
    active = which & _ACTIVE
    flag = (
        libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        if active
        else libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE
    )
    found = [_statistics_of_one(connection, d, wanted) for d in connection.listAllDomains(flag)]
    return [record for record in found if record is not None]


def _statistics_of_one(
    connection: libvirt.virConnect, domain: libvirt.virDomain, wanted: int
) -> _Record | None:
    """One domain's statistics, or its state alone; None when it vanished."""
    try:
        found: list[_Record] = connection.domainListGetStats([domain], wanted, _NOWAIT)
        return found[0]
    except (libvirt.libvirtError, IndexError):
        pass
    try:
        condition: Any = domain.state()  # annotated as text, but a list of two numbers
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return domain, {"state.state": condition[0], "state.reason": condition[1]}
