"""What must hold in every simulated life: at each of its steps, and in the end.

What every single act is held to is in `doors.py`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.proof import verify
from balancerd.core.executing.execution import Execution, Stage
from balancerd.core.model import Method
from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion
from balancerd.core.plan import Move
from balancerd.core.policies.policy import Policy
from tests.sim.doors import BrokenError
from tests.sim.drawing import PINNED

LONGEST_ACT = 1200.0  # seconds after which no migration or power action may still be open
_DONE = (
    "SELECT vm, host, plan, conclusions.at FROM intents"
    " JOIN conclusions ON conclusions.intent = intents.id"
    " WHERE kind = 'migrate' AND outcome = 'done' ORDER BY conclusions.at"
)


@dataclass(frozen=True)
class Ended:
    """A migration that the ledger says has ended."""

    vm: str
    source: str
    target: str
    method: str
    autostart: bool  # its definition on the source had it start with its host


@dataclass
class Promises:
    """Raises BrokenError at the first that is not kept."""

    world: World
    apart_kept: bool = False  # while two that are to be apart run, and do so apart
    pin_kept: bool = False  # while the VM that is pinned runs, and does so where it has to
    sets: set[tuple[int, int]] = field(default_factory=set)  # begun, by plan and number
    gone: Set[str] = frozenset()  # VMs that somebody removed everywhere
    unconfigured: Set[str] = frozenset()  # hosts that balancerd does not know of

    def hold(self, executions: Iterable[Execution]) -> None:
        """At every step: no VM runs twice or is gone, and no rule, limit or set is broken."""
        for violation in self.world.violations:
            raise BrokenError(f"{violation.kind}: {violation.detail}")
        places = self.world.all_running()
        for vm, running in places.items():
            if len(running) > 1:
                raise BrokenError(f"{vm} runs on {' and '.join(running)}")
            if not running and vm not in self.gone and not self._left(vm):
                raise BrokenError(f"nothing is left of {vm}")
        self.rules_hold(places)
        for execution in executions:
            self._sets_hold(execution)

    def _left(self, vm: str) -> set[Presence]:
        """What there is of a VM that does not run anywhere."""
        return set(self.world.copies(vm).values()) - {Presence.INCOMING}

    def is_true(self, move: Ended, conclusion: Conclusion) -> list[str]:
        """At the moment when an end is written down: it is what became of the VM. What is worth
        counting of it."""
        running, copies = self.world.running(move.vm), self.world.copies(move.vm)
        told = (
            f"the ledger says {move.vm} to {move.target}: {conclusion.outcome}, and it is {copies}"
        )
        match conclusion.outcome:
            case Outcome.DONE:
                arrived = copies.get(move.target) in (Presence.RUNNING, Presence.PAUSED)
                if not arrived and move.method != Method.COLD:
                    raise BrokenError(told)
                if move.autostart and not self.world.starts_with(move.vm, move.target):
                    raise BrokenError(f"{move.vm} does not start with {move.target} any more")
            case Outcome.FAILED | Outcome.ABORTED if move.target in running:
                if "somebody" not in conclusion.detail:
                    raise BrokenError(told)
            case Outcome.LOST if set(running) - self.unconfigured:
                raise BrokenError(told)
            case Outcome.LOST if Presence.POSTCOPY_FAILED in copies.values():
                return ["migrate: lost in post-copy"]
        return []

    def rules_hold(self, places: Mapping[str, tuple[str, ...]]) -> None:
        """What the policy forbids did not come about; all VMs of rules start where they may be."""
        # Of two that met while one was down, whoever started that one again brought them together;
        # and met they have as soon as one of them is on its way to where the other is.
        under_way = {vm: target for vm, _, target in self.world.ours()}
        one, other = (set(places[vm]) | {under_way.get(vm, "")} - {""} for vm in ("v0", "v1"))
        if self.apart_kept and one & other:
            raise BrokenError(f"v0 and v1 are both on {min(one & other)}, or on their way there")
        self.apart_kept = bool(one and other) and not one & other
        pinned = set(places["v2"])
        if self.pin_kept and pinned and not pinned <= PINNED:
            raise BrokenError(f"v2 left {sorted(PINNED)} for {sorted(pinned)}")
        self.pin_kept = bool(pinned) and pinned <= PINNED  # down, whoever starts it says where

    def _sets_hold(self, execution: Execution) -> None:
        """Of no set a part began, and another was refused before the set was committed."""
        moves = [task for task in execution.tasks.values() if isinstance(task.action, Move)]
        in_sets = [task for task in moves if task.move.set_number]
        begun = [task.move for task in in_sets if task.started]  # not what was only objected to
        self.sets.update((execution.plan_id, move.set_number) for move in begun)
        for task in in_sets:
            fellows = [m for m in begun if m.set_number == task.move.set_number and m != task.move]
            if fellows and task.stage is Stage.DROPPED and not task.cleared:
                raise BrokenError(f"{fellows[0].vm} began, {task.move.vm} did not: {task.detail}")


def settled(ledger: Ledger, policy: Policy, drained: Set[str], now: float) -> None:
    """Liveness: once nothing goes wrong any more, every intent is closed and the site rests.

    `drained` are hosts that were drained at any time: their VMs rest from nothing.
    """
    for intent in ledger.recover():
        age = now - intent.at
        if age > LONGEST_ACT:
            raise BrokenError(f"open for {age:.0f} s: {intent.kind} {intent.vm} {intent.host}")
    fault = verify(ledger.database).fault
    if fault:
        raise BrokenError(f"the audit: {fault}")
    _budgets_were_kept(ledger, policy, drained, now)
    _moved_vms_rested(ledger, policy, drained)


def _budgets_were_kept(ledger: Ledger, policy: Policy, drained: Set[str], now: float) -> None:
    done = Counter(
        move.vm
        for move in ledger.history(now).moves
        if move.outcome is Outcome.DONE and move.source not in drained
    )
    if done and max(done.values()) > policy.limits.per_vm_per_day:
        raise BrokenError(f"moved too often in a day: {done.most_common(1)}")


def _moved_vms_rested(ledger: Ledger, policy: Policy, drained: Set[str]) -> None:
    """A VM that was parked goes on in the same plan; no other moves again within its rest."""
    last: dict[str, tuple[float, int | None]] = {}
    for vm, source, plan, at in ledger.database.rows(_DONE):
        moved, made = last.get(vm, (0.0, None))
        goes_on = plan is not None and plan == made
        rested = at - moved
        last[vm] = at, plan
        if rested < policy.limits.cooldown and source not in drained and not goes_on:
            raise BrokenError(f"{vm} moved again after {rested:.0f} s")
