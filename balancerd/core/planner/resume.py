"""A plan of which a part was done is gone on with, as long as it is what would be planned.

Whoever plans anew from half-way (balancerd was restarted, the first failure stopped the plan) could
do with another plan as well, and another one still after its first moves: many ways lead to about
the same. So it is asked what would be planned now, had nothing of late been moved. If that holds
all that was, its rest is what is left to do; nothing if all of it is done. The loads are those of
now: if they ask for something else, or others were moved, planning begins anew.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from balancerd.core.model import Load, Snapshot
from balancerd.core.ordering.order import Step, Want, schedule
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.plain import as_dict
from balancerd.core.planner.draft import Draft
from balancerd.core.units import counted


def before_latest(draft: Draft) -> tuple[Snapshot, History] | None:
    """The snapshot as if nothing had been moved within the life of a plan, and the past of then.

    None if nothing was, or if VMs that were are not where they went, any more.
    """
    snapshot, moves = draft.layout.snapshot, draft.history.moves
    since = draft.now - draft.policy.limits.plan_life
    done = [move for move in moves if move.at >= since and move.outcome is Outcome.DONE]
    placement, loads = as_dict(snapshot.cluster.placement), dict(snapshot.host_loads)
    for move in reversed(done):
        if placement.get(move.vm) != move.target or move.source not in snapshot.cluster.hosts:
            return None
        placement[move.vm] = move.source
        _take_back(loads, move, snapshot.loads.get(move.vm))
    if not done:
        return None
    cluster = replace(snapshot.cluster, placement=MappingProxyType(placement))
    for vm in sorted({move.vm for move in done} & cluster.flights.keys()):
        cluster = cluster.finish(vm, placement[vm])
    before = replace(snapshot, cluster=cluster, host_loads=loads)
    left = tuple(move for move in moves if move.at < since)
    return before, replace(draft.history, moves=left)


def _take_back(loads: dict[str, Load], move: PastMove, load: Load | None) -> None:
    for name, sign in ((move.source, 1), (move.target, -1)):
        if load is not None and name in loads:
            loads[name] = _shifted(loads[name], load, sign)


def _shifted(host: Load, vm: Load, sign: int) -> Load:
    """The load of a host with one VM more, or one less."""
    return replace(
        host,
        cpu=max(0.0, host.cpu + sign * vm.cpu),
        cpu_mean=max(0.0, host.cpu_mean + sign * vm.cpu_mean),
        memory=max(0, host.memory + sign * vm.memory),
    )


def resume(draft: Draft, begun: Sequence[Step], former: Draft) -> None:
    """Let what is left of `former`, made before the latest moves, follow the steps that are begun,
    in place of all others; nothing changes unless it holds these moves."""
    layout = draft.layout_after(begun)
    if _is_done(draft, former):
        moves = sum(len(layout.blocks[step.block]) for step in draft.steps[len(begun) :])
        draft.declined = f"{counted(moves, 'move')} would be another plan than the one just done"
        draft.layout, draft.steps = layout, list(begun)
        return
    closed = {*layout.moved, *layout.fixed}  # by other moves, failures, or what somebody did
    wants = [want for want in _left(draft, former) if want.block not in closed]
    steps, _ = schedule(layout, [w for w in wants if layout.gives[layout.place[w.block]]])
    if steps:
        draft.layout, draft.steps = layout, [*begun, *steps]
        draft.worth = former.worth


def _is_done(draft: Draft, former: Draft) -> bool:
    """Whether all is where the former plan wants it, and no more was moved. That leaves more to do
    if the plan could not be longer, or if a host takes VMs again now that it is relieved."""
    here = draft.layout.snapshot.cluster.placement
    was = former.layout.snapshot.cluster.placement
    rows, blocks = draft.layout.host_row, former.layout.blocks
    ends = {vm: step.target for step in former.steps for vm in blocks[step.block]}
    moved = {vm for vm in was if was[vm] != here[vm]}
    return (
        not former.urgent
        and former.room() > 0
        and moved <= ends.keys()
        and all(rows[here[vm]] == target for vm, target in ends.items())
    )


def _left(draft: Draft, former: Draft) -> list[Want]:
    """Where the former plan wants blocks that are not there yet; nothing unless it holds all that
    was moved since. What it parked on the way is left to planning anew."""
    here = draft.layout.snapshot.cluster.placement
    was = former.layout.snapshot.cluster.placement
    blocks = former.layout.blocks
    ways = {(vm, step.target) for step in former.steps for vm in blocks[step.block]}
    rows = draft.layout.host_row
    if any((vm, rows[here[vm]]) not in ways for vm in was if was[vm] != here[vm]):
        return []
    ends = {
        vm: step
        for step in former.steps[former.urgent :]
        for vm in blocks[step.block]
        if was[vm] == here[vm]
    }
    found = [(draft.layout.block_of[vm], step) for vm, step in ends.items()]
    return [
        Want(block, step.target, step.reason)
        for block, step in dict(found).items()
        if all(vm in ends and ends[vm].target == step.target for vm in draft.layout.blocks[block])
    ]
