"""The paths of migrations over the site graph."""

from collections.abc import Sequence

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.adapters.sim.network import Network
from balancerd.core.model import Link

RACKS = (Link("a", "r1", 1.0), Link("b", "r1", 2.0), Link("c", "r2", 3.0))
TREE = (*RACKS, Link("r1", "core", 4.0), Link("r2", "core", 5.0))


def bandwidths(
    links: Sequence[Link], hosts: Sequence[str], source: str, target: str
) -> list[float]:
    network = Network(links, hosts)
    path = network.path(hosts.index(source), hosts.index(target))
    return [network.capacities[index] for index in path]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [("a", "b", [1, 2]), ("a", "c", [1, 4, 5, 3]), ("c", "b", [3, 5, 4, 2])],
)
def test_a_path_climbs_no_higher_than_it_has_to(
    source: str, target: str, expected: list[float]
) -> None:
    assert bandwidths(TREE, ("a", "b", "c"), source, target) == expected


def test_there_and_back_use_different_directions_of_the_same_links() -> None:
    network = Network(TREE, ("a", "b", "c"))
    there, back = network.path(0, 2), network.path(2, 0)
    assert not set(there) & set(back)
    assert [index // 2 for index in there] == [index // 2 for index in reversed(back)]


def test_a_cut_host_loses_both_directions_and_gets_them_back() -> None:
    network = Network(TREE, ("a", "b", "c"))
    before = network.capacities.tolist()
    network.cut(0)
    assert [network.capacities[index] for index in (*network.path(0, 1), *network.path(1, 0))] == [
        *(0.0, 2.0),
        *(2.0, 0.0),
    ]
    network.mend(0)
    assert network.capacities.tolist() == before


@given(st.data())
def test_a_path_is_a_shortest_one_on_any_graph(data: st.DataObject) -> None:
    """The short cut over uplinks changes nothing. Kills: taking the first of several
    links, and taking another host for the switch."""
    hosts = tuple(f"h{number}" for number in range(data.draw(st.integers(2, 6))))
    nodes = (*hosts, "s0", "s1", "s2")
    edges = st.sets(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), min_size=3)
    graph = nx.Graph((a, b) for a, b in data.draw(edges) if a != b)
    graph.add_nodes_from(nodes)
    network = Network([Link(a, b, 1.0) for a, b in graph.edges], hosts)
    for source, target in ((0, 1), (1, 0), (0, len(hosts) - 1)):
        if nx.has_path(graph, hosts[source], hosts[target]):
            length = nx.shortest_path_length(graph, hosts[source], hosts[target])
            assert len(network.path(source, target)) == length
