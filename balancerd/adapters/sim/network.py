"""The paths that migrations take over the site's links."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby, pairwise
from math import inf

import networkx as nx
import numpy as np

from balancerd.adapters.sim.sharing import Floats
from balancerd.core.model import Link


class Network:
    """Directed links of a site: each `Link` is two of them, one each way.

    `capacities` (bytes per second) ends with an endless link that stands for "no hop".
    """

    def __init__(self, links: Sequence[Link], hosts: Sequence[str]) -> None:
        self._graph: nx.DiGraph[str] = nx.DiGraph()
        bandwidths: list[float] = []
        for link in links:
            for a, b in ((link.a, link.b), (link.b, link.a)):
                self._graph.add_edge(a, b, index=len(bandwidths))
                bandwidths.append(link.bandwidth)
        self._hosts = tuple(hosts)
        self._is_host = frozenset(hosts)
        self._full = np.array([*bandwidths, inf])
        self.capacities: Floats = self._full.copy()
        self.path = cache(self._path)
        self._trunk = cache(self._shortest)

    def _path(self, source: int, target: int) -> tuple[int, ...]:
        """The directed links from one host to another, by index; shortest in hops."""
        begin, end = self._hosts[source], self._hosts[target]
        nodes = [begin, *self._trunk(self._uplink(begin), self._uplink(end)), end]
        nodes = [node for node, _ in groupby(nodes)]  # a host may be its own uplink
        return tuple(self._graph.edges[edge]["index"] for edge in pairwise(nodes))

    def _uplink(self, host: str) -> str:
        """The switch that all of a host's traffic passes; itself where there is none such."""
        neighbours = list(self._graph.successors(host))
        alone = len(neighbours) == 1 and neighbours[0] not in self._is_host
        return neighbours[0] if alone else host

    def _shortest(self, begin: str, end: str) -> list[str]:
        found: list[str] = nx.shortest_path(self._graph, begin, end)
        return found

    def cut(self, host: int) -> None:
        """Nothing comes or goes over the host's links until `mend`."""
        self.capacities[self._of(host)] = 0.0

    def mend(self, host: int) -> None:
        """The host's links carry what they always did."""
        affected = self._of(host)
        self.capacities[affected] = self._full[affected]

    def _of(self, host: int) -> list[int]:
        name = self._hosts[host]
        edges = [
            *self._graph.in_edges(name, data="index"),
            *self._graph.out_edges(name, data="index"),
        ]
        return [index for _, _, index in edges]
