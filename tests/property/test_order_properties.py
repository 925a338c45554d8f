"""Order, with targets drawn without the planner: any placement that can be reached safely, is."""

from dataclasses import replace

import networkx as nx
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from balancerd.core.check import check
from balancerd.core.model import Method, Snapshot
from balancerd.core.moving.graphs import reduced
from balancerd.core.ordering.order import Step, Want, dependencies, schedule
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import accepts, contradictions, refuses
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from tests.property.carried import carried_out
from tests.property.drawn import policies, settled, snapshots
from tests.sites import NOW

EXAMPLES = settings(max_examples=80, deadline=None)


def as_plan(layout: Layout, steps: list[Step], after: list[tuple[int, ...]]) -> Plan:
    """The steps as a plan of single moves."""
    numbers: list[list[int]] = []
    moves: list[Move] = []
    for step, earlier in zip(steps, after, strict=True):
        waits = tuple(number for index in earlier for number in numbers[index])
        numbers.append([])
        for vm in layout.blocks[step.block]:
            numbers[-1].append(len(moves) + 1)
            source, target = layout.hosts[step.source], layout.hosts[step.target]
            move = Move(len(moves) + 1, vm, source, target, Method.PRE_COPY, "", after=waits)
            moves.append(replace(move, numa=step.numa(layout).get(vm, ())))
    return Plan(NOW, "", "", tuple(moves), "", 0.0, 0.0)


def wander(layout: Layout, data: st.DataObject, length: int) -> list[Step]:
    """A drawn sequence of steps that are each accepted in turn; VMs may move again and again."""
    steps = []
    movable = [block for block in range(len(layout.blocks)) if block not in layout.fixed]
    assume(movable)
    for _ in range(length):
        block = data.draw(st.sampled_from(movable))
        hosts = [row for row, free in enumerate(accepts(layout, block)) if free]
        if hosts and layout.gives[layout.place[block]]:
            target = data.draw(st.sampled_from(hosts))
            source = int(layout.place[block])
            layout.move(block, target)
            steps.append(Step(block, source, target, "", seat=layout.seat(block)))
    return steps


@EXAMPLES
@given(snapshots(), policies(), st.data())
def test_the_waits_keep_any_legal_sequence_safe_in_every_order_they_allow(
    snapshot: Snapshot, policy: Policy, data: st.DataObject
) -> None:
    """The checker agrees. Dies if a step only looks at the layout of the start for its waits,
    if `visited` forgets who left, or if groups of a rack do not wait for each other."""
    snapshot = settled(snapshot)
    layout = lay_out(snapshot, policy, History(), NOW)
    origin = layout.copy()
    steps = wander(layout, data, 8)
    assume(steps)
    after = dependencies(origin, steps)
    assert check(snapshot, policy, as_plan(origin, steps, after)).violations == ()


@EXAMPLES
@given(snapshots(), policies(), st.data())
def test_any_legal_sequence_can_be_carried_out_in_every_order_that_its_waits_allow(
    snapshot: Snapshot, policy: Policy, data: st.DataObject
) -> None:
    """Dies if no step waits for another, and if what others of its group joined leaves them."""
    snapshot = settled(snapshot)
    assume(not contradictions(snapshot.cluster, policy))
    layout = lay_out(snapshot, policy, History(), NOW)
    origin = layout.copy()
    steps = wander(layout, data, 8)
    assume(steps)
    made = as_plan(origin, steps, dependencies(origin, steps))
    for _ in carried_out(snapshot, policy, History(), made, data):
        pass


@EXAMPLES
@given(snapshots(), policies(), st.data())
def test_wants_in_any_order_are_met_or_refused_and_every_step_is_legal(
    snapshot: Snapshot, policy: Policy, data: st.DataObject
) -> None:
    """Dies if `schedule` forgets to carry a step out before it looks at the next."""
    snapshot = settled(snapshot)
    layout = lay_out(snapshot, policy, History(), NOW)
    origin = layout.copy()
    movable = [b for b in range(len(layout.blocks)) if b not in layout.fixed]
    wants = []
    for block in data.draw(st.permutations(movable)):
        for row in range(len(layout.hosts)):
            if layout.gives[layout.place[block]] and refuses(layout, block, row) is None:
                layout.move(block, row)
                wants.append(Want(block, row, ""))
                break
    end, again = origin.copy(), origin.copy()
    steps, refused = schedule(end, data.draw(st.permutations(wants)))
    met = [want for want in wants if end.place[want.block] == want.target]
    assert len(met) + len(refused) == len(wants)
    for step in steps:
        assert refuses(again, step.block, step.target) is None
        again.move(step.block, step.target)


WAITS = st.lists(st.sets(st.integers(0, 12)), max_size=12).map(
    lambda drawn: {
        number: sorted(earlier for earlier in waits if earlier < number)
        for number, waits in enumerate(drawn)
    }
)


@given(WAITS)
def test_an_order_with_nothing_said_twice_is_its_transitive_reduction(
    after: dict[int, list[int]],
) -> None:
    """Against networkx. Dies if only direct waits are left out, or one that is needed."""
    waits: nx.DiGraph[int] = nx.DiGraph()
    waits.add_nodes_from(after)
    waits.add_edges_from((earlier, number) for number in after for earlier in after[number])
    graph = nx.transitive_reduction(waits)
    assert reduced(after) == {n: tuple(sorted(graph.predecessors(n))) for n in sorted(after)}
