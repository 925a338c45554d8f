"""One cycle: observe → assess → plan → advance → record → command. Knows ports, not adapters.

`cycle` does all of it and is called at an interval; `step` only carries on what is under way and
is called in between, as often as one likes. Whatever cannot be recorded is not done.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from balancerd.actuator import Actuator
from balancerd.believed import BelievedPower
from balancerd.core.executing.execution import (
    Execution,
    Stage,
    View,
    Warrant,
    warrant_of_approval,
    warrant_of_policy,
)
from balancerd.core.executing.executor import (
    adopt,
    advance,
    due,
    follow_up,
    may_close,
    may_press,
    moving,
    own_moves,
    project,
)
from balancerd.core.executing.messages import (
    AbortWanted,
    CloseWanted,
    Event,
    HurryWanted,
    SwitchFailed,
)
from balancerd.core.model import Exclusion, ExclusionKind, Link, PowerState, Snapshot
from balancerd.core.moving import graphs
from balancerd.core.past.breakers import State, breakers
from balancerd.core.past.history import History
from balancerd.core.past.record import OF_THE_MOMENT, Cycle, PlanState, Request, Verb
from balancerd.core.placing.assess import assess
from balancerd.core.plan import Move, Plan, Verdict
from balancerd.core.planner import plan as make_plan
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.policy import Policy
from balancerd.core.units import counted, format_time
from balancerd.ports import Backend, Clock, Ledger, Power, Samples
from balancerd.proposals import Proposals
from balancerd.recorder import Recorder
from balancerd.watch import Watch

log = logging.getLogger("balancerd")

TOO_LATE = "balancerd was started again before it could answer: ask it anew"

# What decides: a snapshot, `policy.at(now)`, the history and the time give a plan.
Planner = Callable[[Snapshot, Policy, History, float], Plan]


class Loop:
    """The one place where decisions and the world meet. Call it from one thread only."""

    def __init__(
        self,
        backend: Backend,
        power: Power,
        ledger: Ledger,
        samples: Samples,
        clock: Clock,
        policy: Callable[[], Policy],
        links: tuple[Link, ...] = (),
        stopwatch: Callable[[], float] = time.perf_counter,
        planner: Planner = make_plan,
    ) -> None:
        self._backend = backend
        self._power = BelievedPower(power)
        self._ledger = ledger
        self._clock = clock
        self._policy = policy
        self._stopwatch = stopwatch
        self._planner = planner
        self._recorder = Recorder(ledger)
        self._actuator = Actuator(backend, self._power, self._recorder, clock)
        self._watch = Watch(backend, self._power, self._recorder, samples, links)
        self._proposals = Proposals(self._recorder, clock)
        self._executions: list[Execution] = []

    # What the outside calls

    def start(self) -> str:
        """Take up what an earlier balancerd left, before the first cycle; a sentence about it.

        Raises LedgerError: a ledger that cannot be read is no ground to act on.
        """
        graphs.load()
        now = self._clock.now()
        self._watch.recall(now)
        for plan in self._ledger.open_plans():
            self._ledger.set_plan_state(plan, PlanState.SUPERSEDED, now, "balancerd was restarted")
        for request in self._ledger.requests():
            if request.verb in OF_THE_MOMENT:
                self._ledger.answer(request.id, now, accepted=False, detail=TOO_LATE)
        intents = self._ledger.recover()
        if not intents:
            return "nothing was left under way"
        self._executions = [adopt(intents)]
        return f"left under way: {counted(len(intents), 'action')}; asking the hosts"

    def cycle(self) -> Cycle:
        """One whole cycle; the summary it also recorded."""
        begun = self._stopwatch()
        policy = self._policy().at(self._clock.now())
        self._recorder.retry()
        self._look(policy)
        self._answer_requests(policy)
        self._advance(self._news(), policy)
        plan, plan_seconds, sentence = self._decide(policy)
        cycle = self._summary(policy, plan, sentence)
        cycle = replace(cycle, seconds=self._stopwatch() - begun, plan_seconds=plan_seconds)
        self._recorder.keep(self._ledger.record_cycle, cycle)
        return cycle

    def look(self) -> None:
        """Only see where everything stands: the next cycle's rates are of the time since, and those
        are kept as samples."""
        policy = self._policy().at(self._clock.now())
        self._look(policy, sampled=False)
        self._advance(self._news(), policy)

    def step(self) -> None:
        """Carry on what is under way: news of migrations, the operator's requests, next starts."""
        if not self._watch.begun:
            return
        policy = self._policy().at(self._clock.now())
        if self._waits_for_the_world() and not self._watch.fresh(
            policy.detection, self._clock.now()
        ):
            self._look(policy)
        self._carry_on()

    def busy(self) -> bool:
        """Whether anything is under way, so that it is worth calling `step` often."""
        return any(not execution.settled() for execution in self._executions)

    def due(self) -> float | None:
        """The next time `step` has something to do that no event announces; None: nothing."""
        return min((t for e in self._executions if (t := due(e)) is not None), default=None)

    # Advancing

    def _look(self, policy: Policy, *, sampled: bool = True) -> None:
        self._watch.look(policy.detection, self._ours, meanwhile=self._carry_on, sampled=sampled)

    def _ours(self) -> frozenset[str]:
        """The VMs that we move by now."""
        return own_moves(self._executions)

    def _carry_on(self) -> None:
        """With what was last seen; a host that hangs keeps no operator and no migration waiting."""
        if self._watch.begun:
            policy = self._policy().at(self._clock.now())
            self._answer_requests(policy)
            self._advance(self._news(), policy)

    def _waits_for_the_world(self) -> bool:
        """Whether something can only go on with a newer snapshot: a start, or a host's power."""
        return any(
            tasks.any_at((Stage.WAITING,))
            or any(not isinstance(tasks[n].action, Move) for n in tasks.at((Stage.RUNNING,)))
            for tasks in (execution.tasks for execution in self._executions)
        )

    def _view(self, policy: Policy, execution: int) -> View:
        """What one execution may look at; what the others have under way is part of it."""
        watch, now = self._watch, self._clock.now()
        pause = self._recorder.keep(self._ledger.pause, now)
        snapshot = watch.snapshot
        for index, other in enumerate(self._executions):
            if index != execution:
                snapshot = project(snapshot, other.tasks)
        return View(
            snapshot=snapshot,
            policy=policy,
            history=watch.history,
            now=now,
            paused=pause is not None,
            frozen=watch.frozen(policy.detection),
            fresh=watch.fresh(policy.detection, now),
        )

    def _news(self) -> list[Event]:
        """What has become of migrations and power orders since it was last asked."""
        failures = sorted(self._power.failures().items())
        return [*self._backend.reports(), *(SwitchFailed(*failure) for failure in failures)]

    def _advance(self, events: Sequence[Event], policy: Policy) -> None:
        """Advance every execution and perform its commands until there are none left."""
        for index in range(len(self._executions)):
            execution, commands = advance(
                self._executions[index], events, self._view(policy, index)
            )
            self._executions[index] = execution
            while commands:
                performed = [self._actuator.perform(command) for command in commands]
                answers = [event for event in performed if event is not None]
                execution, commands = follow_up(execution, answers, self._view(policy, index))
                self._executions[index] = execution
        self._executions = [e for e in self._executions if not e.settled()]

    # The operator's requests

    def _answer_requests(self, policy: Policy) -> None:
        """What a ledger can take no answer to waits until it can."""
        for request in self._recorder.keep(self._ledger.requests) or ():
            if self._recorder.broken or not self._answer(request, policy):
                return

    def _answer(self, request: Request, policy: Policy) -> bool:
        """Do what is asked for, and say so; False where that cannot be recorded."""
        accepted, detail = self._serve(request, policy)
        if self._recorder.broken:
            return False
        now = self._clock.now()
        self._recorder.keep(self._ledger.answer, request.id, now, accepted, detail)
        if not self._recorder.broken:
            log.info("%s %s by %s: %s", request.verb, request.subject, request.by, detail)
        return not self._recorder.broken

    def _serve(self, request: Request, policy: Policy) -> tuple[bool, str]:
        match request.verb:
            case Verb.APPROVE:
                return self._approve(request, policy)
            case Verb.REJECT:
                return self._reject(request)
            case Verb.DRAIN | Verb.UNDRAIN:
                return self._drain(request)
            case Verb.ABORT | Verb.HURRY | Verb.CLOSE:
                return self._press(request, policy)

    def _press(self, request: Request, policy: Policy) -> tuple[bool, str]:
        """Ask something of a migration that is under way, unless something is in the way."""
        may = may_close if request.verb is Verb.CLOSE else may_press
        obstacle = may(self._executions, request.subject)
        if obstacle:
            return False, obstacle
        event, detail = _wanted(request, policy)
        self._advance([event], policy)
        return True, detail

    def _approve(self, request: Request, policy: Policy) -> tuple[bool, str]:
        proposal = self._proposals.named(request.subject)
        if request.subject in {str(execution.plan_id) for execution in self._executions}:
            return True, f"plan {request.subject} is being carried out"
        if proposal is None:
            return False, self._proposals.missing(request.subject)
        age = self._clock.now() - proposal.plan.at
        if age > policy.limits.plan_life:
            return False, f"the plan is {age:.0f} s old"
        warrant = warrant_of_approval(policy, request.by)
        if warrant is None:
            return False, "the policy only observes"
        now = self._clock.now()
        self._recorder.keep(
            self._ledger.set_plan_state, proposal.id, PlanState.RUNNING, now, f"by {warrant.by}"
        )
        if self._recorder.broken:
            return False, "it cannot be recorded"
        self._carry_out(proposal.plan, proposal.id, warrant)
        self._proposals.take()
        paused = self._recorder.keep(self._ledger.pause, self._clock.now())
        when = " once the pause ends" if paused else ""
        return True, f"plan {proposal.id} is being carried out{when}"

    def _reject(self, request: Request) -> tuple[bool, str]:
        proposal = self._proposals.named(request.subject)
        if proposal is None:
            return False, self._proposals.missing(request.subject)
        self._proposals.drop(f"rejected by {request.by}")
        return True, f"plan {proposal.id} is dropped"

    def _drain(self, request: Request) -> tuple[bool, str]:
        if request.subject not in self._watch.snapshot.cluster.hosts:
            return False, "no such host"
        begin, now = request.verb is Verb.DRAIN, self._clock.now()
        if begin == (request.subject in (self._recorder.keep(self._ledger.draining) or ())):
            return True, "is being drained already" if begin else "was not being drained"
        self._recorder.keep(self._ledger.set_draining, request.subject, begin, now)
        return True, "is being drained" if begin else "is in use again"

    # Deciding

    def _decide(self, policy: Policy) -> tuple[Plan | None, float | None, str]:
        """Plan where it is time to: the plan, what planning took in seconds, one sentence."""
        now = self._clock.now()
        frozen = self._watch.frozen(policy.detection)
        if frozen:
            return None, None, f"frozen: {frozen}"
        if any(execution.busy(now) for execution in self._executions):
            return None, None, self._progress()
        rests = breakers(self._watch.history, policy.limits, now).site
        if rests.state is State.OPEN:
            failed = f"{rests.failures} migrations failed in a row"
            return None, None, f"resting until {format_time(round(rests.until))}: {failed}"
        if policy.mode is Mode.OBSERVE:
            return None, None, "observing"
        begun = self._stopwatch()
        plan = self._planner(self._plannable(), policy, self._watch.history, now)
        seconds = self._stopwatch() - begun
        return plan, seconds, self._take(plan, policy)

    def _plannable(self) -> Snapshot:
        """The snapshot with VMs whose last migration is not settled left where they are."""
        snapshot = self._watch.snapshot
        for execution in self._executions:
            snapshot = project(snapshot, execution.tasks)
        unsettled = tuple(
            Exclusion(vm, ExclusionKind.FOREIGN_JOB, f"its move to {target} is not settled")
            for vm, target in sorted(moving(self._executions).items())
        )
        return (
            replace(snapshot, exclusions=snapshot.exclusions + unsettled) if unsettled else snapshot
        )

    def _take(self, plan: Plan, policy: Policy) -> str:
        """Carry a plan out, or propose it, as the mode says; one sentence about it."""
        if not plan.actions:
            self._proposals.doubt(plan.at, policy)
            return plan.reason
        warrant = warrant_of_policy(policy)
        if warrant is None:
            return self._proposals.offer(plan, policy, self._record_plan)
        self._proposals.drop("the policy acts by itself now")
        number = self._record_plan(plan, PlanState.RUNNING, f"by {warrant.by}")
        if number is None:
            return "frozen: the plan cannot be recorded"
        self._carry_out(plan, number, warrant)
        return f"plan {number}: {plan.reason}"

    def _record_plan(
        self, plan: Plan, state: PlanState = PlanState.PROPOSED, detail: str = ""
    ) -> int | None:
        record, snapshot = self._ledger.record_plan, self._watch.snapshot
        return self._recorder.keep(record, plan, snapshot, state, detail)

    def _carry_out(self, plan: Plan, number: int, warrant: Warrant) -> None:
        """Begin the execution and its first actions, once the record has it as running. Without a
        warrant there is none."""
        self._executions.append(Execution.of(plan, number, warrant))
        self._advance((), self._policy().at(self._clock.now()))

    def _progress(self) -> str:
        """One sentence about what is under way."""
        stages = [t.stage for e in self._executions for t in e.tasks.values()]
        numbers = sorted({e.plan_id for e in self._executions if e.plan_id})
        name = f"plan {', '.join(map(str, numbers))}" if numbers else "left under way"
        counts = {stage: stages.count(stage) for stage in Stage if stage in stages}
        return f"{name}: " + ", ".join(f"{count} {stage}" for stage, count in counts.items())

    def _summary(self, policy: Policy, plan: Plan | None, sentence: str) -> Cycle:
        snapshot = self._watch.snapshot
        assessments = plan.assessments if plan else assess(snapshot, policy, snapshot.at)
        verdicts = [assessment.verdict for assessment in assessments]
        window = self._policy().window_at(snapshot.at)
        return Cycle(
            at=snapshot.at,
            seconds=0.0,
            sentence=sentence,
            mode=policy.mode,
            objective=policy.objective,
            window=window.name if window else "",
            hosts_on=sum(h.power is PowerState.ON for h in snapshot.cluster.hosts.values()),
            hosts_asleep=verdicts.count(Verdict.ASLEEP),
            hosts_unknown=len(snapshot.unknown_hosts()),
            vms=len(snapshot.cluster.vms),
            overloaded=verdicts.count(Verdict.OVERLOADED),
            frozen=self._watch.frozen(policy.detection),
            plan=max((e.plan_id for e in self._executions), default=0),
        )


def _wanted(request: Request, policy: Policy) -> tuple[Event, str]:
    """What a request asks of a migration, and what its author is told."""
    vm, by = request.subject, request.by
    match request.verb:
        case Verb.ABORT:
            return AbortWanted(vm, by), "its source is asked to give up"
        case Verb.HURRY:
            force = request.arguments.get("force_complete") == "yes"
            longest = f"of {policy.limits.downtime * 1000:.0f} ms"
            pause = "as long as it takes" if force else longest
            return HurryWanted(vm, by, force), f"may end with a pause {pause}"
        case _:
            told = "its migration is concluded as it is; the VM is yours to put right"
            return CloseWanted(vm, by), told
