"""The graphs of a site and of a plan. The only module that knows networkx.

It takes half a second to import, and most plans have no use for it: so each function does. What
plans again and again has it loaded before the first time.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from balancerd.core.model import Link

if TYPE_CHECKING:
    import networkx as nx


def load() -> None:
    """Import networkx now, so that no plan has to wait for that."""
    import networkx  # noqa: F401


def swap_cycle(ways: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """A cycle among (source, target) ways of hosts, as its edges; [] if there is none."""
    import networkx as nx

    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_edges_from(sorted(ways))
    try:
        return [(a, b) for a, b in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return []


def overcrowded(choices: Mapping[str, frozenset[int]], at_most: int) -> tuple[list[str], list[int]]:
    """Names that have too few places among them, and these places; ([], []) if all can be placed.

    By Hall's theorem, a placement with `at_most` names in each place exists exactly if there is no
    such set of names: it is what a minimal cut leaves on the side of the names.
    """
    import networkx as nx

    graph: nx.DiGraph[tuple[str, str | int]] = nx.DiGraph()
    source, sink = ("end", "source"), ("end", "sink")
    for name in sorted(choices):
        graph.add_edge(source, ("name", name), capacity=1)
        for place in sorted(choices[name]):
            graph.add_edge(("name", name), ("place", place))
            graph.add_edge(("place", place), sink, capacity=at_most)
    if sink not in graph:
        return sorted(choices), []
    value, (before, _) = nx.minimum_cut(graph, source, sink)
    if value >= len(choices):
        return [], []
    tight = sorted(name for name in choices if ("name", name) in before)
    return tight, sorted({place for name in tight for place in choices[name]})


def reduced(after: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """The same order with nothing said twice: no action waits for what its own waits wait for.

    Actions wait for lower numbers only, so that one pass does: all that one waits for, as bits.
    """
    before: dict[int, int] = {}
    lean: dict[int, tuple[int, ...]] = {}
    for number in sorted(after):
        waits, kept = 0, []
        for earlier in sorted(after[number], reverse=True):
            if not waits >> earlier & 1:
                kept.append(earlier)
                waits |= before[earlier] | 1 << earlier
        before[number], lean[number] = waits, tuple(reversed(kept))
    return lean


class Network:
    """What lies between the hosts of a site, as a graph; only `graphs` looks inside."""

    def __init__(self, graph: "nx.Graph[str]") -> None:
        self.graph = graph


def network(nodes: Iterable[str], links: Sequence[Link]) -> Network:
    """The site graph's inner part. A way counts by its links; of two as long the wider wins."""
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(sorted(nodes))
    narrow = sum(1.0 / link.bandwidth for link in links)
    for link in sorted(links, key=lambda link: (link.a, link.b)):
        graph.add_edge(link.a, link.b, length=1.0 + 1.0 / (link.bandwidth * narrow))
    return Network(graph)


def shortest_paths(
    inside: Network, source: str, targets: Sequence[str]
) -> list[list[tuple[str, str]]]:
    """For each target the links from the source, each as (from, to); [] where there is no way."""
    import networkx as nx

    found = nx.single_source_dijkstra_path(inside.graph, source, weight="length")
    return [list(pairwise(found.get(target, ()))) for target in targets]
