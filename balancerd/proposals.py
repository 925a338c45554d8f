"""The plan that waits for the operator: one at a time, kept for its life, so that what is
approved is what was read."""

from collections.abc import Callable
from dataclasses import dataclass

from balancerd.core.past.record import PlanState
from balancerd.core.plan import Plan
from balancerd.core.policies.policy import Policy
from balancerd.ports import Clock
from balancerd.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that waits for the operator's approval."""

    plan: Plan
    id: int


class Proposals:
    """At most one plan that waits, and what became of the one before."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock
        self._waiting: Proposal | None = None
        self._unneeded_since: float | None = None
        self._dropped = (0, "")  # the last proposal that nobody decided on, and why it was dropped

    def offer(self, plan: Plan, policy: Policy, record: Callable[[Plan], int | None]) -> str:
        """Let a plan wait, unless an older one still does; one sentence about it."""
        old = self._waiting
        self._unneeded_since = None
        if old and plan.at - old.plan.at <= policy.limits.plan_life:
            return f"plan {old.id} waits for approval: {old.plan.reason}"
        self.drop("replaced by a newer plan")
        number = record(plan)
        if number is None:
            return "frozen: the plan cannot be recorded"
        self._waiting = Proposal(plan, number)
        return f"plan {number} waits for approval: {plan.reason}"

    def doubt(self, now: float, policy: Policy) -> None:
        """Drop a proposal that nothing has called for during a whole window."""
        if self._unneeded_since is None:
            self._unneeded_since = now
        if now - self._unneeded_since >= policy.detection.window:
            self.drop("no longer needed")

    def drop(self, why: str) -> None:
        """Let nothing wait any more."""
        if self._waiting is None:
            return
        number, self._waiting = self._waiting.id, None
        self._dropped = number, why
        self._recorder.end_plan(number, PlanState.SUPERSEDED, self._clock.now(), why)

    def named(self, number: str) -> Proposal | None:
        """The plan that waits, if it is the one that the operator decides on."""
        waiting = self._waiting
        return waiting if waiting and number == str(waiting.id) else None

    def take(self) -> None:
        """Let the plan that waits be carried out: it waits no more."""
        self._waiting = None

    def missing(self, number: str) -> str:
        """What became of a plan that somebody read and now decides on too late."""
        dropped, why = self._dropped
        if number == str(dropped):
            return f"plan {dropped} does not wait any more: {why}"
        return "no such plan waits for approval"
