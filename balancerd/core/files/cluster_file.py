"""The cluster file: a snapshot as JSON that people keep, send with a report, and plan on.

Its shape is fixed: people script against it. A change that an old reader would misunderstand gets
a new version number.
"""

import json
from collections.abc import Mapping
from typing import Any

from balancerd.core.files.codec import CodecError, decode, encode
from balancerd.core.files.decoding import decode_list, decode_moment, decoder_of, refuse_unknown
from balancerd.core.files.json_lines import read_json
from balancerd.core.model import (
    VM,
    Cluster,
    Exclusion,
    Forecast,
    Gap,
    Host,
    Link,
    Load,
    Snapshot,
    SplitBrain,
)
from balancerd.core.units import format_time

VERSION = 1
_LISTS: Mapping[str, type] = {
    "links": Link,
    "gaps": Gap,
    "exclusions": Exclusion,
    "split_brains": SplitBrain,
}
_KEYS = dict.fromkeys(("version", "at", "hosts", "vms", *_LISTS, "draining"))


def cluster_file(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as a cluster file: hosts and VMs each with what is known of them beside it.

    Loads, forecasts and overheads of what the cluster does not have are not kept.
    """
    cluster = snapshot.cluster
    return {
        **head_of(snapshot),
        "hosts": [_host_entry(host, snapshot) for host in cluster.hosts.values()],
        "vms": [_vm_entry(vm, snapshot) for vm in cluster.vms.values()],
        "links": [encode(link) for link in cluster.links],
    }


def head_of(snapshot: Snapshot) -> dict[str, Any]:
    """What a cluster file says beside hosts, VMs and links."""
    return {
        "version": VERSION,
        "at": format_time(snapshot.at),
        "gaps": [encode(gap) for gap in snapshot.gaps],
        "exclusions": [encode(exclusion) for exclusion in snapshot.exclusions],
        "split_brains": [encode(split_brain) for split_brain in snapshot.split_brains],
        "draining": sorted(snapshot.draining),
    }


def _host_entry(host: Host, snapshot: Snapshot) -> dict[str, Any]:
    entry: dict[str, Any] = encode(host)
    if (load := snapshot.host_loads.get(host.name)) is not None:
        entry["load"] = encode(load)
    if (overhead := snapshot.overhead.get(host.name)) is not None:
        entry["overhead_reference_cores"] = encode(overhead[0])
        entry["overhead_bytes"] = overhead[1]
    return entry


def _vm_entry(vm: VM, snapshot: Snapshot) -> dict[str, Any]:
    entry: dict[str, Any] = encode(vm)
    if (place := snapshot.cluster.placement.get(vm.name)) is not None:
        entry["host"] = place
    if (target := snapshot.cluster.flights.get(vm.name)) is not None:
        entry["moving_to"] = target
    if (landing := snapshot.cluster.landing.get(vm.name)) is not None:
        entry["moving_to_numa"] = list(landing)
    if (load := snapshot.loads.get(vm.name)) is not None:
        entry["load"] = encode(load)
    if (forecast := snapshot.forecasts.get(vm.name)) is not None:
        entry["forecast"] = encode(forecast)
    return entry


def parse_cluster_file(text: str | bytes, source: str) -> Snapshot:
    """The snapshot in a cluster file's text; CodecError says what is wrong where in `source`."""
    return read_json(text, source, snapshot_of)


def snapshot_of(data: Any) -> Snapshot:
    """The snapshot that a cluster file holds; CodecError says what is wrong, and where."""
    if not isinstance(data, dict) or "version" not in data:
        raise CodecError('not a cluster file: "version" is missing')
    if data["version"] != VERSION:
        raise CodecError(
            f"version {json.dumps(data['version'])} of the cluster file is not known; "
            f"this balancerd reads version {VERSION}"
        )
    refuse_unknown(data, _KEYS)
    hosts, vms = _Hosts(), _VMs()
    decode_list(data, "hosts", hosts.add)
    decode_list(data, "vms", vms.add)
    vms.refuse_unknown_hosts(hosts.hosts)
    lists = {key: tuple(decode_list(data, key, decoder_of(kind))) for key, kind in _LISTS.items()}
    return Snapshot(
        at=decode_moment(data),
        cluster=Cluster(
            hosts.hosts, vms.vms, vms.placement, vms.flights, lists.pop("links"), vms.landing
        ),
        loads=vms.loads,
        host_loads=hosts.loads,
        forecasts=vms.forecasts,
        overhead=hosts.overhead,
        draining=frozenset(decode_list(data, "draining", decoder_of(str))),
        **lists,
    )


def _taken(item: dict[str, Any], key: str, kind: Any) -> Any:
    """A key taken out of an entry and decoded; None where it is missing."""
    if key not in item:
        return None
    try:
        return decode(kind, item.pop(key))
    except CodecError as error:
        raise error.under(key) from None


def _entry(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise CodecError("must be a table of keys and values")
    return dict(item)


class _Hosts:
    """The hosts of a file while they are read."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.loads: dict[str, Load] = {}
        self.overhead: dict[str, tuple[float, int]] = {}

    def add(self, item: Any) -> None:
        """Take in one entry."""
        entry = _entry(item)
        load = _taken(entry, "load", Load)
        cpu = _taken(entry, "overhead_reference_cores", float)
        memory = _taken(entry, "overhead_bytes", int)
        host: Host = decode(Host, entry)
        if host.name in self.hosts:
            raise CodecError(f'there is another host of the name "{host.name}"')
        self.hosts[host.name] = host
        if load is not None:
            self.loads[host.name] = load
        if cpu is not None or memory is not None:
            self.overhead[host.name] = (cpu or 0.0, memory or 0)


class _VMs:
    """The VMs of a file while they are read."""

    def __init__(self) -> None:
        self.vms: dict[str, VM] = {}
        self.placement: dict[str, str] = {}
        self.flights: dict[str, str] = {}
        self.landing: dict[str, tuple[int, ...]] = {}
        self.loads: dict[str, Load] = {}
        self.forecasts: dict[str, Forecast] = {}

    def add(self, item: Any) -> None:
        """Take in one entry."""
        entry = _entry(item)
        beside: tuple[tuple[str, Any, dict[str, Any]], ...] = (
            ("host", str, self.placement),
            ("moving_to", str, self.flights),
            ("moving_to_numa", tuple[int, ...], self.landing),
            ("load", Load, self.loads),
            ("forecast", Forecast, self.forecasts),
        )
        found = [(table, _taken(entry, key, kind)) for key, kind, table in beside]
        vm: VM = decode(VM, entry)
        if vm.name in self.vms:
            raise CodecError(f'there is another VM of the name "{vm.name}"')
        self.vms[vm.name] = vm
        for table, value in found:
            if value is not None:
                table[vm.name] = value

    def refuse_unknown_hosts(self, hosts: Mapping[str, Host]) -> None:
        """CodecError for the first VM on, or on its way to, a host that the file does not have."""
        for number, name in enumerate(self.vms):
            for key, table in (("host", self.placement), ("moving_to", self.flights)):
                if (host := table.get(name)) is not None and host not in hosts:
                    unknown = CodecError(f'there is no host "{host}" in the file')
                    raise unknown.under(key).under(number).under("vms")
