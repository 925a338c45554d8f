"""Hosts, VMs and where each was, brought up to date by what changed since the last snapshot."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from balancerd.adapters.sqlite.database import Database
from balancerd.core.files.codec import decode, encode, to_json
from balancerd.core.model import VM, Cluster, Host, PowerState, Snapshot, VMState
from balancerd.core.same import Same

_AT_REST = {VMState.SHUTOFF, VMState.MIGRATED, VMState.CRASHED}
_HOST = """INSERT INTO hosts (name, uuid, rack, power, cpu_reference_cores, cores, memory_bytes,
        cpu_model, can_sleep, definition, first_seen_at, changed_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET uuid = excluded.uuid, rack = excluded.rack,
        power = excluded.power, cpu_reference_cores = excluded.cpu_reference_cores,
        cores = excluded.cores, memory_bytes = excluded.memory_bytes,
        cpu_model = excluded.cpu_model, can_sleep = excluded.can_sleep,
        definition = excluded.definition, changed_at = excluded.changed_at, gone_at = NULL"""
_VM = """INSERT INTO vms (name, uuid, state, memory_bytes, vcpus, cpu_reference_cores, persistent,
        autostart, cpu_model, owner, tags, first_seen_at, changed_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET uuid = excluded.uuid, state = excluded.state,
        memory_bytes = excluded.memory_bytes, vcpus = excluded.vcpus,
        cpu_reference_cores = excluded.cpu_reference_cores, persistent = excluded.persistent,
        autostart = excluded.autostart, cpu_model = excluded.cpu_model, owner = excluded.owner,
        tags = excluded.tags, changed_at = excluded.changed_at, gone_at = NULL"""


class Inventory:
    """What the ledger has of hosts and VMs, held in memory so that only changes are written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hosts: Mapping[str, Host] = {}
        self._vms: Mapping[str, VM] = {}
        self._placement: Mapping[str, str] = {}
        self._empty: dict[str, float] = {}
        self._rollbacks: int | None = None

    def empty_since(self) -> dict[str, float]:
        """Hosts that are on and known to run no VM, and since when."""
        self._read()
        return dict(self._empty)

    def known_hosts(self) -> dict[str, Host]:
        """Hosts of the site as they were last seen."""
        rows = self._database.rows(
            "SELECT definition FROM hosts WHERE gone_at IS NULL ORDER BY name"
        )
        hosts = [decode(Host, json.loads(definition)) for (definition,) in rows]
        return {host.name: host for host in hosts}

    def record(self, snapshot: Snapshot, site: str) -> None:
        """Write what differs from the last snapshot."""
        self._read()
        cluster = snapshot.cluster
        placement = _placement(cluster)
        empty = self._empty_hosts(snapshot)
        stays = placement is self._placement or placement == self._placement
        same = cluster.hosts is self._hosts and cluster.vms is self._vms
        if not (same and stays and empty == self._empty):
            with self._database.transaction():
                if not self._hosts and site:
                    self._write_site(site, snapshot.at)
                self._write_hosts(cluster.hosts, snapshot.at)
                self._write_vms(cluster.vms, snapshot.at)
                if not stays:
                    self._write_placement(placement, snapshot.at)
                if empty != self._empty:
                    self._write_empty(empty)
        self._hosts, self._vms = cluster.hosts, cluster.vms
        self._placement, self._empty = placement, empty

    def _read(self) -> None:
        """Begin with what the file has, also after a transaction that was undone."""
        if self._rollbacks == self._database.rollbacks:
            return
        self._rollbacks = self._database.rollbacks
        self._hosts, self._vms = {}, {}  # written again as a whole by the next snapshot
        rows = self._database.rows("SELECT vm, host FROM placements WHERE until_at IS NULL")
        self._placement = {row[0]: row[1] for row in rows}
        rows = self._database.rows(
            "SELECT name, empty_since_at FROM hosts WHERE empty_since_at IS NOT NULL"
        )
        self._empty = {row[0]: row[1] for row in rows}

    def _empty_hosts(self, snapshot: Snapshot) -> dict[str, float]:
        cluster, at_rest = snapshot.cluster, _at_rest(Same(snapshot.cluster.vms))
        used = {host for vm, host in cluster.placement.items() if vm not in at_rest}
        used.update(cluster.flights.values(), snapshot.unknown_hosts())
        on = PowerState.ON
        return {
            name: self._empty.get(name, snapshot.at)
            for name, host in cluster.hosts.items()
            if name not in used and host.power is on
        }

    def _write_site(self, name: str, at: float) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO sites (name, first_seen_at) VALUES (?, ?)", (name, at)
        )

    def _write_hosts(self, hosts: Mapping[str, Host], at: float) -> None:
        if changed := _changed(self._hosts, hosts):
            self._database.execute_many(_HOST, [_host_row(host, at) for host in changed])
        self._write_gone("hosts", self._hosts, hosts, at)

    def _write_vms(self, vms: Mapping[str, VM], at: float) -> None:
        if changed := _changed(self._vms, vms):
            self._database.execute_many(_VM, [_vm_row(vm, at) for vm in changed])
        self._write_gone("vms", self._vms, vms, at)

    def _write_gone(
        self, table: str, before: Mapping[str, Any], now: Mapping[str, Any], at: float
    ) -> None:
        gone = set() if now is before else before.keys() - now.keys()
        if not before:  # the first snapshot of this process: ask the file
            rows = self._database.rows(f"SELECT name FROM {table} WHERE gone_at IS NULL")
            gone = {name for (name,) in rows} - now.keys()
        if gone:
            self._database.execute_many(
                f"UPDATE {table} SET gone_at = ? WHERE name = ?",
                [(at, name) for name in sorted(gone)],
            )

    def _write_placement(self, placement: Mapping[str, str], at: float) -> None:
        before = self._placement
        came = sorted(vm for vm, host in placement.items() if before.get(vm) != host)
        left = sorted((before.keys() - placement.keys()).union(before.keys() & came))
        self._database.execute_many(
            "UPDATE placements SET until_at = ? WHERE vm = ? AND until_at IS NULL",
            [(at, vm) for vm in left],
        )
        self._database.execute_many(
            "INSERT INTO placements (vm, host, from_at) VALUES (?, ?, ?)",
            [(vm, placement[vm], at) for vm in came],
        )

    def _write_empty(self, empty: Mapping[str, float]) -> None:
        names = sorted(
            name
            for name in empty.keys() | self._empty.keys()
            if empty.get(name) != self._empty.get(name)
        )
        self._database.execute_many(
            "UPDATE hosts SET empty_since_at = ? WHERE name = ?",
            [(empty.get(name), name) for name in names],
        )


def _placement(cluster: Cluster) -> Mapping[str, str]:
    """Where VMs are, as far as the cluster has both of them and their hosts."""
    found = cluster.placement
    if found.keys() <= cluster.vms.keys() and cluster.hosts.keys() >= {*found.values()}:
        return found
    hosts, vms = cluster.hosts, cluster.vms
    return {vm: host for vm, host in found.items() if vm in vms and host in hosts}


@lru_cache(maxsize=1)
def _at_rest(vms: Same[Mapping[str, VM]]) -> frozenset[str]:
    """VMs that do not run, and are not about to."""
    return frozenset(name for name, vm in vms.value.items() if vm.state in _AT_REST)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Any]:
    """Values that are new or different; the same object is not looked into."""
    if now is before:
        return []
    return [
        value
        for name, value in now.items()
        if (known := before.get(name)) is not value and known != value
    ]


def _host_row(host: Host, at: float) -> tuple[Any, ...]:
    return (
        *(host.name, host.uuid, host.rack, host.power, host.cpu, host.cores, host.memory),
        *(host.cpu_model, host.can_sleep, to_json(encode(host)), at, at),
    )


def _vm_row(vm: VM, at: float) -> tuple[Any, ...]:
    return (
        *(vm.name, vm.uuid, vm.state, vm.memory, vm.vcpus, vm.size, vm.persistent, vm.autostart),
        *(vm.cpu_model, vm.owner, to_json(dict(vm.tags)), at, at),
    )
