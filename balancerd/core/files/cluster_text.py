"""Cluster files as text, one after the other, quickly: a site changes little between two of them.

`ClusterWriter.text` is the JSON of `cluster_file`, and only a way to write it sooner: definitions
are encoded once for as long as they stay the same values, loads and forecasts by columns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from math import isfinite
from typing import Any

from balancerd.core.columns import Forecasts, Loads, Table
from balancerd.core.files.cluster_file import cluster_file, head_of
from balancerd.core.files.codec import encode, to_json
from balancerd.core.files.keys import SPARSE, TIMES, default_of, key_of
from balancerd.core.model import Forecast, Load, Snapshot
from balancerd.core.units import format_time

_Written = dict[str, tuple[object, str]]  # by name: what was written, and how


class ClusterWriter:
    """Writes the snapshots of one site; what it wrote last is kept to be used again."""

    def __init__(self) -> None:
        self._hosts: _Written = {}
        self._vms: _Written = {}
        self._links: tuple[object, str] = ((), "[]")

    def text(self, snapshot: Snapshot) -> str:
        """The snapshot as a cluster file, without blanks."""
        if not _is_finite(snapshot):
            return to_json(cluster_file(snapshot))
        cluster = snapshot.cluster
        self._hosts = _definitions(cluster.hosts, self._hosts)
        self._vms = _definitions(cluster.vms, self._vms)
        if cluster.links is not self._links[0]:
            self._links = (cluster.links, to_json([encode(link) for link in cluster.links]))
        head = to_json(head_of(snapshot))[1:-1]
        hosts, vms = ",".join(self._host_entries(snapshot)), ",".join(self._vm_entries(snapshot))
        return f'{{{head},"hosts":[{hosts}],"vms":[{vms}],"links":{self._links[1]}}}'

    def _host_entries(self, snapshot: Snapshot) -> Iterable[str]:
        loads = _objects(Load, Loads.of(snapshot.host_loads))
        overhead = {
            name: f',"overhead_reference_cores":{float(cpu)!r},"overhead_bytes":{memory}'
            for name, (cpu, memory) in snapshot.overhead.items()
        }
        for name, (_, text) in self._hosts.items():
            yield f"{text}{_part('load', loads.get(name))}{overhead.get(name, '')}}}"

    def _vm_entries(self, snapshot: Snapshot) -> Iterable[str]:
        cluster = snapshot.cluster
        loads = _objects(Load, Loads.of(snapshot.loads))
        forecasts = _objects(Forecast, Forecasts.of(snapshot.forecasts))
        landing = {name: to_json(list(nodes)) for name, nodes in cluster.landing.items()}
        quoted = {host: to_json(host) for host in {*cluster.placement.values()}}
        flights = {name: to_json(host) for name, host in cluster.flights.items()}
        for name, (_, text) in self._vms.items():
            place = cluster.placement.get(name)
            where = "" if place is None else f',"host":{quoted[place]}'
            way = _part("moving_to", flights.get(name)) if flights else ""
            nodes = _part("moving_to_numa", landing.get(name)) if landing else ""
            load, forecast = loads.get(name), forecasts.get(name)
            yield f"{text}{where}{way}{nodes}{_part('load', load)}{_part('forecast', forecast)}}}"


def _definitions(values: Mapping[str, object], written: _Written) -> _Written:
    """Every value with its text, which still wants its closing brace."""
    found: _Written = {}
    for name, value in values.items():
        old = written.get(name)
        same = old is not None and old[0] is value
        found[name] = old if old and same else (value, to_json(encode(value))[:-1])
    return found


def _part(key: str, text: str | None) -> str:
    return "" if text is None else f',"{key}":{text}'


def _objects(kind: type, table: Table[Any]) -> dict[str, str]:
    """The entries of a table as JSON objects, by name."""
    columns = [
        _members(kind, field.name, default_of(field), getattr(table, field.name).tolist())
        for field in fields(kind)
    ]
    return {
        name: f"{{{''.join(members)[1:]}}}"
        for name, *members in zip(table.names, *columns, strict=True)
    }


def _members(kind: type, name: str, default: Any, values: list[Any]) -> list[str]:
    """One field of all entries as members of JSON objects, a comma before each; "" where the
    field is left out. NaN is None."""
    key = f',"{key_of(kind, name)}":'
    if (kind, name) in TIMES:
        times = {value: f'{key}"{format_time(value)}"' for value in set(values)}
        return ["" if value == default else times[value] for value in values]
    if kind not in SPARSE:
        return [f"{key}{value!r}" for value in values]
    return ["" if value == default or value != value else f"{key}{value!r}" for value in values]


def _is_finite(snapshot: Snapshot) -> bool:
    """Whether all numbers are such as JSON knows; a sum is finite only if all of it is."""
    loads, host_loads = Loads.of(snapshot.loads), Loads.of(snapshot.host_loads)
    forecasts = Forecasts.of(snapshot.forecasts)
    sums = [
        float(column.sum())
        for table in (loads, host_loads)
        for column in (table.cpu, table.cpu_mean, table.steal, table.since)
    ]
    sums += [float(forecasts.cpu.sum()), float(forecasts.spread.sum())]
    return all(map(isfinite, sums)) and all(isfinite(cpu) for cpu, _ in snapshot.overhead.values())
