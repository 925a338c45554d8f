"""The site graph: paths, what is free on them, and that 10,000 hosts cost no more than racks."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.core.model import Link, Load
from balancerd.core.moving.topology import Topology, production
from tests.sites import site

RACKS = (
    *(Link(f"a{n}", "rack a", 100.0) for n in range(3)),
    *(Link(f"b{n}", "rack b", 100.0) for n in range(3)),
    Link("rack a", "core", 250.0),
    Link("rack b", "core", 150.0),
)
HOSTS = ("a0", "a1", "a2", "b0", "b1", "b2")


def passed(topology: Topology, source: str, target: str) -> list[tuple[str, str]]:
    path = topology.path(topology.row[source], topology.row[target])
    return [topology.ways[link] for link in path]


def test_a_path_leads_over_both_racks_and_the_core_and_back_another_way() -> None:
    topology = Topology.of(HOSTS, RACKS)
    there = passed(topology, "a0", "b1")
    assert there == [
        ("a0", "rack a"),
        ("rack a", "core"),
        ("core", "rack b"),
        ("rack b", "b1"),
    ]
    assert passed(topology, "b1", "a0") == [(b, a) for a, b in reversed(there)]
    assert passed(topology, "a0", "a2") == [("a0", "rack a"), ("rack a", "a2")]
    assert passed(topology, "a0", "a0") == []


def test_what_is_free_on_the_narrowest_link_is_what_a_migration_gets() -> None:
    """Dies if the target's own link, or the trunk, is left out."""
    topology = Topology.of(HOSTS, RACKS)
    free = topology.bandwidth.copy()
    free[topology.ways.index(("core", "rack b"))] = 60.0
    free[topology.ways.index(("rack a", "a2"))] = 30.0
    assert topology.narrowest(0, free).tolist() == [inf, 100.0, 30.0, 60.0, 60.0, 60.0]
    assert topology.hops(0).tolist() == [0, 2, 2, 4, 4, 4]
    assert topology.bottleneck(topology.path(0, 3), free) == "core > rack b"
    assert topology.bottleneck((), free) == ""


def test_of_two_ways_as_long_the_wider_is_taken() -> None:
    """Dies if only the number of links counts."""
    links = [
        Link("a", "left", 100.0),
        Link("left", "narrow", 10.0),
        Link("narrow", "right", 10.0),
        Link("left", "wide", 90.0),
        Link("wide", "right", 90.0),
        Link("b", "right", 100.0),
    ]
    topology = Topology.of(["a", "b"], links)
    assert ("left", "wide") in passed(topology, "a", "b")
    assert topology.narrowest(0, topology.bandwidth)[1] == 90.0


def test_links_side_by_side_are_one_as_wide_as_all_of_them() -> None:
    """Dies if the last one written wins, or if two cables make a switch of a host."""
    links = [
        Link("a", "left", 60.0),
        Link("left", "a", 40.0),
        Link("left", "right", 30.0),
        Link("right", "left", 30.0),
        Link("left", "right", 20.0),
        Link("b", "right", 100.0),
    ]
    topology = Topology.of(["a", "b"], links)
    assert passed(topology, "a", "b") == [("a", "left"), ("left", "right"), ("right", "b")]
    assert topology.narrowest(0, topology.bandwidth)[1] == 80.0
    one = [Link("a", "left", 100.0), Link("left", "right", 80.0), Link("b", "right", 100.0)]
    assert topology.ways == Topology.of(["a", "b"], one).ways
    assert topology.bandwidth.tolist() == [100.0, 100.0, 80.0, 80.0, 100.0, 100.0, inf]
    free = topology.free({"a": 25.0})
    assert free[topology.ways.index(("left", "right"))] == 55.0


def test_hosts_without_links_have_no_path_and_no_limit() -> None:
    topology = Topology.of(["a", "b"], ())
    assert topology.path(0, 1) == ()
    assert topology.narrowest(0, topology.bandwidth).tolist() == [inf, inf]
    assert topology.hops(0).tolist() == [0, 0]


def test_hosts_linked_directly_reach_each_other_and_through_each_other() -> None:
    chain = (Link("a", "b", 10.0), Link("b", "c", 20.0))
    topology = Topology.of(["a", "b", "c"], chain)
    assert passed(topology, "a", "c") == [("a", "b"), ("b", "c")]
    assert topology.narrowest(2, topology.bandwidth).tolist() == [10.0, 20.0, inf]


def test_what_vms_send_is_not_free_on_their_hosts_link_nor_on_their_racks() -> None:
    """Dies if the rack's uplink counts as idle while its hosts are busy."""
    snapshot = site("a0 4c 8G: v 1c 1G, w 1c 1G | a1 4c 8G: | b0 4c 8G:")
    quiet = snapshot.loads["v"]
    loads = {
        "v": Load(quiet.cpu, quiet.cpu_mean, quiet.memory, network=40.0),
        "w": Load(quiet.cpu, quiet.cpu_mean, quiet.memory, network=float("nan")),
    }
    traffic = production(replace(snapshot, loads=loads))
    assert traffic == {"a0": 40.0}
    topology = Topology.of(HOSTS, RACKS)
    free = dict(zip(topology.ways, topology.free(traffic).tolist(), strict=False))
    assert free["a0", "rack a"] == free["rack a", "a0"] == 60.0
    assert free["a1", "rack a"] == 100.0
    assert free["rack a", "core"] == 210.0
    assert free["rack b", "core"] == 150.0


def test_a_link_that_is_full_still_lets_a_tenth_through() -> None:
    topology = Topology.of(HOSTS, RACKS)
    free = topology.free({"a0": 1e9})
    assert free[topology.ways.index(("a0", "rack a"))] == pytest.approx(10.0)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[str], list[Link]]:
    """Switches that form a tree, and hosts on them."""
    switches = draw(st.integers(1, 6))
    links = [
        Link(f"s{draw(st.integers(0, n - 1))}", f"s{n}", float(draw(st.integers(1, 9))))
        for n in range(1, switches)
    ]
    hosts = [f"h{n}" for n in range(draw(st.integers(1, 6)))]
    links += [
        Link(host, f"s{draw(st.integers(0, switches - 1))}", float(draw(st.integers(1, 9))))
        for host in hosts
    ]
    return hosts, draw(st.permutations(links))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_paths_and_widths_are_those_of_the_whole_graph(tree: tuple[list[str], list[Link]]) -> None:
    """Against networkx on all nodes at once; in a tree there is but one path."""
    hosts, links = tree
    whole: nx.Graph[str] = nx.Graph()
    for link in links:
        whole.add_edge(link.a, link.b, width=link.bandwidth)
    topology = Topology.of(hosts, links)
    for a in topology.hosts:
        widths = topology.narrowest(topology.row[a], topology.bandwidth)
        hops = topology.hops(topology.row[a])
        for b in topology.hosts:
            steps = list(pairwise(nx.shortest_path(whole, a, b)))
            assert passed(topology, a, b) == steps
            narrowest = min((whole.edges[step]["width"] for step in steps), default=inf)
            assert widths[topology.row[b]] == narrowest
            assert hops[topology.row[b]] == len(steps)


def test_ten_thousand_hosts_cost_no_more_than_their_racks() -> None:
    """Dies (for memory or patience) if paths are kept for each pair of hosts."""
    hosts = [f"h{n:05d}" for n in range(10_000)]
    links = [Link(host, f"r{n // 40}", 1e9) for n, host in enumerate(hosts)]
    links += [Link(f"r{n}", f"s{n % 8}", 4e9) for n in range(250)]
    links += [Link(f"s{n}", "core", 1e10) for n in range(8)]
    topology = Topology.of(hosts, links)
    for source in range(0, 10_000, 100):
        widths = topology.narrowest(source, topology.bandwidth)
        assert widths[(source + 1) % 10_000] == 1e9
    kept = sum(trunk.size for trunk in topology._trunks.values())
    assert kept <= 250 * 250 * 4
