"""What became of a migration: both hosts' answers, the state-pair table, and whose job it is.

Acts on a copy of the VM need the same answer twice, `CONFIRMED_AFTER` seconds apart, because a
healthy migration passes through every one of those states for a moment.

An operator may begin a migration of his own between our check and our start, and his must never
be given up or mended by us. So a job is watched only where the target shows its half of it and
nothing tells that somebody else began it, and is taken for ours (`Task.ours`) once it made progress
after our start. What looks like a lost VM, or a target that lost, may be a migration to a third
host: every other host is asked first.
"""

from collections.abc import Mapping

from balancerd.core.executing.cold import judge_cold
from balancerd.core.executing.execution import OUTCOME_STAGE, Stage, Task, View
from balancerd.core.executing.messages import Acted, Ask, Command, Conclude, Located, Settle, Watch
from balancerd.core.executing.reconcile import DOWN, GONE, Act, Finding, judge, may_watch
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import PowerState
from balancerd.core.observation import JobReport, Presence
from balancerd.core.outcome import Against, Outcome
from balancerd.core.past.record import Conclusion
from balancerd.core.policies.limits import Limits

CONFIRMED_AFTER = 5.0  # seconds between two equal answers before a copy of a VM is touched
PATIENCE = 60.0  # seconds after which somebody else's migration is left as it is
ASK_AGAIN = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds; the last one repeats
TOUCHING = frozenset({Act.RESUME_SOURCE, Act.RESUME_TARGET, Act.DESTROY_SOURCE, Act.DESTROY_TARGET})
# Seconds around the intent in which a job may have begun that is ours. A start is ordered right
# after its intent, and an adapter does not carry out an order that is older than 10 s.
BEGAN_BEFORE, BEGAN_AFTER = 5.0, 30.0
_CANCELLED = 78  # VIR_ERR_OPERATION_ABORTED: for the record only, it decides nothing
_NOT_BEGUN = 55  # VIR_ERR_OPERATION_INVALID: the call was refused; what runs is not its job
_NOT_THERE = frozenset(
    {Presence.ABSENT, Presence.SHUTOFF, Presence.MIGRATED, Presence.FAILED, Presence.CRASHED}
)
_WITHOUT_JOB = _NOT_THERE | {Presence.RUNNING}
_DEFINED = _NOT_THERE - {Presence.ABSENT}
_RUNS = frozenset({Presence.RUNNING, Presence.RUNNING_WITH_JOB, Presence.POSTCOPY})

Step = tuple[Task, tuple[Command, ...]]


def asks_at(task: Task) -> float:
    """When the hosts are to be asked again about a task that is being verified."""
    if not task.asks:
        return 0.0
    return task.asked + ASK_AGAIN[min(task.asks, len(ASK_AGAIN)) - 1]


def ask(task: Task, view: View) -> Step:
    """Ask both hosts, and all others where it may have gone to one of them."""
    move = task.move
    hosts: tuple[str, ...] = (move.source, move.target)
    if task.look_wide:
        hosts = everywhere(task, view)
    asked = altered(task, asked=view.now, asks=task.asks + 1)
    return asked, (Ask(move.number, move.vm, task.uuid, hosts, lasting=task.is_cold),)


def everywhere(task: Task, view: View) -> tuple[str, ...]:
    """Source, target, and all other hosts that are not off."""
    move, known = task.move, view.snapshot.cluster.hosts
    awake = [name for name in sorted(known) if known[name].power is not PowerState.OFF]
    ends = (move.source, move.target)
    return (*ends, *(name for name in awake if name not in ends))


def pair_of(task: Task, presence: Mapping[str, Presence]) -> tuple[Presence, Presence]:
    """What source and target said."""
    move, unreachable = task.move, Presence.UNREACHABLE
    return presence.get(move.source, unreachable), presence.get(move.target, unreachable)


def others_of(task: Task, presence: Mapping[str, Presence]) -> dict[str, Presence]:
    """What all hosts but source and target said."""
    ends = (task.move.source, task.move.target)
    return {host: said for host, said in presence.items() if host not in ends}


def deadline(predicted: float, limits: Limits) -> float:
    """Seconds a migration may take: three times the prediction, but never less than the floor."""
    return max(limits.deadline, 3.0 * predicted)


def tells_of_another(task: Task, report: JobReport) -> str:
    """Why a report cannot be of the job that this task began; "" when it can."""
    if report.ended:
        refused = not report.begun or (report.error_code == _NOT_BEGUN and not task.adopted)
        return (report.error or "it was refused") if refused else ""
    if report.progress is None:
        return ""
    began = report.at - report.progress.elapsed
    if task.started - BEGAN_BEFORE <= began <= task.started + BEGAN_AFTER:
        return ""
    return "somebody else's job: it began at another time"


def located(task: Task, event: Located, view: View) -> Step:
    """The hosts answered; the state-pair table says what it means."""
    presence = event.location.presence
    pair = _as_ordered(task, *pair_of(task, presence))
    if pair != task.pair:
        task = altered(task, pair=pair, pair_since=event.location.at)
    if task.ours and pair[0] in _WITHOUT_JOB:
        task = altered(task, jobless=True)
    if pair[0] is Presence.RUNNING_WITH_JOB:
        return _job_goes_on(task, pair[1], view)
    stood = event.location.at - task.pair_since
    if task.is_cold:
        finding = judge_cold(*pair, stood, answered=_has_answered(task))
    else:
        finding = judge(*pair, stood)
    if finding.outcome is None:
        return _wait(task, finding.detail)
    if _may_be_elsewhere(finding):
        finding = _looked_wide(task, finding, presence)
        if finding.outcome is None:
            return _wait(altered(task, look_wide=True), finding.detail)
    if stood < _to_be_confirmed(task, finding):
        return _wait(task, f"{finding.detail}; {task.foreign or 'to be confirmed'}")
    return _ruled(task, finding, pair, view)


def _has_answered(task: Task) -> bool:
    """Whether nobody is at work on our call any more, and was not when the pair was first seen."""
    if task.foreign:
        return True  # it was never made, or refused
    told = task.report
    return told is not None and told.ended and told.answered and told.at <= task.pair_since


def _as_ordered(task: Task, source: Presence, target: Presence) -> tuple[Presence, Presence]:
    """The pair with a paused copy on the target called what the move's intent makes of it.

    A VM arrives paused by our order, or because somebody paused it before it left; and a target's
    libvirtd that was started again has forgotten that it arrived at all.
    """
    if target is Presence.HANDED_OVER and not task.hand_over:
        return source, Presence.PAUSED
    if target is Presence.PAUSED and task.hand_over and source in GONE:
        return source, Presence.HANDED_OVER
    return source, target


def _to_be_confirmed(task: Task, finding: Finding) -> float:
    """Seconds for which both hosts must have told the same before the finding is acted upon."""
    if not TOUCHING & set(finding.acts):
        return 0.0
    if task.foreign:
        return PATIENCE
    # The end of every hand-over. No healthy migration passes through it: its source is gone for
    # good, and the VM stands still meanwhile.
    at_once = task.hand_over and finding.acts[0] is Act.RESUME_TARGET
    return 0.0 if at_once else CONFIRMED_AFTER


def _wait(task: Task, detail: str) -> Step:
    return altered(task, detail=detail), ()


def _job_goes_on(task: Task, target: Presence, view: View) -> Step:
    """A job holds the VM: watch it again if it is ours, else wait for its end."""
    if task.foreign or task.is_cold or not may_watch(target, ours=task.ours):
        return _wait(task, task.foreign or "a job holds it that is not seen on the target")
    if task.jobless or _has_answered(task):
        return _wait(task, "a job holds it that began after ours had ended")
    move = task.move
    limit = task.deadline or deadline(move.seconds, view.policy.limits)
    task = altered(task, deadline=limit, progressed=view.now, asks=0)
    watch = Watch(move.number, move.vm, move.source, move.target)
    return task.to(Stage.RUNNING, view.now, "adopted" if task.adopted else task.detail), (watch,)


def _may_be_elsewhere(finding: Finding) -> bool:
    """Whether the same pair would be seen of a migration to a third host."""
    return finding.outcome is Outcome.LOST or Act.RESUME_SOURCE in finding.acts


def _looked_wide(task: Task, finding: Finding, presence: Mapping[str, Presence]) -> Finding:
    """The finding in the light of what all other hosts say; no outcome while that is not known."""
    others = others_of(task, presence)
    if not task.look_wide:
        return Finding(None, f"{finding.detail}; the other hosts are to be asked")
    for host, said in sorted(others.items()):
        if said in _RUNS or (task.is_cold and said in _DEFINED):
            return Finding(Outcome.FAILED, f"somebody moved it to {host}")
        if said not in _NOT_THERE and said is not Presence.UNREACHABLE:
            return Finding(None, f"{host} says {said.value}")
    silent = [host for host, said in sorted(others.items()) if said is Presence.UNREACHABLE]
    if silent and not task.ours:
        return Finding(None, f"{finding.detail}, or it is on {silent[0]}, which does not answer")
    return finding


def _ruled(task: Task, finding: Finding, pair: tuple[Presence, Presence], view: View) -> Step:
    """The task with a finding's outcome, and the first of its acts."""
    acts = tuple(act for act in finding.acts if _due(act, task, pair))
    outcome, detail = _outcome(task, finding)
    task = altered(task, acts=acts, outcome=outcome, detail=detail)
    if not acts:
        return conclude(task, view)
    return task.to(Stage.SETTLING, task.since), (_settle(task),)


def _outcome(task: Task, finding: Finding) -> tuple[Outcome | None, str]:
    """A failure that somebody asked for is an abort; what somebody else did is not ours."""
    stopped = finding.outcome is Outcome.LOST and task.pair is not None and task.pair[0] in DOWN
    if task.foreign and (stopped or finding.outcome in (Outcome.DONE, Outcome.FAILED)):
        return Outcome.NOT_STARTED, f"{task.foreign}; {finding.detail}"
    if finding.outcome is not Outcome.FAILED:
        return finding.outcome, finding.detail
    if task.abort_asked:
        return Outcome.ABORTED, task.abort_reason
    if task.report and task.report.objection and not task.processed:
        return Outcome.OBJECTED, task.report.objection
    if task.report and task.report.error_code == _CANCELLED:
        return Outcome.ABORTED, "somebody else aborted it"
    if task.start_error:
        return Outcome.NOT_STARTED, task.start_error
    return Outcome.FAILED, finding.detail


def _due(act: Act, task: Task, pair: tuple[Presence, Presence]) -> bool:
    """Whether an act applies to this VM: only what is there, and only what is ours to put right."""
    if task.foreign:
        return False
    match act:
        case Act.UNDEFINE_SOURCE:
            return pair[0] in (Presence.MIGRATED, Presence.OUTGOING)
        case Act.UNDEFINE_TARGET:
            return not task.target_defined
        case Act.CARRY_AUTOSTART:
            return task.autostart
        case _:
            return True


def _settle(task: Task) -> Settle:
    move, act = task.move, task.acts[0]
    announced = task.hand_over and act is Act.RESUME_TARGET
    return Settle(move.number, act, move.vm, move.source, move.target, task.autostart, announced)


def acted(task: Task, event: Acted, view: View) -> Step:
    """One act is done: the next one, or the end. One that failed sends us back to asking, which
    has gone on since it began: an act that always fails is waited for like an answer."""
    if event.error:
        return task.to(Stage.VERIFYING, task.since, event.error), ()
    resumed = view.now if task.acts[0] is Act.RESUME_TARGET else task.resumed
    task = altered(task, acts=task.acts[1:], resumed=resumed)
    if task.acts:
        return task, (_settle(task),)
    return conclude(task, view)


def _seconds(task: Task, now: float) -> float | None:
    """As libvirt tells, or else until we knew of the end, if we were there all the time."""
    if task.report and task.report.seconds:
        return task.report.seconds
    return None if task.adopted else now - task.started


def _downtime(task: Task) -> float | None:
    """Seconds that the VM stood still: as libvirt tells, and while it waited to be resumed."""
    report = task.report
    if report is None or report.downtime is None:
        return None
    return report.downtime + max(0.0, task.resumed - report.at if task.resumed else 0.0)


def _against(task: Task) -> Against:
    """What an objection holds for; of all other ends, nothing but the move itself."""
    objected = task.outcome is Outcome.OBJECTED and task.report is not None
    return task.report.against if objected and task.report else Against.MOVE


def conclude(task: Task, view: View) -> Step:
    """The end of a task whose outcome is known."""
    outcome, report = task.outcome, task.report
    assert outcome is not None
    conclusion = Conclusion(
        intent=task.intent,
        at=view.now,
        outcome=outcome,
        detail=task.detail,
        bytes=report.bytes if report and report.bytes is not None else task.processed or None,
        iterations=report.iterations if report else None,
        downtime=_downtime(task),
        seconds=_seconds(task, view.now),
        error=(report.error if report else "") or task.start_error,
        error_code=report.error_code if report else 0,
        error_domain=report.error_domain if report else 0,
        adopted=task.adopted,
        against=_against(task),
    )
    ended = task.to(OUTCOME_STAGE[outcome], view.now)
    return ended, (Conclude(task.move.number, conclusion),)
