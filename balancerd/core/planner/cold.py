"""Last of all: VMs that are shut off leave hosts that drain, as cold moves.

They cost no room, so nothing else depends on them; each goes where it could best be started. A VM
that runs is never shut down to be moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.core.model import VM, Method, PowerState
from balancerd.core.past.breakers import Breakers, breakers
from balancerd.core.past.objections import Objections, objections
from balancerd.core.placing.constraints.cold import refuses_cold, stays
from balancerd.core.plan import Move, Refusal
from balancerd.core.planner.draft import Draft

SECONDS = 2.0  # that writing a definition down there and removing it here takes


def follow(draft: Draft) -> None:
    """Decide the cold moves of all drains."""
    cluster, snapshot = draft.layout.snapshot.cluster, draft.layout.snapshot
    if not snapshot.draining:
        return
    leaving = [
        vm
        for name, vm in sorted(cluster.vms.items())
        if cluster.placement.get(name) in snapshot.draining and name not in draft.layout.block_of
    ]
    if not leaving:
        return
    search = _Search.of(draft)
    for vm in leaving:
        if draft.room() <= len(draft.cold):
            return
        refusal = stays(draft.layout, vm)
        target = search.place(vm) if refusal is None else None
        if refusal is not None:
            draft.note(refusal)
        elif target is not None:
            draft.cold[vm.name] = target


@dataclass(frozen=True, slots=True)
class _Search:
    """Hosts that may take definitions, and what they would carry if all of those were started."""

    draft: Draft
    halted: Breakers
    objected: Objections
    promised: dict[str, float]

    @classmethod
    def of(cls, draft: Draft) -> "_Search":
        layout, limits = draft.layout, draft.policy.limits
        hosts = layout.snapshot.cluster.hosts
        open_ = [
            name
            for row, name in enumerate(layout.hosts)
            if layout.receives[row]
            and row not in draft.sleeps
            and hosts[name].power is PowerState.ON
        ]
        return cls(
            draft,
            breakers(draft.history, limits, draft.now),
            objections(draft.history, limits, draft.now),
            {name: float(layout.used_memory[layout.host_row[name]]) for name in open_},
        )

    def place(self, vm: VM) -> str | None:
        """The host with most memory to spare for it; None, saying why, where none takes it."""
        refused: Refusal | None = None
        layout = self.draft.layout
        for name in sorted(self.promised, key=lambda name: (self._use(name, vm), name)):
            refusal = refuses_cold(layout, vm, name, self.halted, self.objected)
            if refusal is None:
                self.promised[name] += vm.memory
                return name
            refused = refused or refusal
        if refused is not None:
            self.draft.note(refused)
        return None

    def _use(self, host: str, vm: VM) -> float:
        capacity = self.draft.layout.memory_capacity[self.draft.layout.host_row[host]]
        return float((self.promised[host] + vm.memory) / max(capacity, 1.0))


def cold_moves(draft: Draft, earlier: list[Move], first: int, value: float) -> list[Move]:
    """The decided ones as moves, numbered from `first`, after all others in time; `value` is the
    score, which they do not change."""
    cluster: Mapping[str, str] = draft.layout.snapshot.cluster.placement
    return [
        Move(
            number=number,
            vm=vm,
            source=cluster[vm],
            target=target,
            method=Method.COLD,
            reason=f"{cluster[vm]} is draining",
            wave=1 + max((move.wave for move in earlier), default=0),
            begin=max((move.begin + move.seconds for move in earlier), default=0.0),
            seconds=SECONDS,
            score_after=value,
        )
        for number, (vm, target) in enumerate(sorted(draft.cold.items()), start=first)
    ]
