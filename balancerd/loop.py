"""One cycle: observe → assess → plan → advance → record → command. Knows ports, not adapters.

`cycle` does all of it and is called at an interval; `step` only carries on what is under way and
is called in between, as often as one likes. Whatever cannot be recorded is not done.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from balancerd.actuator import Actuator
from balancerd.core.executing.execution import (
    Execution,
    Stage,
    View,
    Warrant,
    warrant_of_approval,
    warrant_of_policy,
)
from balancerd.core.executing.executor import adopt, advance, due, moving, own_moves, project
from balancerd.core.executing.messages import AbortWanted, Event, HurryWanted, SwitchFailed
from balancerd.core.model import Exclusion, ExclusionKind, Host, Link, PowerState, Snapshot
from balancerd.core.observation import Observation
from balancerd.core.past.breakers import State, breakers
from balancerd.core.past.history import NEVER_BEGUN, History
from balancerd.core.past.record import Cycle, PlanState, Request, Verb
from balancerd.core.past.vetoes import DEED, deeds
from balancerd.core.placing.assess import assess
from balancerd.core.plan import Assessment, Move, Plan, Verdict
from balancerd.core.planner import plan as make_plan
from balancerd.core.policies.policy import Mode, Policy
from balancerd.core.sensing.forecast import MEMORY, Pasts, taking_in
from balancerd.core.sensing.measurement import Known
from balancerd.core.sensing.profile import PROFILED, Profile, recalled
from balancerd.core.sensing.snapshot import assemble, freeze_reason
from balancerd.core.units import counted, format_time
from balancerd.ports import Backend, Clock, Ledger, LedgerError, Power, PowerError, Samples
from balancerd.recorder import Recorder

log = logging.getLogger("balancerd")

# What decides: a snapshot, `policy.at(now)`, the history and the time give a plan.
Planner = Callable[[Snapshot, Policy, History, float], Plan]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that waits for the operator's approval."""

    plan: Plan
    id: int


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
        self._power = power
        self._ledger = ledger
        self._samples = samples
        self._clock = clock
        self._policy = policy
        self._links = links
        self._stopwatch = stopwatch
        self._planner = planner
        self._recorder = Recorder(ledger)
        self._actuator = Actuator(backend, power, self._recorder, clock)
        self._known = Known()
        self._snapshot: Snapshot | None = None
        self._before: Snapshot | None = None  # the snapshot before this one
        self._history = History()
        self._executions: list[Execution] = []
        self._proposal: Proposal | None = None
        self._unneeded_since: float | None = None
        self._dropped = (0, "")  # the last proposal that nobody decided on, and why it was dropped
        self._troubles: frozenset[str] = frozenset()

    # What the outside calls

    def start(self) -> str:
        """Take up what an earlier balancerd left, before the first cycle; a sentence about it.

        Raises LedgerError: a ledger that cannot be read is no ground to act on.
        """
        now = self._clock.now()
        self._known = Known(
            hosts=self._ledger.known_hosts(), pasts=self._pasts(now), profile=self._profile(now)
        )
        for plan in self._ledger.open_plans():
            self._ledger.set_plan_state(plan, PlanState.SUPERSEDED, now, "balancerd was restarted")
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
        snapshot = self._observe(policy)
        self._record(snapshot)
        self._answer_requests(policy)
        self._advance(self._news(), policy)
        plan, plan_seconds, sentence = self._decide(policy)
        assessments = plan.assessments if plan else assess(snapshot, policy, snapshot.at)
        cycle = self._summary(snapshot, policy, assessments, sentence)
        cycle = replace(cycle, seconds=self._stopwatch() - begun, plan_seconds=plan_seconds)
        self._recorder.keep(self._ledger.record_cycle, cycle)
        return cycle

    def look(self) -> None:
        """Observe and record only: the next cycle's rates are of the time since."""
        policy = self._policy().at(self._clock.now())
        self._record(self._observe(policy))
        self._advance(self._news(), policy)

    def step(self) -> None:
        """Carry on what is under way: news of migrations, the operator's requests, next starts."""
        if self._snapshot is None:
            return
        policy = self._policy().at(self._clock.now())
        if self._waits_for_the_world() and not self._fresh(policy):
            self._record(self._observe(policy))
        self._answer_requests(policy)
        self._advance(self._news(), policy)

    def busy(self) -> bool:
        """Whether anything is under way, so that it is worth calling `step` often."""
        return any(not execution.settled() for execution in self._executions)

    def due(self) -> float | None:
        """The next time `step` has something to do that no event announces; None: nothing."""
        return min((t for e in self._executions if (t := due(e)) is not None), default=None)

    # Observing

    def _pasts(self, now: float) -> Pasts:
        """What the samples tell of each VM's demand, so that a restart forgets none of it."""
        pasts = Pasts.of({})
        try:
            for at, cpu in self._samples.recent(now, MEMORY):
                pasts = taking_in(pasts, at, cpu)
        except LedgerError as error:
            log.warning("samples: %s", error)
        return pasts

    def _profile(self, now: float) -> Profile:
        """What the samples tell of the hours of the day and the week."""
        try:
            return recalled(self._samples.hours(now, PROFILED))
        except LedgerError as error:
            log.warning("samples: %s", error)
            return Profile.none()

    def _observe(self, policy: Policy) -> Snapshot:
        observation = self._backend.observe()
        before = self._before = self._snapshot
        draining = self._recorder.keep(self._ledger.draining)
        if draining is None:
            draining = before.draining if before else frozenset()
        snapshot, self._known = assemble(
            observation,
            self._known,
            self._power_states(observation),
            policy.detection,
            self._links,
            draining,
        )
        self._note_power(before.cluster.hosts if before else {}, snapshot)
        self._note_troubles(snapshot)
        self._snapshot = snapshot
        return snapshot

    def _power_states(self, observation: Observation) -> dict[str, PowerState]:
        """The power of hosts that did not answer; none where even that cannot be had."""
        silent = [reading.host for reading in observation.readings if reading.error]
        if not silent:
            return {}
        try:
            return dict(self._power.states(silent))
        except PowerError as error:
            log.warning("power states: %s", error)
            return {}

    def _note_power(self, before: Mapping[str, Host], snapshot: Snapshot) -> None:
        """Record every change of a host's power that is seen, the first sight included."""
        for name, host in snapshot.cluster.hosts.items():
            old = before.get(name)
            if host.power is not PowerState.UNKNOWN and (old is None or old.power != host.power):
                self._recorder.keep(self._ledger.record_power, name, host.power, snapshot.at)

    def _note_troubles(self, snapshot: Snapshot) -> None:
        """Put gaps of hosts and split brains into the audit, as they begin and as they end."""
        troubles = {f"{g.name}: {g.kind}": g.detail for g in snapshot.gaps if g.subject == "host"}
        for split in snapshot.split_brains:
            troubles[f"{split.vm} runs on {' and '.join(split.hosts)}"] = split.uuid
        for trouble in sorted(troubles.keys() - self._troubles):
            log.warning("%s (%s)", trouble, troubles[trouble])
            self._recorder.event(snapshot.at, "trouble", trouble, troubles[trouble])
        for trouble in sorted(self._troubles - troubles.keys()):
            log.info("%s: over", trouble)
            self._recorder.event(snapshot.at, "trouble over", trouble, "")
        self._troubles = frozenset(troubles)

    def _record(self, snapshot: Snapshot) -> None:
        keep = self._recorder.keep
        keep(self._ledger.record_inventory, snapshot)
        history = keep(self._ledger.history, snapshot.at)
        if history is not None:
            self._history = history
            self._note_deeds(snapshot)
        try:
            self._samples.append(snapshot.at, snapshot.host_loads, snapshot.loads)
        except LedgerError as error:
            log.warning("samples: %s", error)

    def _note_deeds(self, snapshot: Snapshot) -> None:
        """Put what others did to VMs into the audit, from where it is a veto for a while."""
        before = self._before
        if before is None:
            return
        begun = (move for move in self._history.moves if move.at >= before.at)
        own = {move.vm for move in begun if move.outcome not in NEVER_BEGUN}
        found = deeds(before, snapshot, own | own_moves(self._executions))
        for deed in found:
            log.warning("somebody %s: %s", deed.what, deed.vm)
            self._recorder.event(deed.at, DEED, deed.vm, deed.what)
        if found:
            self._history = self._recorder.keep(self._ledger.history, snapshot.at) or self._history

    # Advancing

    def _waits_for_the_world(self) -> bool:
        """Whether something can only go on with a newer snapshot: a start, or a host's power."""
        return any(
            task.stage is Stage.WAITING
            or (task.stage is Stage.RUNNING and not isinstance(task.action, Move))
            for execution in self._executions
            for task in execution.tasks.values()
        )

    def _fresh(self, policy: Policy) -> bool:
        assert self._snapshot is not None
        return self._clock.now() - self._snapshot.at <= policy.detection.stale_after

    def _frozen(self, policy: Policy) -> str:
        assert self._snapshot is not None
        if self._recorder.broken:
            return f"the ledger is broken: {self._recorder.broken}"
        return freeze_reason(self._snapshot, policy.detection)

    def _view(self, policy: Policy, execution: int) -> View:
        """What one execution may look at; what the others have under way is part of it."""
        assert self._snapshot is not None
        now = self._clock.now()
        pause = self._recorder.keep(self._ledger.pause, now)
        snapshot = self._snapshot
        for index, other in enumerate(self._executions):
            if index != execution:
                snapshot = project(snapshot, other.tasks.values())
        return View(
            snapshot=snapshot,
            policy=policy,
            history=self._history,
            now=now,
            paused=pause is not None,
            frozen=self._frozen(policy),
            fresh=self._fresh(policy),
        )

    def _news(self) -> list[Event]:
        """What has become of migrations and power orders since it was last asked."""
        failures = sorted(self._power.failures().items())
        return [*self._backend.reports(), *(SwitchFailed(*failure) for failure in failures)]

    def _advance(self, events: Sequence[Event], policy: Policy) -> None:
        """Advance every execution and perform its commands until there are none left."""
        for index in range(len(self._executions)):
            news = events
            while True:
                view = self._view(policy, index)
                execution, commands = advance(self._executions[index], news, view)
                self._executions[index] = execution
                if not commands:
                    break
                performed = [self._actuator.perform(command) for command in commands]
                news = [event for event in performed if event is not None]
        self._executions = [e for e in self._executions if not e.settled()]

    # The operator's requests

    def _answer_requests(self, policy: Policy) -> None:
        for request in self._recorder.keep(self._ledger.requests) or ():
            accepted, detail = self._serve(request, policy)
            log.info("%s %s by %s: %s", request.verb, request.subject, request.by, detail)
            now = self._clock.now()
            self._recorder.keep(self._ledger.answer, request.id, now, accepted, detail)

    def _serve(self, request: Request, policy: Policy) -> tuple[bool, str]:
        match request.verb:
            case Verb.APPROVE:
                return self._approve(request, policy)
            case Verb.REJECT:
                return self._reject(request)
            case Verb.DRAIN | Verb.UNDRAIN:
                return self._drain(request)
            case Verb.ABORT:
                if request.subject not in own_moves(self._executions):
                    return False, "is not being moved by balancerd"
                self._advance([AbortWanted(request.subject, request.by)], policy)
                return True, "its source is asked to give up"
            case Verb.HURRY:
                return self._hurry(request, policy)

    def _hurry(self, request: Request, policy: Policy) -> tuple[bool, str]:
        if request.subject not in own_moves(self._executions):
            return False, "is not being moved by balancerd"
        force = request.arguments.get("force_complete") == "yes"
        self._advance([HurryWanted(request.subject, request.by, force)], policy)
        longest = f"of {policy.limits.downtime * 1000:.0f} ms"
        return True, f"may end with a pause {'as long as it takes' if force else longest}"

    def _approve(self, request: Request, policy: Policy) -> tuple[bool, str]:
        proposal = self._proposal
        if proposal is None or request.subject != str(proposal.id):
            return False, self._not_waiting(request.subject)
        age = self._clock.now() - proposal.plan.at
        if age > policy.limits.plan_life:
            return False, f"the plan is {age:.0f} s old"
        warrant = warrant_of_approval(policy, request.by)
        if warrant is None:
            return False, "the policy only observes"
        self._proposal = None
        self._carry_out(proposal.plan, proposal.id, warrant)
        return True, f"plan {proposal.id} is being carried out"

    def _reject(self, request: Request) -> tuple[bool, str]:
        proposal = self._proposal
        if proposal is None or request.subject != str(proposal.id):
            return False, self._not_waiting(request.subject)
        self._drop_proposal(f"rejected by {request.by}")
        return True, f"plan {proposal.id} is dropped"

    def _not_waiting(self, subject: str) -> str:
        """What became of a plan that somebody read and now decides on too late."""
        number, why = self._dropped
        if subject == str(number):
            return f"plan {number} does not wait any more: {why}"
        return "no such plan waits for approval"

    def _drain(self, request: Request) -> tuple[bool, str]:
        assert self._snapshot is not None
        if request.subject not in self._snapshot.cluster.hosts:
            return False, "no such host"
        begin, now = request.verb is Verb.DRAIN, self._clock.now()
        self._recorder.keep(self._ledger.set_draining, request.subject, begin, now)
        return True, "is being drained" if begin else "is in use again"

    # Deciding

    def _decide(self, policy: Policy) -> tuple[Plan | None, float | None, str]:
        """Plan where it is time to: the plan, what planning took in seconds, one sentence."""
        now = self._clock.now()
        frozen = self._frozen(policy)
        if frozen:
            return None, None, f"frozen: {frozen}"
        if any(execution.busy(now) for execution in self._executions):
            return None, None, self._progress()
        rests = breakers(self._history, policy.limits, now).site
        if rests.state is State.OPEN:
            failed = f"{rests.failures} migrations failed in a row"
            return None, None, f"resting until {format_time(rests.until)}: {failed}"
        if policy.mode is Mode.OBSERVE:
            return None, None, "observing"
        begun = self._stopwatch()
        plan = self._planner(self._plannable(), policy, self._history, now)
        seconds = self._stopwatch() - begun
        return plan, seconds, self._take(plan, policy)

    def _plannable(self) -> Snapshot:
        """The snapshot with VMs whose last migration is not settled left where they are."""
        assert self._snapshot is not None
        snapshot = self._snapshot
        for execution in self._executions:
            snapshot = project(snapshot, execution.tasks.values())
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
            self._doubt_proposal(plan.at, policy)
            return plan.reason
        warrant = warrant_of_policy(policy)
        if warrant is None:
            return self._propose(plan, policy)
        self._drop_proposal("the policy acts by itself now")
        number = self._record_plan(plan, PlanState.PROPOSED)
        if number is None:
            return "frozen: the plan cannot be recorded"
        self._carry_out(plan, number, warrant)
        return f"plan {number}: {plan.reason}"

    def _propose(self, plan: Plan, policy: Policy) -> str:
        """Keep one proposal for its life, so that what the operator approves is what he read."""
        old = self._proposal
        self._unneeded_since = None
        if old and plan.at - old.plan.at <= policy.limits.plan_life:
            return f"plan {old.id} waits for approval: {old.plan.reason}"
        self._drop_proposal("replaced by a newer plan")
        number = self._record_plan(plan, PlanState.PROPOSED)
        if number is None:
            return "frozen: the plan cannot be recorded"
        self._proposal = Proposal(plan, number)
        return f"plan {number} waits for approval: {plan.reason}"

    def _doubt_proposal(self, now: float, policy: Policy) -> None:
        """Drop a proposal that nothing has called for during a whole window."""
        if self._unneeded_since is None:
            self._unneeded_since = now
        if now - self._unneeded_since >= policy.detection.window:
            self._drop_proposal("no longer needed")

    def _drop_proposal(self, why: str) -> None:
        if self._proposal is None:
            return
        number, self._proposal = self._proposal.id, None
        self._dropped = number, why
        now = self._clock.now()
        self._recorder.keep(self._ledger.set_plan_state, number, PlanState.SUPERSEDED, now, why)

    def _record_plan(self, plan: Plan, state: PlanState) -> int | None:
        assert self._snapshot is not None
        return self._recorder.keep(self._ledger.record_plan, plan, self._snapshot, state)

    def _carry_out(self, plan: Plan, number: int, warrant: Warrant) -> None:
        """Begin the execution and its first actions. Without a warrant there is none."""
        now = self._clock.now()
        self._recorder.keep(
            self._ledger.set_plan_state, number, PlanState.RUNNING, now, f"by {warrant.by}"
        )
        self._executions.append(Execution.of(plan, number, warrant))
        self._advance((), self._policy().at(now))

    def _progress(self) -> str:
        """One sentence about what is under way."""
        stages = [t.stage for e in self._executions for t in e.tasks.values()]
        numbers = sorted({e.plan_id for e in self._executions if e.plan_id})
        name = f"plan {', '.join(map(str, numbers))}" if numbers else "left under way"
        counts = {stage: stages.count(stage) for stage in Stage if stage in stages}
        return f"{name}: " + ", ".join(f"{count} {stage}" for stage, count in counts.items())

    def _summary(
        self, snapshot: Snapshot, policy: Policy, assessments: Sequence[Assessment], sentence: str
    ) -> Cycle:
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
            frozen=self._frozen(policy),
            plan=max((e.plan_id for e in self._executions), default=0),
        )
