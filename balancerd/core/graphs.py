"""The graphs of a site and of a plan. The only module that knows networkx."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import networkx as nx

from balancerd.core.model import Cluster


def swap_cycle(ways: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """A cycle among (source, target) ways of hosts, as its edges; [] if there is none."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_edges_from(sorted(ways))
    try:
        return [(a, b) for a, b in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return []


def dependency_graph(after: Mapping[int, Sequence[int]]) -> "nx.DiGraph[int]":
    """A plan's actions by number, with an edge from each to those that wait for it."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(sorted(after))
    graph.add_edges_from((earlier, number) for number in sorted(after) for earlier in after[number])
    return graph


def reduced(after: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """The same order with nothing said twice: no action waits for what its own waits wait for."""
    graph = nx.transitive_reduction(dependency_graph(after))
    return {number: tuple(sorted(graph.predecessors(number))) for number in sorted(after)}


def site_graph(cluster: Cluster) -> "nx.Graph[str]":
    """Hosts, racks and other nodes of the network; edges carry `bandwidth` in bytes per second."""
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(sorted(cluster.hosts))
    for link in cluster.links:
        graph.add_edge(link.a, link.b, bandwidth=link.bandwidth)
    return graph


def path(graph: "nx.Graph[str]", source: str, target: str) -> list[tuple[str, str]]:
    """The links between two hosts on a shortest way, each with its ends in order; [] if none."""
    try:
        nodes = nx.shortest_path(graph, source, target)
    except (nx.NetworkXNoPath, nx.NodeNotFound):
        return []
    return [(min(a, b), max(a, b)) for a, b in pairwise(nodes)]


def contention_graph(
    ways: Mapping[int, tuple[str, str]], graph: "nx.Graph[str]"
) -> "nx.Graph[int]":
    """Actions by number, joined where their migrations would share a host or a link."""
    users: dict[tuple[str, ...], list[int]] = {}
    for number in sorted(ways):
        source, target = ways[number]
        for shared in [(source,), (target,), *path(graph, source, target)]:
            users.setdefault(shared, []).append(number)
    contention: nx.Graph[int] = nx.Graph()
    contention.add_nodes_from(sorted(ways))
    for numbers in users.values():
        contention.add_edges_from(
            (a, b) for index, a in enumerate(numbers) for b in numbers[index + 1 :]
        )
    return contention
