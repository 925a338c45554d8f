"""Whether a planned move may start now: the fast rules against a fresh snapshot."""

from dataclasses import dataclass, field

from balancerd.core.model import Method, Snapshot
from balancerd.core.past.breakers import breakers
from balancerd.core.past.history import History
from balancerd.core.past.objections import objections
from balancerd.core.placing.constraints.cold import refuses_cold, stays
from balancerd.core.placing.constraints.fast import refuses
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.nodes import Seat
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Move, Refusal
from balancerd.core.policies.policy import Policy


@dataclass(frozen=True, slots=True)
class Gate:
    """One snapshot, asked about many moves. Say `admit` for each that starts: it then counts."""

    layout: Layout
    history: History
    now: float
    taken: dict[int, int] = field(default_factory=dict)  # block -> where room was taken for it

    @classmethod
    def of(cls, snapshot: Snapshot, policy: Policy, history: History, now: float) -> "Gate":
        """The gate of a snapshot; policy is `policy.at(now)`."""
        return cls(lay_out(snapshot, policy, history, now), history, now)

    def refuses(self, move: Move) -> Refusal | None:
        """Why the move may not start; None if it may. The whole of a group must find room."""
        layout = self.layout
        if move.method is Method.COLD:
            return self._refuses_cold(move)
        block, target = layout.block_of.get(move.vm), layout.host_row.get(move.target)
        if block is None or target is None:
            gone = move.vm if block is None else move.target
            return Refusal(move.vm, move.target, "gone", f"{gone} is no longer there")
        source = layout.hosts[layout.place[block]]
        if source != move.source:
            return Refusal(move.vm, move.target, "gone", f"it is on {source}, not {move.source}")
        fixed = layout.fixed.get(block)
        if fixed and not (move.parked and fixed.constraint == "cool-down"):
            return fixed
        if not layout.gives[layout.place[block]]:
            return Refusal(move.vm, move.target, "host closed", f"{source} gives no VMs now")
        if self.taken.get(block) == target:
            return None  # with the first of a group that came, room was taken for all of it
        seat = self._seat(move)
        if layout.nodes and seat and not layout.nodes.fits(block, target, seat):
            nodes = " and ".join(map(str, move.numa))
            return Refusal(move.vm, move.target, "NUMA", f"no room on node {nodes} now")
        return refuses(layout, block, target)

    def admit(self, move: Move) -> None:
        """Charge the move's target, once for a whole group; its source goes on paying. A VM that is
        shut off costs neither."""
        if move.method is Method.COLD:
            return
        block, target = self.layout.block_of[move.vm], self.layout.host_row[move.target]
        if self.taken.get(block) != target:
            self.layout.charge(block, target, seat=self._seat(move))
            self.taken[block] = target

    def _refuses_cold(self, move: Move) -> Refusal | None:
        cluster, limits = self.layout.snapshot.cluster, self.layout.policy.limits
        vm = cluster.vms.get(move.vm)
        if vm is None or cluster.placement.get(move.vm) != move.source:
            return Refusal(move.vm, move.target, "gone", f"it is not on {move.source} any more")
        halted = breakers(self.history, limits, self.now)
        objected = objections(self.history, limits, self.now)
        return stays(self.layout, vm) or refuses_cold(
            self.layout, vm, move.target, halted, objected
        )

    def _seat(self, move: Move) -> Seat | None:
        """The NUMA nodes that the move means; of a group's others nothing is known."""
        alone = len(self.layout.blocks[self.layout.block_of[move.vm]]) == 1
        return (move.numa,) if move.numa and alone else None


def refuses_move(
    snapshot: Snapshot, policy: Policy, history: History, now: float, move: Move
) -> Refusal | None:
    """Why a move may not start on this snapshot; None if it may. For many moves use a `Gate`."""
    return Gate.of(snapshot, policy, history, now).refuses(move)
