"""Where hosts objected to a move before it began, and for how long it is not planned again.

What both hosts' facts speak against (see `preflight`) is true of one VM on its way to one host: it
says nothing of other VMs between the two, nor of the VM on its way elsewhere. So the planner looks
elsewhere, and asks again after a back-off that doubles with each further objection.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.core.past.history import History, Outcome
from balancerd.core.policies.limits import Limits
from balancerd.core.units import doubled


@dataclass(frozen=True, slots=True)
class Objection:
    """What was said against a move, and until when it counts, seconds since the epoch."""

    until: float
    detail: str


def objections(history: History, limits: Limits, now: float) -> Mapping[tuple[str, str], Objection]:
    """The objections that count, by VM and target; none from before the VM last moved."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    moved: dict[str, float] = {}
    for move in history.moves:
        if move.outcome is Outcome.OBJECTED:
            found.setdefault((move.vm, move.target), []).append((move.at, move.detail))
        elif move.outcome is Outcome.DONE:
            moved[move.vm] = move.at
    standing: dict[tuple[str, str], Objection] = {}
    for (vm, target), said in found.items():
        since = [(at, detail) for at, detail in said if at >= moved.get(vm, at)]
        if not since:
            continue
        at, detail = since[-1]
        rest = doubled(limits.backoff, len(since) - 1, limits.cooldown_max)
        if at + rest > now:
            standing[vm, target] = Objection(at + rest, detail)
    return standing
