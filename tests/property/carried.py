"""Carrying out a plan as its waits allow, each move asked about when it starts."""

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import strategies as st

from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import Gate
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from tests.sites import NOW, done


def carried_out(
    snapshot: Snapshot, policy: Policy, history: History, plan: Plan, data: st.DataObject
) -> Iterator[Snapshot]:
    """The site after each start and each end of a move, in a drawn order.

    Every move has to be let through on the snapshot of that moment.
    """
    waiting, running = {move.number: move for move in plan.moves}, dict[int, Move]()
    finished = {action.number for action in plan.actions if not isinstance(action, Move)}
    while waiting or running:
        ready = [n for n in sorted(waiting) if set(waiting[n].after) <= finished]
        number = data.draw(st.sampled_from(ready + sorted(running)))
        if number in running:
            snapshot = done(snapshot, running.pop(number))
            finished.add(number)
        else:
            move = running[number] = waiting.pop(number)
            assert Gate.of(snapshot, policy, history, NOW).refuses(move) is None
            begun = snapshot.cluster.begin(move.vm, move.target, move.numa)
            snapshot = replace(snapshot, cluster=begun)
        yield snapshot
