"""VMs that are bound to NUMA nodes, and the rule that the nodes have room for them."""

from dataclasses import replace

import pytest

from balancerd.core.check import check
from balancerd.core.model import Method, Snapshot, VMState
from balancerd.core.observation import HostReading, VMReading
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import Gate, refuses, violations
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.core.sensing.whereabouts import whereabouts
from tests.numa import site
from tests.sites import NOW, changed, policy

FULL = {"overload": 1.0, "release": 0.99, "landing": 0.98, "idle": 0.5}


def rules() -> Policy:
    return policy(
        capacity={"cpu_overcommit": 1.0, "memory_reserve_share": 0.0},
        thresholds={"cpu": FULL, "memory": FULL},
    )


def layout_of(snapshot: Snapshot) -> Layout:
    return lay_out(snapshot, rules(), History(), NOW)


def move(vm: str, *numa: int) -> Move:
    return Move(1, vm, "h1", "h2", Method.PRE_COPY, "", numa=numa)


def faults(snapshot: Snapshot, planned: Move) -> tuple[str, ...]:
    return check(snapshot, rules(), Plan(NOW, "", "", (planned,), "", 0.0, 0.0)).violations


def test_a_node_that_holds_more_than_it_has_breaks_the_rule() -> None:
    """The host has room enough in all. Dies if nodes are summed up."""
    snapshot = site(h1="4+4: a 3/0, b 3/0")
    assert [found.key for found in violations(snapshot, rules())] == [("NUMA", "h1 node 0 vCPUs")]


def test_a_host_without_a_node_that_has_room_refuses() -> None:
    """Two free cores on each of two nodes take no VM of four. Dies without the check."""
    snapshot = site(h1="8: a 4/0", h2="4+4: b 2/0, c 2/1")
    refusal = refuses(layout_of(snapshot), 0, 1)
    assert refusal is not None
    assert refusal.constraint == "NUMA"
    assert "1 with 4 vCPUs" in refusal.detail


def test_a_vm_on_two_nodes_needs_two_with_room() -> None:
    """Dies if one node that has room is enough."""
    snapshot = site(h1="8+8: a 8/01", h2="4+4: b 1/0", h3="4+4:")
    assert refuses(layout_of(snapshot), 0, 1) is not None
    assert refuses(layout_of(snapshot), 0, 2) is None


def test_a_vm_goes_to_the_fullest_node_that_has_room_and_leaves_its_own() -> None:
    """Dies if the emptiest is taken, or if what left goes on being charged."""
    layout = layout_of(site(h1="8+8: a 4/1", h2="8+8: b 2/0, c 5/1"))
    layout.move(0, 1)
    assert layout.seat(0) == ((0,),)
    assert layout.nodes is not None
    assert layout.nodes.used_vcpus.tolist() == [0.0, 0.0, 6.0, 5.0]


def test_a_vm_that_is_bound_to_none_is_not_charged_to_any() -> None:
    layout = layout_of(site(h1="4+4: a 8", h2="4+4: b 1/0"))
    assert layout.nodes is not None
    assert layout.nodes.used_vcpus.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_a_site_without_bound_vms_has_no_nodes_to_reckon_with() -> None:
    assert layout_of(site(h1="4+4: a 2")).nodes is None


def test_the_gate_holds_a_move_to_the_nodes_it_means() -> None:
    """Dies if any node with room will do: two moves that mean one node would both start."""
    snapshot = site(h1="8+8: a 3/0, z 2/1", h2="4+4: b 2/0")
    gate = Gate.of(snapshot, rules(), History(), NOW)
    refusal = gate.refuses(move("a", 0))
    assert refusal is not None
    assert refusal.constraint == "NUMA"
    assert gate.refuses(move("a", 1)) is None
    gate.admit(move("a", 1))
    assert gate.refuses(move("z", 1)) is not None
    assert gate.refuses(move("z", 0)) is None


def test_a_vm_under_way_is_charged_where_it_will_land_else_everywhere() -> None:
    """Dies if it is charged to the node of its own number."""
    snapshot = site(h1="8+8: a 3/0", h2="4+4:")
    blind = replace(snapshot, cluster=snapshot.cluster.begin("a", "h2"))
    told = replace(snapshot, cluster=snapshot.cluster.begin("a", "h2", (1,)))
    for seen, used in ((blind, [3.0, 3.0]), (told, [0.0, 3.0])):
        nodes = layout_of(seen).nodes
        assert nodes is not None
        assert nodes.used_vcpus[2:].tolist() == used


def test_once_it_has_landed_a_vm_is_bound_to_its_new_nodes() -> None:
    cluster = site(h1="8+8: a 3/0", h2="4+4:").cluster
    landed = cluster.begin("a", "h2", (1,)).finish("a", "h2")
    assert landed.vms["a"].numa == (1,)
    assert landed.landing == {}


def test_the_half_that_waits_on_the_target_says_on_which_nodes() -> None:
    """Dies if the source's own nodes are taken for it."""
    here, there = replace(site(h1="4+4: a 2/0").cluster.vms["a"], uuid="1"), (1,)
    readings = [
        HostReading("h1", NOW, vms=(VMReading(here, VMState.RUNNING, None),)),
        HostReading("h2", NOW, vms=(VMReading(replace(here, numa=there), VMState.INCOMING, None),)),
    ]
    found = whereabouts(readings, {"h1", "h2"})
    assert (found.flights, found.landing) == ({"a": "h2"}, {"a": there})


@pytest.mark.parametrize(
    ("numa", "fault"),
    [
        ((1,), ""),
        ((0,), "vCPUs of NUMA node 0"),
        ((), "not told which"),
        ((2,), "not told which"),
        ((0, 1), "not told which"),
    ],
)
def test_the_checker_holds_moves_to_the_nodes_they_mean(numa: tuple[int, ...], fault: str) -> None:
    """Dies if the checker takes a host's room for a node's, or a move that names no node."""
    found = faults(site(h1="8+8: a 3/0", h2="4+4: b 2/0"), move("a", *numa))
    assert bool(found) == bool(fault)
    assert all(fault in text for text in found)


def test_a_vm_that_keeps_its_nodes_only_goes_where_they_have_room() -> None:
    """libvirt takes the binding along. Dies if another node's room is counted, here or there."""
    free = site(h1="8+8: a 3/0", h2="4+4: b 2/0", h3="4+4: c 2/1")
    kept = changed(free, vm="a", numa_kept=True)
    for snapshot, refused in ((free, [False, False]), (kept, [True, False])):
        layout = layout_of(snapshot)
        assert [refuses(layout, 0, row) is not None for row in (1, 2)] == refused
    assert faults(free, move("a", 1)) == ()
    assert "same numbers" in faults(kept, move("a", 1))[0]
