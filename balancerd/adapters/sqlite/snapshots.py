"""Snapshots in the ledger: figures as columns, and definitions as text that is seldom made anew.

A site changes little between two snapshots but for its figures. So definitions of hosts, VMs and
links are kept apart from them, as lines of JSON in compressed blocks, and a block in which nothing
changed is written as it was. A host's power is a figure here.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from itertools import repeat
from operator import is_
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np

from balancerd.adapters.sqlite.database import Database
from balancerd.adapters.sqlite.packing import (
    Column,
    compress,
    damaged,
    decompress,
    pack,
    unpack,
)
from balancerd.core.columns import Forecasts, Loads, Table
from balancerd.core.files.codec import decode, encode, to_json
from balancerd.core.model import (
    VM,
    Cluster,
    Exclusion,
    Gap,
    Host,
    Link,
    PowerState,
    Snapshot,
    SplitBrain,
)
from balancerd.core.plain import as_dict
from balancerd.core.same import Same

_BLOCK = 1000  # definitions that are compressed together
_POWERS = tuple(PowerState)
_CODES = {power: code for code, power in enumerate(_POWERS)}
_LISTS: Mapping[str, type] = {"gaps": Gap, "exclusions": Exclusion, "split_brains": SplitBrain}

T = TypeVar("T")


class Snapshots:
    """Snapshots on their way into the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._packer = Packer()

    def keep_newest(self, snapshot: Snapshot) -> None:
        """Keep it as the cluster as last observed."""
        self._database.execute(
            "INSERT OR REPLACE INTO newest_snapshot (id, at, figures, definitions)"
            " VALUES (1, ?, ?, ?)",
            (snapshot.at, *self._packer.pack(snapshot)),
        )

    def keep_for(self, plan: int, snapshot: Snapshot) -> None:
        """Keep it as what a plan was made of."""
        figures, definitions = self._packer.pack(snapshot)
        row = {"plan": plan, "at": snapshot.at, "figures": figures, "definitions": definitions}
        self._database.insert("snapshots", row)


class Packer:
    """Makes bytes of the snapshots of one site; one that comes twice is packed once."""

    def __init__(self) -> None:
        self._last: tuple[Snapshot, tuple[bytes, bytes]] | None = None
        self._hosts: _Definitions[Host] = _Definitions(_as_if_on)
        self._vms: _Definitions[VM] = _Definitions(lambda vm: vm)
        self._links: _Definitions[Link] = _Definitions(lambda link: link)

    def pack(self, snapshot: Snapshot) -> tuple[bytes, bytes]:
        """Figures and definitions, which `snapshot_of` puts together again."""
        if self._last is None or self._last[0] is not snapshot:
            cluster = snapshot.cluster
            definitions = (
                self._hosts.packed(cluster.hosts.values()),
                self._vms.packed(cluster.vms.values()),
                self._links.packed(cluster.links),
            )
            self._last = (snapshot, (_figures(snapshot), b"".join(definitions)))
        return self._last[1]


def snapshot_of(figures: bytes, definitions: bytes) -> Snapshot:
    """The snapshot that was kept; LedgerError where it is damaged."""
    head, columns = unpack(figures)
    lines = decompress(definitions).splitlines()
    try:
        return _snapshot(head, columns, lines)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise damaged(error) from None


class _Definitions(Generic[T]):
    """Definitions of one kind as compressed lines. Each is encoded once for as long as it stays
    the same object, and a block of them compressed once for as long as it reads the same.

    `plain` takes away what is kept elsewhere.
    """

    def __init__(self, plain: Callable[[T], T]) -> None:
        self._plain = plain
        self._values: list[T] = []
        self._lines: dict[int, str] = {}  # by the identity of one of the values
        self._blocks: dict[str, bytes] = {}
        self._whole = b""

    def packed(self, values: Iterable[T]) -> bytes:
        """The definitions in their order, each a line."""
        now = list(values)
        if len(now) != len(self._values) or not all(map(is_, now, self._values)):
            lines = [self._lines.get(id(value)) or self._line(value) for value in now]
            self._values, self._lines = now, dict(zip(map(id, now), lines, strict=True))
            self._compress(lines)
        return self._whole

    def _line(self, value: T) -> str:
        return to_json(encode(self._plain(value))) + "\n"

    def _compress(self, lines: list[str]) -> None:
        blocks = ["".join(lines[begin : begin + _BLOCK]) for begin in range(0, len(lines), _BLOCK)]
        self._blocks = {
            block: self._blocks.get(block) or compress(block.encode()) for block in blocks
        }
        self._whole = b"".join(self._blocks[block] for block in blocks)


def _as_if_on(host: Host) -> Host:
    return host if host.power is PowerState.ON else replace(host, power=PowerState.ON)


# Writing figures


def _figures(snapshot: Snapshot) -> bytes:
    """All of a snapshot but its definitions; nothing of hosts and VMs that it does not have."""
    cluster = snapshot.cluster
    hosts, vms = _rows(Same(cluster.hosts)), _rows(Same(cluster.vms))
    homes = map(as_dict(cluster.placement).get, vms, repeat(""))
    place = list(map(hosts.get, homes, repeat(-1)))
    columns: dict[str, Column] = {
        "power": np.array([_CODES[h.power] for h in cluster.hosts.values()], dtype=np.uint8),
        "place": np.array(place, dtype=np.int32),
        **_overhead(snapshot.overhead, hosts),
        **_table("load", Loads.of(snapshot.loads), vms),
        **_table("host_load", Loads.of(snapshot.host_loads), hosts),
        **_table("forecast", Forecasts.of(snapshot.forecasts), vms),
    }
    return pack(_head(snapshot, len(hosts), len(vms)), columns)


@lru_cache(maxsize=2)
def _rows(named: Same[Mapping[str, Any]]) -> Mapping[str, int]:
    """The number of each name."""
    return {name: row for row, name in enumerate(named.value)}


def _rows_of(names: tuple[str, ...], rows: Mapping[str, int]) -> Column:
    """The numbers of some names; -1 where there is none."""
    if names == tuple(rows):
        return np.arange(len(names), dtype=np.int32)
    return np.array([rows.get(name, -1) for name in names], dtype=np.int32)


def _head(snapshot: Snapshot, hosts: int, vms: int) -> dict[str, Any]:
    cluster = snapshot.cluster
    return {
        "at": snapshot.at,
        "hosts": hosts,
        "vms": vms,
        "flights": dict(cluster.flights),
        "landing": {name: list(nodes) for name, nodes in cluster.landing.items()},
        "draining": sorted(snapshot.draining),
        **{key: [encode(item) for item in getattr(snapshot, key)] for key in _LISTS},
    }


def _overhead(
    overhead: Mapping[str, tuple[float, int]], hosts: Mapping[str, int]
) -> dict[str, Column]:
    kept = {name: both for name, both in overhead.items() if name in hosts}
    return {
        "overhead.row": np.array([hosts[name] for name in kept], dtype=np.int32),
        "overhead.cpu": np.array([cpu for cpu, _ in kept.values()], dtype=np.float64),
        "overhead.memory": np.array([memory for _, memory in kept.values()], dtype=np.int64),
    }


def _table(name: str, table: Table[Any], rows: Mapping[str, int]) -> dict[str, Column]:
    """The columns of a table, and of which hosts or VMs its rows are."""
    row = _rows_of(table.names, rows)
    known: Any = row >= 0
    if known.all():
        known = slice(None)
    found = {f"{name}.row": row[known]}
    for field in fields(table)[1:]:
        found[f"{name}.{field.name}"] = getattr(table, field.name)[known]
    return found


# Reading them


def _snapshot(head: dict[str, Any], columns: Mapping[str, Column], lines: list[bytes]) -> Snapshot:
    values = [json.loads(line) for line in lines]
    hosts, vms = head["hosts"], head["hosts"] + head["vms"]
    powers = [_POWERS[code] for code in columns["power"].tolist()]
    machines = [
        replace(decode(Host, value), power=power)
        for value, power in zip(values[:hosts], powers, strict=True)
    ]
    guests = [decode(VM, value) for value in values[hosts:vms]]
    names, guest_names = [host.name for host in machines], [vm.name for vm in guests]
    place = zip(guest_names, columns["place"].tolist(), strict=True)
    cluster = Cluster(
        hosts=MappingProxyType({host.name: host for host in machines}),
        vms=MappingProxyType({vm.name: vm for vm in guests}),
        placement=MappingProxyType({vm: names[row] for vm, row in place if row >= 0}),
        flights=MappingProxyType(head["flights"]),
        links=tuple(decode(Link, value) for value in values[vms:]),
        landing=MappingProxyType({vm: tuple(nodes) for vm, nodes in head["landing"].items()}),
    )
    return Snapshot(
        at=head["at"],
        cluster=cluster,
        loads=Loads(**_columns("load", columns, guest_names)),
        host_loads=Loads(**_columns("host_load", columns, names)),
        forecasts=Forecasts(**_columns("forecast", columns, guest_names)),
        overhead=MappingProxyType(_overhead_of(columns, names)),
        draining=frozenset(head["draining"]),
        **{key: tuple(decode(kind, item) for item in head[key]) for key, kind in _LISTS.items()},
    )


def _columns(name: str, columns: Mapping[str, Column], subjects: list[str]) -> dict[str, Any]:
    """The fields of a table."""
    prefix = f"{name}."
    found: dict[str, Any] = {
        key.removeprefix(prefix): column
        for key, column in columns.items()
        if key.startswith(prefix)
    }
    return {"names": tuple(subjects[row] for row in found.pop("row").tolist()), **found}


def _overhead_of(columns: Mapping[str, Column], hosts: list[str]) -> dict[str, tuple[float, int]]:
    names = (hosts[row] for row in columns["overhead.row"].tolist())
    both = zip(columns["overhead.cpu"].tolist(), columns["overhead.memory"].tolist(), strict=True)
    return dict(zip(names, both, strict=True))
