"""What holds for every plan on every site, however crowded, ruled and disturbed.

Each property names a mutant of the code on which it was seen to fail.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from balancerd.core.check import check
from balancerd.core.model import Cluster, PowerState, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.placing.assess import assess_layout
from balancerd.core.placing.constraints import (
    accepts,
    contradictions,
    refuses,
    soft_breaks,
    soft_cost,
    soft_cost_of_group,
    violations,
)
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Plan, Verdict, Wake
from balancerd.core.planner import plan
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.ease import ease
from balancerd.core.planner.prices import move_prices
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tables import Costs
from tests.property.carried import carried_out
from tests.property.drawn import histories, policies, settled, snapshots
from tests.sites import NOW, done

T = TypeVar("T")
EXAMPLES = settings(max_examples=80, deadline=None)


def broken(snapshot: Snapshot, cluster: Cluster, policy: Policy) -> set[tuple[str, str]]:
    return {found.key for found in violations(replace(snapshot, cluster=cluster), policy)}


def seats(layout: Layout, block: int, host: int) -> dict[str, tuple[int, ...]]:
    """The NUMA nodes of a host on which the VMs of a block would be put, where they are bound."""
    trial = layout.copy()
    trial.move(block, host)
    return layout.nodes.named(block, host, trial.seat(block)) if layout.nodes else {}


@EXAMPLES
@given(snapshots(), policies(), histories(), st.data())
def test_what_no_check_refuses_breaks_no_rule(
    snapshot: Snapshot, policy: Policy, history: History, data: st.DataObject
) -> None:
    """Neither under way nor after. Dies without the flights' charge at their targets, and if a VM
    that is bound to NUMA nodes is seated on a full one.
    """
    layout = lay_out(snapshot, policy, history, NOW)
    ways = [
        (block, host)
        for block in range(len(layout.blocks))
        for host in range(len(layout.hosts))
        if block not in layout.fixed and refuses(layout, block, host) is None
    ]
    assume(ways)
    block, host = data.draw(st.sampled_from(ways))
    before = broken(snapshot, snapshot.cluster, policy)
    during = after = snapshot.cluster
    nodes = seats(layout, block, host)
    for vm in layout.blocks[block]:
        during = during.begin(vm, layout.hosts[host], nodes.get(vm, ()))
        begun = after.begin(vm, layout.hosts[host], nodes.get(vm, ()))
        after = begun.finish(vm, layout.hosts[host])
    assert {key for key in broken(snapshot, during, policy) - before if key[0] != "pin"} == set()
    assert broken(snapshot, after, policy) <= before


@EXAMPLES
@given(snapshots(), policies())
def test_what_soft_rules_cost_is_what_their_definition_says(
    snapshot: Snapshot, policy: Policy
) -> None:
    """And so are the differences between hosts that a search goes by. Dies if a pair counts once
    for each of its VMs, and if `others_of` leaves in the block itself."""
    snapshot = settled(snapshot)
    layout = lay_out(snapshot, policy, History(), NOW)

    def defined() -> float:
        placement = {
            vm: layout.hosts[layout.place[block]]
            for block, vms in enumerate(layout.blocks)
            for vm in vms
        }
        now = replace(snapshot, cluster=replace(snapshot.cluster, placement=placement))
        return sum(found.cost for found in soft_breaks(now, policy))

    def laid_out() -> float:
        groups = sum(soft_cost_of_group(layout, index) for index in range(len(layout.groups)))
        return groups + float(layout.aversion[layout.signature, layout.place].sum())

    assert laid_out() == pytest.approx(defined())
    for block in range(len(layout.blocks)):
        cost, before, home = soft_cost(layout, block), defined(), int(layout.place[block])
        for host in range(len(layout.hosts)):
            layout.move(block, host)
            assert cost[host] - cost[home] == pytest.approx(defined() - before)
        layout.move(block, home)


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_asking_for_all_hosts_is_asking_for_each(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    layout = lay_out(snapshot, policy, history, NOW)
    for block in range(len(layout.blocks)):
        singly = [refuses(layout, block, host) is None for host in range(len(layout.hosts))]
        assert list(accepts(layout, block)) == singly


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_every_plan_is_sound_in_the_eyes_of_the_checker(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    """Dies without the waits of `order.dependencies`, and if they look at the start only."""
    made = plan(snapshot, policy, history, NOW)
    assert not made.reason.startswith("the checker refused")
    assert made.certificate is not None
    assert made.certificate.violations == ()


@settings(EXAMPLES, suppress_health_check=[HealthCheck.filter_too_much])
@given(snapshots(), policies())
def test_a_site_that_breaks_rules_is_never_frozen_and_only_improved(
    snapshot: Snapshot, policy: Policy
) -> None:
    """Where a VM is on a wrong host and another would take it, something moves.

    Dies if a host that breaks a rule is not let to give, and if rules in contradiction freeze all.
    """
    snapshot = settled(snapshot)
    layout = lay_out(snapshot, policy, History(), NOW)
    named = {refusal.vm for refusal in contradictions(snapshot.cluster, policy)}
    free = [
        block
        for block in layout.misplaced()
        if block not in layout.fixed
        and not named & set(layout.blocks[block])
        and layout.gives[layout.place[block]]
        and len(layout.blocks[block]) <= policy.limits.per_plan
        and accepts(layout, block).any()
    ]
    assume(free and policy.objective is not Objective.DRAIN)
    made = plan(snapshot, policy, History(), NOW)
    assert made.moves
    before = broken(snapshot, snapshot.cluster, policy)
    after = done(snapshot, *made.moves)
    assert broken(after, after.cluster, policy) <= before


def backwards(mapping: Mapping[str, T]) -> dict[str, T]:
    return dict(reversed(list(mapping.items())))


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_the_same_inputs_give_the_same_plan(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    """In whatever order the mappings were filled. Dies with a set iterated on the way to a plan."""
    cluster = snapshot.cluster
    turned = replace(
        snapshot,
        loads=backwards(snapshot.loads),
        cluster=replace(
            cluster,
            hosts=backwards(cluster.hosts),
            vms=backwards(cluster.vms),
            placement=backwards(cluster.placement),
        ),
    )
    assert plan(snapshot, policy, history, NOW) == plan(turned, policy, history, NOW)


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_nothing_leaves_or_enters_what_is_not_known(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    made = plan(snapshot, policy, history, NOW)
    unknown = snapshot.unknown_hosts() | {
        name for name, h in snapshot.cluster.hosts.items() if h.power is PowerState.UNKNOWN
    }
    for move in made.moves:
        assert not {move.source, move.target} & unknown
        assert move.vm not in snapshot.cluster.flights


@EXAMPLES
@given(snapshots(), policies(), histories(), st.data())
def test_a_plan_can_be_carried_out_in_any_order_that_its_waits_allow(
    snapshot: Snapshot, policy: Policy, history: History, data: st.DataObject
) -> None:
    """The fast rules let every move start, on the snapshot of that moment, in each drawn order.

    Dies without `visited` in `order.dependencies`, and if the members of a "together" group, which
    may be scattered from the start, do not wait for each other; the checker is not asked.
    """
    snapshot = settled(snapshot)
    made = plan(snapshot, policy, history, NOW)
    assume(made.moves)
    known = broken(snapshot, snapshot.cluster, policy)
    for state in carried_out(snapshot, policy, history, made, data):
        new = broken(state, state.cluster, policy) - known
        assert {key for key in new if key[0] not in ("pin", "avoid", "one-of", "together")} == set()
    assert broken(state, state.cluster, policy) <= known


@pytest.mark.parametrize(
    "objective", [o for o in Objective if o is not Objective.DRAIN], ids=lambda objective: objective
)
@settings(EXAMPLES, max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
@given(snapshots(), policies(), st.data())
def test_planning_again_after_some_of_the_moves_gives_the_rest_or_nothing_better(
    objective: Objective, snapshot: Snapshot, policy: Policy, data: st.DataObject
) -> None:
    """And moves no VM that just moved. Dies if what is left of a plan is not looked for, if packing
    looks no further once rules keep a VM back, or if it may empty a host that was just filled.

    A VM that was only parked on its way is none of it: it rests there as any that moved, so that
    what the plan had meant for it is not to be had for a while, and others may make up for it."""
    snapshot = replace(settled(snapshot), draining=frozenset())
    costs = Costs(crowding=5.0, crowded=0.3)
    changes = {"constraint": (), "objective": objective, "costs": costs}
    policy = policy.model_copy(update=changes)
    made = plan(snapshot, policy, History(), NOW)
    # A busy or too full host takes VMs once relieved, which the first plan cannot count on.
    assume(all(seen.cpu <= policy.thresholds.cpu.release for seen in made.assessments))
    assume(all(seen.cpu_expected <= policy.thresholds.cpu.landing for seen in made.assessments))
    assume(all(seen.memory <= policy.thresholds.memory.landing for seen in made.assessments))
    assume(all(seen.verdict is not Verdict.OVERLOADED for seen in made.assessments))
    assume(made.moves)
    count = data.draw(st.integers(1, len(made.moves)))
    first = made.moves[:count]
    assume(not {move.vm for move in first} & {move.vm for move in made.moves[count:]})
    past = tuple(PastMove(m.vm, m.source, m.target, NOW, Outcome.DONE) for m in first)
    again = plan(done(snapshot, *first), policy, History(moves=past), NOW)
    assert not {move.vm for move in again.moves} & {move.vm for move in first}
    rest = {(move.vm, move.target) for move in made.moves[count:]}
    is_rest = {(move.vm, move.target) for move in again.moves} <= rest
    is_longer = count + len(again.moves) > policy.limits.per_plan  # than the first plan could be
    assert is_rest or is_longer or again.score_after >= made.score_after - 1e-9


def mutants(made: Plan, snapshot: Snapshot) -> list[tuple[str, Plan]]:
    """Plans that are wrong in one way each."""
    moves = made.moves
    first = moves[0]
    nowhere = replace(first, target="h9")
    stay = replace(first, target=first.source)
    ghost = replace(first, vm="ghost")
    displaced = replace(first, source=first.target, target=first.source)
    renumbered = replace(first, number=first.number + 1)
    early = replace(first, after=(first.number,))
    hosts, woken = snapshot.cluster.hosts, {a.host for a in made.actions if isinstance(a, Wake)}
    dark = [n for n, h in hosts.items() if h.power is not PowerState.ON and n not in woken]
    asleep = replace(first, target=next(iter(dark), "h9"))
    swaps = [("host not there", nowhere), ("stays", stay), ("VM not there", ghost)]
    swaps += [("wrong source", displaced), ("wrong number", renumbered)]
    swaps += [("waits for itself", early), ("target not on", asleep)]
    return [
        (name, replace(made, actions=tuple(mutant if a is first else a for a in made.actions)))
        for name, mutant in swaps
    ]


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_the_checker_finds_fault_with_every_mutant_of_a_sound_plan(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    made = plan(snapshot, policy, history, NOW)
    assume(made.moves)
    for name, mutant in mutants(made, snapshot):
        assert check(snapshot, policy, mutant).violations, name


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_easing_never_costs_more_than_it_spares_nor_moves_more_than_one_plan_may(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    """Dies if steps are kept of which the rules have refused the rest, or the room is not asked."""
    policy = policy.model_copy(update={"costs": Costs(crowding=5.0, crowded=0.3)})
    layout = lay_out(snapshot, policy, history, NOW)
    draft = Draft(layout.copy(), assess_layout(layout, NOW), history, NOW, layout.copy())
    ease(draft)
    moved = [
        block
        for block in range(len(layout.blocks))
        if layout.place[block] != draft.layout.place[block]
    ]
    spared = _crowding(layout) + _soft(layout) - _crowding(draft.layout) - _soft(draft.layout)
    assert not moved or spared > float(move_prices(layout)[moved].sum()) - 1e-6
    assert sum(len(layout.blocks[block]) for block in moved) <= policy.limits.per_plan


@EXAMPLES
@given(snapshots(), policies(), histories())
def test_packing_leaves_what_unloads_a_host_and_when_as_it_was_decided(
    snapshot: Snapshot, policy: Policy, history: History
) -> None:
    """Only where to may change. Dies if relief that is turned elsewhere gets lost."""
    policy = policy.model_copy(update={"objective": Objective.PACK})
    alone = plan(snapshot, policy, history, NOW, {}).moves
    packed = plan(snapshot, policy, history, NOW).moves
    unloading = [move for move in packed if "unload" in move.reason]
    decided = {(move.vm, move.source) for move in alone if "unload" in move.reason}
    assert {(move.vm, move.source) for move in unloading} == decided
    packing = {m.number for m in packed if m.reason.startswith(("empty", "room for"))}
    assert not any(packing.intersection(move.after) for move in unloading)


def _crowding(layout: Layout) -> float:
    over = np.maximum(0.0, layout.expected_cpu() - 0.3) * layout.cpu_capacity
    return 5.0 * float(over.sum())


def _soft(layout: Layout) -> float:
    groups = sum(soft_cost_of_group(layout, index) for index in range(len(layout.groups)))
    return groups + float(layout.aversion[layout.signature, layout.place].sum())
