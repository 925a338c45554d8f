"""Whether moves are worth it: the waiting that they spare VMs against what they cost them.

Both sides are in VM-seconds. A host whose demand passes `overload` lets all its VMs wait. How
likely that is within the planning horizon follows from what is expected of it, the forecast's
spread, and `limits.drift`, the change that no forecast tells of (all taken as normal). A migration
slows its VM while it is copied, stops it at the switch-over, and may fail and be for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from balancerd.core.moving.cost import Costs, costs_of
from balancerd.core.ordering.order import Step
from balancerd.core.outcome import NEVER_BEGUN, Outcome
from balancerd.core.past.history import History
from balancerd.core.placing.layout import Floats, Layout
from balancerd.core.units import format_duration

# Share of a VM's CPU that is lost while it is copied (Voorsluys et al. 2009, "Cost of virtual
# machine live migration in clouds": about a tenth).
SLOWED = 0.1
# Before a site has a history of its own: one migration in fifty fails.
FAILED, BEGUN = 1.0, 50.0


@dataclass(frozen=True, slots=True)
class Worth:
    """VM-seconds of waiting that moves spare over the horizon, and those that they cost."""

    spared: float
    cost: float
    horizon: float  # seconds

    def suffices(self, times: float) -> bool:
        """Whether they spare so many times what they cost."""
        return self.spared >= times * self.cost

    def __str__(self) -> str:
        spared, cost = format_duration(self.spared), format_duration(self.cost)
        return f"spare VMs {spared} of waiting within {format_duration(self.horizon)} for {cost}"


def worth(before: Layout, after: Layout, steps: Sequence[Step], history: History) -> Worth:
    """What the steps from one layout to the other are worth."""
    horizon = before.policy.detection.horizon
    spared = float((waiting(before) - waiting(after)).sum()) * horizon
    costs = costs_of(before.snapshot, before.policy, history.lessons)
    failing = _failing(history)
    return Worth(spared, sum(_cost(before, step, costs, failing) for step in steps), horizon)


def waiting(layout: Layout) -> Floats:
    """Of each host, its VMs times how likely its demand is to pass `overload`."""
    policy = layout.policy
    bands, drift = policy.thresholds, policy.limits.drift
    spread = np.sqrt(layout.used_variance + (drift * layout.used_cpu) ** 2)
    over = _passes(layout.used_cpu, spread, bands.cpu.overload * layout.cpu_capacity)
    if policy.capacity.enforce_memory:
        limit = bands.memory.overload * layout.memory_capacity
        memory = _passes(layout.used_memory, drift * layout.used_memory, limit)
        over = np.maximum(over, memory)
    return np.where(layout.gives, over * layout.used_count, 0.0)


def _passes(expected: Floats, spread: Floats, limit: Floats) -> Floats:
    """The probability that a normal variable passes a limit."""
    distance = (limit - expected) / np.maximum(spread, 1e-9)
    return np.array([erfc(value / sqrt(2.0)) / 2.0 for value in distance.tolist()])


def _cost(layout: Layout, step: Step, costs: Costs, failing: float) -> float:
    """VM-seconds that a step costs."""
    limits = layout.policy.limits
    rate, total = float(limits.bandwidth), 0.0
    for vm in layout.blocks[step.block]:
        cost = costs.at(vm, rate, "")
        given_up = max(limits.deadline, 3.0 * cost.seconds)
        total += SLOWED * (cost.seconds + failing * given_up) + cost.downtime
    return total


def _failing(history: History) -> float:
    """The share of migrations that fail, as far as is remembered."""
    begun = [move for move in history.moves if move.outcome not in NEVER_BEGUN]
    failed = sum(move.outcome is not Outcome.DONE for move in begun)
    return (failed + FAILED) / (len(begun) + BEGUN)
