"""The site graph as arrays: which links a migration passes, and what is free on them.

Every link is two, one each way, known by its number; numbers index arrays of bytes per second. The
last number, `topology.none`, stands for "no link" and is endlessly wide, so that paths of different
length fit into one array. Links side by side between the same two nodes are one, as wide as all of
them. A host that hangs on a single switch sends everything over it: paths are looked for between
switches only, and only from those that something leaves. So all of a rack's hosts share their
rack's paths, and a site of 10,000 hosts costs no more than its racks. (A host with several links is
a switch of its own.)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray

from balancerd.core.columns import loads_of, rows_where
from balancerd.core.model import Cluster, Host, Link, Snapshot
from balancerd.core.moving.graphs import Network, network, shortest_paths
from balancerd.core.same import Same

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KEPT = 0.1  # of a link: so much counts as free however busy it is, or nothing would ever move


@dataclass(frozen=True)
class Topology:
    """Hosts by number, in the order of `hosts`, and the directed links between them."""

    hosts: tuple[str, ...]
    row: Mapping[str, int]
    ways: tuple[tuple[str, str], ...]  # from and to, by directed link
    bandwidth: Floats  # bytes per second by directed link, and the endless one
    _up: Ints  # by host: its link to its switch
    _down: Ints  # and the one back
    _switch: Ints  # by host: the number of its switch
    _switches: tuple[str, ...]
    _inner: tuple[Link, ...]  # the links between switches
    _number: Mapping[tuple[str, str], int]
    _trunks: dict[int, Ints] = field(default_factory=dict)  # by switch: paths to all others
    _paths: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, hosts: Iterable[str], links: Sequence[Link]) -> "Topology":
        """The topology of these hosts. Hosts that no link mentions have no path to anywhere."""
        names, links = tuple(sorted(hosts)), _bundled(links)
        known = frozenset(names)
        pairs = [(link, way) for link in links for way in ((link.a, link.b), (link.b, link.a))]
        number = {way: index for index, (_, way) in enumerate(pairs)}
        none = len(pairs)
        neighbours: dict[str, list[str]] = {}
        for _, (a, b) in pairs:
            neighbours.setdefault(a, []).append(b)
        uplink = {
            name: near[0]
            for name in names
            if len(near := neighbours.get(name, [])) == 1 and near[0] not in known
        }
        switches = tuple(sorted({uplink.get(name, name) for name in names}))
        index = {name: position for position, name in enumerate(switches)}
        inner = tuple(link for link in links if link.a not in uplink and link.b not in uplink)
        return cls(
            hosts=names,
            row={name: position for position, name in enumerate(names)},
            ways=tuple(way for _, way in pairs),
            bandwidth=np.array([*(link.bandwidth for link, _ in pairs), inf]),
            _up=_ints(number.get((name, uplink.get(name, "")), none) for name in names),
            _down=_ints(number.get((uplink.get(name, ""), name), none) for name in names),
            _switch=_ints(index[uplink.get(name, name)] for name in names),
            _switches=switches,
            _inner=inner,
            _number=number,
        )

    @property
    def none(self) -> int:
        """The number that stands for no link."""
        return len(self.ways)

    @cached_property
    def _network(self) -> Network:
        """What lies between switches; most sites have no links to look for a way among."""
        return network(self._switches, self._inner)

    def path(self, source: int, target: int) -> tuple[int, ...]:
        """The links from one host to another, in order; () where none is known."""
        if source == target or not self.ways:
            return ()
        if (source, target) not in self._paths:
            trunk = self._trunk(int(self._switch[source]))[self._switch[target]]
            steps = (self._up[source], *trunk, self._down[target])
            self._paths[source, target] = tuple(int(step) for step in steps if step != self.none)
        return self._paths[source, target]

    def narrowest(self, source: int, free: Floats) -> Floats:
        """For every host: what is free on the narrowest link from the source to it, bytes per
        second; endless where no path is known, and for the source itself."""
        trunks = free[self._trunk(int(self._switch[source]))].min(axis=1, initial=inf)
        ends = np.minimum(free[self._up[source]], free[self._down])
        found: Floats = np.minimum(trunks[self._switch], ends)
        found[source] = inf
        return found

    def hops(self, source: int) -> Ints:
        """For every host: how many links lie between it and the source."""
        trunk: Ints = (self._trunk(int(self._switch[source])) != self.none).sum(axis=1)
        ends = (self._down != self.none).astype(np.int64) + int(self._up[source] != self.none)
        found: Ints = trunk[self._switch] + ends
        found[source] = 0
        return found

    def bottleneck(self, path: Sequence[int], free: Floats) -> str:
        """The narrowest link of a path, as "from > to": the first of equals; "" for no path."""
        if not path:
            return ""
        return " > ".join(self.ways[min(path, key=lambda link: float(free[link]))])

    def free(self, traffic: Mapping[str, float]) -> Floats:
        """What the site's own traffic leaves of each link, bytes per second.

        `traffic` is what the VMs of each host send and receive together. All of it is counted on
        the host's links, either way, and on those of its switch, as nobody says where it goes.
        """
        if not traffic:
            return self.bandwidth.copy()
        sums = dict(traffic)
        for host, amount in traffic.items():
            switch = self._switches[self._switch[self.row[host]]]
            if switch != host:
                sums[switch] = sums.get(switch, 0.0) + amount
        used = np.zeros(len(self.bandwidth))
        mine = set(self.hosts)
        for number, (a, b) in enumerate(self.ways):
            inner = [end for end in (a, b) if end in mine] or [a, b]
            used[number] = max(sums.get(end, 0.0) for end in inner)
        free: Floats = np.maximum(self.bandwidth - used, KEPT * self.bandwidth)
        return free

    def _trunk(self, switch: int) -> Ints:
        """Paths from a switch to all others as rows of links, filled up with `none`. Each switch's
        are looked for once."""
        if switch not in self._trunks:
            found = shortest_paths(self._network, self._switches[switch], self._switches)
            rows = [[self._number[way] for way in ways] for ways in found]
            width = max(map(len, rows), default=0)
            padded = [row + [self.none] * (width - len(row)) for row in rows]
            self._trunks[switch] = np.array(padded, dtype=np.int64).reshape(len(rows), width)
        return self._trunks[switch]


def _bundled(links: Sequence[Link]) -> list[Link]:
    """The links, with those between the same two nodes added up, where the first of them stands."""
    bundles: dict[frozenset[str], Link] = {}
    for link in links:
        ends = frozenset((link.a, link.b))
        first = bundles.get(ends)
        bandwidth = link.bandwidth + (first.bandwidth if first else 0.0)
        bundles[ends] = replace(first or link, bandwidth=bandwidth)
    return list(bundles.values())


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def topology_of(cluster: Cluster) -> Topology:
    """The topology of a site; made once, as a site changes rarely."""
    return _found(Same(cluster.hosts), Same(cluster.links))


@lru_cache(maxsize=4)
def _found(hosts: Same[Mapping[str, Host]], links: Same[tuple[Link, ...]]) -> Topology:
    return _made(tuple(hosts.value), links)


@lru_cache(maxsize=4)
def _made(hosts: tuple[str, ...], links: Same[tuple[Link, ...]]) -> Topology:
    return Topology.of(hosts, links.value)


def free_now(snapshot: Snapshot) -> Floats:
    """What the site's own traffic leaves of each link of its topology at present."""
    return _free(Same(snapshot))


@lru_cache(maxsize=1)
def _free(snapshot: Same[Snapshot]) -> Floats:
    return topology_of(snapshot.value.cluster).free(production(snapshot.value))


def production(snapshot: Snapshot) -> dict[str, float]:
    """What the VMs of each host send and receive, bytes per second, where that is known."""
    traffic: dict[str, float] = {}
    cluster, loads = snapshot.cluster, loads_of(snapshot)
    busy = rows_where(loads.network > 0)
    for row, amount in zip(busy.tolist(), loads.network[busy].tolist(), strict=True):
        host = cluster.placement.get(loads.names[row], "")
        if host in cluster.hosts:
            traffic[host] = traffic.get(host, 0.0) + amount
    return traffic
