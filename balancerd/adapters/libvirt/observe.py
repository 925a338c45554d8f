"""Reads one host: a few bulk calls, and what is remembered of its VMs."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from balancerd.adapters.libvirt.clocks import HostClock
from balancerd.adapters.libvirt.definition import Storage
from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.facts import facts_of, storage_of
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.inventory import Inventory
from balancerd.adapters.libvirt.jobs import is_stuck, read_job
from balancerd.adapters.libvirt.states import Condition, Job, vm_state
from balancerd.adapters.libvirt.statistics import WANTED, host_counters, vm_counters
from balancerd.core.model import Host
from balancerd.core.observation import HostReading, JobProgress, VMReading, VMReadings
from balancerd.steady import CLOCK

REFRESH_SECONDS = 600.0  # a host's facts are read anew after so long
SAVED = "its saved memory"

_ACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
_INACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

_Record = tuple[libvirt.virDomain, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Flags:
    """UUIDs of the domains that start with the host, of those that have no definition, of those
    whose memory was saved there, from which they go on when they are started, and of those of which
    there are snapshots."""

    autostart: frozenset[str]
    transient: frozenset[str]
    saved: frozenset[str]
    snapshots: frozenset[str]


class HostReader:
    """Reads one host again and again, one reading at a time."""

    def __init__(
        self, config: HostConfig, clock: HostClock, inventory: Inventory | None = None
    ) -> None:
        self._config, self._clock = config, clock
        self._inventory = inventory or Inventory()
        self._connection: libvirt.virConnect | None = None
        self._facts: Host | None = None
        self._storage = Storage()
        self._facts_at = 0.0

    def after_hang(self) -> "HostReader":
        """A reader to go on with while a call of this one hangs."""
        return HostReader(self._config, self._clock, self._inventory.after_hang())

    def read(self, connection: libvirt.virConnect) -> HostReading:
        """The host now. libvirtError when the host fails; one domain's failure is only its own."""
        if connection is not self._connection:
            self._take_on(connection)
        self._inventory.forget_changed()
        facts = self._current_facts(connection)
        at = CLOCK.now()
        counters = host_counters(connection)
        return HostReading(self._config.name, at, facts, counters, self._vms(connection))

    def _take_on(self, connection: libvirt.virConnect) -> None:
        """A new connection: perhaps to another libvirtd, or even another host."""
        self._connection, self._facts = connection, None
        self._inventory.watch(connection)
        self._clock.watch(connection)

    def _current_facts(self, connection: libvirt.virConnect) -> Host:
        now = time.monotonic()
        if self._facts is None or now > self._facts_at + REFRESH_SECONDS:
            facts = facts_of(self._config, connection)
            self._storage = storage_of(self._config, connection)
            self._facts = replace(facts, storage=self._storage.names())
            self._facts_at = now
        clock = self._clock.shown(self._facts.clock)
        if clock != self._facts.clock:
            self._facts = replace(self._facts, clock=clock)
        return self._facts

    def _vms(self, connection: libvirt.virConnect) -> VMReadings:
        active = statistics_of(connection, WANTED, _ACTIVE | _NOWAIT)
        inactive = statistics_of(connection, libvirt.VIR_DOMAIN_STATS_STATE, _INACTIVE)
        records = _by_uuid([*inactive, *active])  # of one that was just started, the active counts
        flags = _flags(connection)
        readings = [self._vm(record, flags) for record in records.values()]
        self._inventory.keep(records.keys())
        found = sorted((r for r in readings if r is not None), key=lambda r: r.vm.name)
        return VMReadings.of(found)

    def _vm(self, record: _Record, flags: _Flags) -> VMReading | None:
        """One VM; None when it vanished between two calls."""
        domain, statistics = record
        try:
            job, progress = _job(domain)
            vm = self._inventory.vm(domain, job, statistics, self._storage)
        except libvirt.libvirtError as error:
            if code(error) == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        uuid = domain.UUIDString()
        condition = Condition(
            statistics.get("state.state", 0), statistics.get("state.reason", 0), job
        )
        vm = replace(
            vm,
            state=vm_state(condition),
            persistent=uuid not in flags.transient,
            autostart=uuid in flags.autostart,
            snapshots=uuid in flags.snapshots,
            left_behind=(*vm.left_behind, *([SAVED] if uuid in flags.saved else [])),
        )
        counters = vm_counters(statistics) if _is_active(domain) else None
        return VMReading(vm, vm.state, counters, progress)


def _is_active(domain: libvirt.virDomain) -> bool:
    return bool(domain.ID() >= 0)


def _job(domain: libvirt.virDomain) -> tuple[Job, JobProgress | None]:
    """The job as far as it can be told without waiting for a QEMU that does not answer."""
    if not _is_active(domain):
        return Job.NONE, None
    if is_stuck(domain):
        return Job.UNTOLD, None
    try:
        return read_job(domain)
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_OPERATION_TIMEOUT:  # somebody else waits for it
            return Job.UNTOLD, None
        raise


def _by_uuid(records: Iterable[_Record]) -> dict[str, _Record]:
    return {record[0].UUIDString(): record for record in records}


def _flags(connection: libvirt.virConnect) -> _Flags:
    def which(flag: int) -> frozenset[str]:
        return frozenset(domain.UUIDString() for domain in connection.listAllDomains(flag))

    return _Flags(
        autostart=which(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART),
        transient=which(libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT),
        saved=which(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE),
        snapshots=which(libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT),
    )


def statistics_of(connection: libvirt.virConnect, wanted: int, which: int) -> list[_Record]:
    """All domains' statistics in one call; one by one where a single domain spoils that call."""
    try:
        return list(connection.getAllDomainStats(wanted, which))
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
    active, inactive = (
        libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE,
        libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE,
    )
    domains = connection.listAllDomains(active if which & _ACTIVE else inactive)
    found = [_statistics_of_one(connection, domain, wanted) for domain in domains]
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
