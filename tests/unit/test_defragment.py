"""Objective "defragment": room in one piece for big VMs, with few moves."""

from dataclasses import replace
from itertools import combinations, product
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from balancerd.core.model import Cluster, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.placing.assess import assess_layout
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.room import Size, big_vm, free_room, stranded
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Plan
from balancerd.core.planner.defragment.balance import Menu, Terms, balanced
from balancerd.core.planner.defragment.master import Master
from balancerd.core.planner.defragment.options import options_of
from balancerd.core.planner.defragment.prices import relax
from balancerd.core.planner.defragment.site import site_of
from balancerd.core.planner.draft import Draft
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB, MINUTE
from tests.numa import site
from tests.property import drawn
from tests.sites import NOW, planned, policy, told

FULL = {"overload": 1.0, "release": 0.99, "landing": 0.98, "idle": 0.5}


def rules(big: int, budget: int = 10, worth: float = 0.0, **capacity: float) -> Policy:
    return policy(
        "defragment",
        capacity={"cpu_overcommit": 1.0, "memory_reserve_share": 0.0} | capacity,
        limits={"per_plan": budget, "gain": 0.0},
        thresholds={"cpu": FULL, "memory": FULL},
        defragment={"vcpus": big, "worth": worth},
    )


def layout_of(snapshot: Snapshot, by: Policy) -> Layout:
    return lay_out(snapshot, by, History(), NOW)


def rooms_after(snapshot: Snapshot, big: int, made: Plan | None = None) -> int:
    """Big VMs that fit, counted from the VMs alone."""
    cluster = snapshot.cluster
    for move in made.moves if made else ():
        cluster = cluster.begin(move.vm, move.target, move.numa).finish(move.vm, move.target)
    free = free_cores(cluster)
    return sum(int(cores) // big for cores in free.values())


def free_cores(cluster: Cluster) -> dict[tuple[str, int], float]:
    """Free cores of each node; a host without nodes is one."""
    free = {
        (name, number): cores
        for name, host in cluster.hosts.items()
        for number, cores in enumerate([node.cpu for node in host.numa] or [host.cpu])
    }
    for name, vm in cluster.vms.items():
        for node in vm.numa or (0,):
            free[cluster.placement[name], node] -= vm.vcpus / len(vm.numa or (0,))
    return free


# --- what it decides


def test_a_small_vm_goes_where_there_is_stranded_room() -> None:
    """Dies if the room on a target is not looked at: to h3 it would make as much as it takes."""
    snapshot = site(h1="8: a 2", h2="8: b 6", h3="8:")
    assert told(planned(snapshot, rules(8))) == ["a h1>h2"]


def test_room_is_counted_node_by_node() -> None:
    """Four free cores on each of two nodes are no room for eight. Dies if nodes are summed up."""
    snapshot = site(h1="8+8: a 4/0, b 4/1", h2="8+8: c 8/0, d 4/1")
    made = planned(snapshot, rules(8))
    assert [move.numa for move in made.moves] == [(1,)]
    assert rooms_after(snapshot, 8, made) == 1


def test_one_vm_on_two_nodes_can_free_both() -> None:
    """Dies if VMs that lie on several nodes are left where they are."""
    snapshot = site(h1="8+8: a 4/01", h2="8+8: b 6/0, c 6/1")
    made = planned(snapshot, rules(8))
    assert told(made) == ["a h1>h2"]
    assert made.moves[0].numa == (0, 1)
    assert rooms_after(snapshot, 8, made) == 2


def test_two_vms_leave_one_host_where_one_is_not_enough() -> None:
    """Dies if no more than one VM leaves a node."""
    snapshot = site(h1="8: a 2, b 2", h2="8: c 3, d 3", h3="8: e 3, f 3")
    made = planned(snapshot, rules(8, budget=2))
    assert sorted(told(made)) in (["a h1>h2", "b h1>h3"], ["a h1>h3", "b h1>h2"])


def test_a_place_that_another_move_frees_is_taken_once_it_is_free() -> None:
    """c makes way for b, and b for a. Dies if one pass over the moves in one round is all."""
    snapshot = site(h1="8: a 4", h2="8: b 3, y 2, z 2", h3="8: c 2, x 5", h4="8: d 6")
    made = planned(snapshot, rules(8, budget=3))
    assert told(made) == ["c h3>h4", "b h2>h3", "a h1>h2"]


@pytest.mark.parametrize(("worth", "moves"), [(0.0, 2), (0.4, 2), (0.6, 0), (1.0, 0)])
def test_moves_have_to_make_room_for_their_worth(worth: float, moves: int) -> None:
    """Two moves for one big VM. Dies if `worth` is not charged."""
    snapshot = site(h1="8: a 2, b 2", h2="8: c 6", h3="8: d 6")
    assert len(planned(snapshot, rules(8, worth=worth)).moves) == moves


def test_the_budget_of_moves_is_kept() -> None:
    """One move cannot make room here, so none is made. Dies if the budget is not a limit."""
    snapshot = site(h1="8: a 2, b 2", h2="8: c 6", h3="8: d 6")
    assert planned(snapshot, rules(8, budget=1)).moves == ()


def test_vms_tied_by_rules_stay_and_others_make_the_room() -> None:
    """Dies if a pinned VM is taken for one of its size."""
    snapshot = site(h1="8: a 2", h2="8: b 2", h3="8: c 6")
    stays = {"kind": "pin", "vms": ("a",), "hosts": ("h1",)}
    pinned = Policy.model_validate(rules(8).model_dump() | {"constraint": (stays,)})
    assert told(planned(snapshot, pinned)) == ["b h2>h3"]


# --- for which size


def test_without_a_size_it_is_the_largest_common_one() -> None:
    """One odd giant among a hundred is no flavour. Dies without the share that a size must have."""
    small = {f"h{n}": f"32: s{n} 4" for n in range(100)}
    snapshot = site(**small, big="64: giant 48", medium="32: m1 8, m2 8")
    by = rules(0)
    assert big_vm(layout_of(snapshot, by)) == Size(8.0, 8.0 * GIB)
    assert layout_of(snapshot, by).big == (8.0, 8.0 * GIB)


def test_on_an_empty_site_there_is_nothing_to_make_room_for() -> None:
    assert planned(site(h1="8:", h2="8:"), rules(0)).moves == ()


def test_memory_counts_where_the_size_has_some() -> None:
    """8 free cores with 6 GiB are no room for 8 with 8. Dies if memory is not compared."""
    snapshot = site(h1="8+8: a 4/0")
    layout = layout_of(snapshot, rules(4))
    free = free_room(layout)
    assert free.rooms(Size(4.0, 0.0)).tolist() == [1, 2]
    assert free.rooms(Size(4.0, 8.0 * GIB)).tolist() == [1, 1]
    assert free.rooms(Size(4.0, 16.0 * GIB)).tolist() == [0, 0]  # landing leaves 2 % free


def test_what_floats_lies_evenly_on_all_nodes() -> None:
    """Of two nodes of 8, with 4 bound to one, a VM of 4 leaves 2 and 6."""
    layout = layout_of(site(h1="8+8: a 4/0, b 4"), rules(4))
    assert free_room(layout).vcpus.tolist() == [2.0, 6.0]


def test_stranded_is_the_share_of_free_room_that_no_big_vm_can_use() -> None:
    layout = layout_of(site(h1="8: a 4", h2="8: b 2", h3="8: c 8"), rules(4))
    everywhere = np.ones(3, dtype=np.bool_)
    assert stranded(layout, Size(4.0, 0.0), everywhere) == pytest.approx(0.2)  # 2 of 10
    assert stranded(layout, Size(8.0, 0.0), everywhere) == 1.0


# --- how good it is


def test_several_vms_on_both_nodes_of_a_host_leave_it_together() -> None:
    """Dies if no more than one VM that lies on several nodes may leave a host."""
    snapshot = site(h1="8+8: a 4/01, b 4/01", h2="8+8: c 6/0, d 6/1", h3="8+8: e 6/0, f 6/1")
    assert told(planned(snapshot, rules(8, budget=2))) == ["a h1>h2", "b h1>h3"]


def many_hosts(random: Random) -> Snapshot:
    """A site where small VMs find room everywhere, and big ones hardly anywhere."""
    wholes = ["1/0, 2/1", "2/0, 2/0, 1/1", "4/0, 4/1", "6/0", "7/0, 5/1", "2/01", "4/01, 3/0"]
    wholes += ["8/01, 4/01", "12/01", "2/01, 2/01, 4/01", "16/01", "8/0, 8/1", "1/0, 8/1", "8/1"]
    hosts = {}
    for index in range(80):
        guests = random.choice(wholes).split(", ")
        named = ", ".join(f"v{index}x{number} {guest}" for number, guest in enumerate(guests))
        hosts[f"h{index:02}"] = f"8+8: {named}"
    return site(**hosts)


@pytest.mark.parametrize("seed", range(3))
def test_where_room_to_land_is_plentiful_nothing_less_than_the_bound_is_reached(seed: int) -> None:
    """Dies if VMs that find room anywhere are not sent there."""
    snapshot = many_hosts(Random(seed))
    for budget in (5, 20, 60):
        by = rules(8, budget)
        layout = layout_of(snapshot, by)
        draft = Draft(layout, assess_layout(layout, NOW), History(), NOW, layout.copy())
        bound = relax(options_of(site_of(draft)), budget, 0.001).bound
        reached = rooms_after(snapshot, 8, planned(snapshot, by)) - rooms_after(snapshot, 8)
        assert reached >= int(bound), budget


def drawn_site(random: Random) -> Snapshot:
    """Two or three crowded hosts of one or two nodes."""
    hosts, number = {}, 0
    nodes = random.choice([1, 2])
    for index in range(random.randint(2, 3)):
        free, guests = [8] * nodes, []
        for _ in range(random.randint(1, 4)):
            vcpus = random.choice([1, 2, 2, 4])
            on = random.choice([(0,), (1,), (0, 1)][: 3 if nodes == 2 else 1])
            if all(free[node] >= vcpus for node in on):
                for node in on:
                    free[node] -= vcpus
                text = "".join(map(str, on)) if nodes == 2 else ""
                guests.append(f"v{number} {vcpus * len(on)}" + (f"/{text}" if text else ""))
                number += 1
        hosts[f"h{index}"] = "+".join(["8"] * nodes) + ": " + ", ".join(guests)
    return site(**hosts)


def best_rooms(cluster: Cluster, big: int, budget: int) -> int:
    """The most big VMs that any sequence of so many moves makes room for, each with room then."""
    seen, frontier = {_key(cluster)}, [cluster]
    best = _count(cluster, big)
    for _ in range(budget):
        reached = []
        for state in frontier:
            for following in _moves(state):
                if _key(following) not in seen:
                    seen.add(_key(following))
                    reached.append(following)
                    best = max(best, _count(following, big))
        frontier = reached
    return best


def _key(cluster: Cluster) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((cluster.placement[vm], cluster.vms[vm].numa) for vm in sorted(cluster.vms))


def _count(cluster: Cluster, big: int) -> int:
    return sum(int(cores) // big for cores in free_cores(cluster).values())


def _moves(cluster: Cluster) -> list[Cluster]:
    free, found = free_cores(cluster), []
    for name, vm in cluster.vms.items():
        span = len(vm.numa or (0,))
        for host, value in cluster.hosts.items():
            for nodes in combinations(range(len(value.numa) or 1), span):
                room = all(free[host, node] >= vm.vcpus / span for node in nodes)
                if host != cluster.placement[name] and room:
                    numa = nodes if vm.numa else ()
                    found.append(cluster.begin(name, host, numa).finish(name, host))
    return found


def test_small_sites_are_brought_to_their_optimum() -> None:
    """Against every sequence of moves. Dies if prices are not smoothed and exact, if the beam does
    not follow the path, or if moves are ordered so that they stand in each other's way.

    The search need not be perfect: what it misses in all of these sites is at most one room.
    """
    missed = 0
    for seed in range(60):
        random = Random(seed)
        snapshot, big, budget = drawn_site(random), random.choice([4, 6, 8]), random.randint(1, 3)
        best = best_rooms(snapshot.cluster, big, budget)
        reached = rooms_after(snapshot, big, planned(snapshot, rules(big, budget)))
        assert reached <= best
        missed += best - reached
    assert missed <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_no_move_that_is_looked_at_makes_more_room_than_the_bound(seed: int) -> None:
    """With up to two moves. Dies if a price is charged twice, or an option is left out.

    Options let one VM that lies on several nodes come to a host, not two: sites with two such VMs
    can be better than the bound, and are left out.
    """
    random = Random(seed)
    snapshot, big, budget = drawn_site(random), random.choice([4, 6, 8]), random.randint(1, 2)
    assume(sum(len(vm.numa) > 1 for vm in snapshot.cluster.vms.values()) <= 1)
    by = rules(big, budget)
    layout = layout_of(snapshot, by)
    draft = Draft(layout, assess_layout(layout, NOW), History(), NOW, layout.copy())
    found = site_of(draft)
    if not found.kinds:
        return
    gained = best_rooms(snapshot.cluster, big, budget) - rooms_after(snapshot, big)
    assert gained <= relax(options_of(found), budget, 0.0).bound + 1e-6


# --- what leaves also lands


def drawn_menu(random: np.random.Generator) -> tuple[Menu, Terms]:
    """Seven hosts with four things to do each, the first of which is nothing; two kinds, of which
    only the second is paid for, and a budget of three moves."""
    stages, ways = 7, 4
    left = random.integers(-2, 3, (stages * ways, 2))
    changes = np.column_stack([left, np.maximum(left, 0).sum(axis=1)])
    changes[::ways] = 0
    regrets = random.choice([0.0, 0.0, 0.25, 0.5], stages * ways)
    stage = np.repeat(np.arange(stages), ways)
    terms = Terms(np.array([0, 0, 3]), np.array([0.0, 0.5, 0.5]), worth=0.0)
    return Menu(stage, np.arange(0, stages * ways, ways), changes, regrets), terms


def test_exchanges_lead_to_less_than_a_room_from_the_bound_where_any_choice_does() -> None:
    """Against every choice. Dies if no more than two hosts do something else, or if a host may do
    two things at once. The search need not be perfect: it misses three in forty at most."""
    missed = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        menu, terms = drawn_menu(random)
        every = np.array(list(product(*(range(row, row + 4) for row in menu.first))))
        balances, regrets = menu.changes[every].sum(axis=1), menu.regrets[every].sum(axis=1)
        best = float(terms.short(balances, regrets).min())
        rows, short = balanced(menu, terms, menu.first + random.integers(0, 4, 7))
        assert (menu.stage[rows] == np.arange(7)).all()
        balance, regret = menu.changes[rows].sum(axis=0), menu.regrets[rows].sum()
        assert short == pytest.approx(float(terms.short(balance, regret)))
        missed += best < 1.0 <= short
    assert missed <= 3


def test_places_beyond_need_that_nobody_pays_for_are_no_difference() -> None:
    """Dies if they are told apart: there are so many that choices differ by nothing else."""
    terms = Terms(np.array([0, 0, 3]), np.array([0.0, 0.5, 0.5]), worth=0.0)
    balances = np.array([[-7, 0, 3], [-9, 0, 3], [-9, -1, 3], [1, 0, 3], [-8, 0, 3]])
    assert terms.different(balances, terms.limit).tolist() == [0, 2, 3]


# --- the master problem


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.lists(st.integers(-3, 3), min_size=3, max_size=3)),
        max_size=12,
    ),
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
)
def test_the_master_problem_is_solved_to_its_optimum(
    columns: list[tuple[int, list[int]]], limits: list[int]
) -> None:
    """Its shares keep the limits, and its duals prove that none are better: no column pays more.

    Dies if the wrong row leaves the basis, or a slack never enters it.
    """
    master = Master(np.array(limits, dtype=np.float64))
    for worth, use in columns:
        master.add(float(worth), np.array(use, dtype=np.float64))
    duals, value = master.solve()
    shares = master.shares()
    known = [(0.0, np.zeros(3)), *((float(w), np.array(u, dtype=np.float64)) for w, u in columns)]
    distinct = list({(w, *u.tolist()): (w, u) for w, u in known}.values())
    reached = value - max(w - float(duals @ u) for w, u in distinct)
    assert reached == pytest.approx(float(duals @ limits), abs=1e-3)
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-6)
    assert (duals >= 0).all()


def test_a_plan_that_its_budget_did_not_bound_is_gone_on_with() -> None:
    """Three moves are allowed, and the third makes room as well, which shows only once two are
    made. Dies if a search ends for using more than half of the moves."""
    snapshot = replace(drawn.settled(drawn.snapshot(Random(913))), draining=frozenset())
    by = drawn.policy(Random(1_000_913)).model_copy(
        update={"constraint": (), "objective": Objective.DEFRAGMENT}
    )
    assert by.limits.per_plan == 3
    assert told(planned(snapshot, by)) == ["b h1>h2", "d h1>h2", "e h1>h2"]


def test_what_a_host_refuses_once_the_choice_is_made_is_counted() -> None:
    """a came from h2 a while ago. Dies if only what stages before refused is told."""
    snapshot = site(h1="8: a 2", h2="8: b 3, c 3", h3="8:")
    past = PastMove("a", "h2", "h1", NOW - 45 * MINUTE, Outcome.DONE)
    made = planned(snapshot, rules(8, budget=1), History(moves=(past,)))
    assert told(made) == []
    assert made.refusal_counts["return"] == 1


@pytest.mark.parametrize(("closed", "other"), [("a h1", "d h3>h2"), ("d h3", "a h1>h2")])
def test_where_rules_keep_a_vm_off_the_only_place_another_takes_it(closed: str, other: str) -> None:
    """One of two came from h2 a while ago. Dies if a round of which nothing can be done is the
    last."""
    snapshot = site(h1="8: a 5", h2="8: b 1, c 2", h3="8: d 5")
    vm, host = closed.split()
    past = PastMove(vm, "h2", host, NOW - 45 * MINUTE, Outcome.DONE)
    made = planned(snapshot, rules(8, budget=1), History(moves=(past,)))
    assert told(made) == [other]
