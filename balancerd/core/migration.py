"""The state machine of one migration: theory of operation.

A migration is believed only where both hosts confirm it. It is checked before it starts (the VM
runs on the source, nothing of it is active on the target), announced by an intent, started, and
watched by the bytes it processes: time that passes without a byte is the only sign of a cut
network. However the call ends, in success, in error or not at all, both hosts are asked, and the
state-pair table of `reconcile` says what happened. Acts on a copy of the VM need the same answer
twice, `CONFIRMED_AFTER` seconds apart, because a healthy migration passes through every one of
those states for a moment.

`apply` takes in one event, `tick` the passing of time; both give the new task and commands.
"""

from dataclasses import replace

from balancerd.core.execution import (
    OUTCOME_STAGE,
    AbortMigration,
    AbortWanted,
    Acted,
    Ask,
    Command,
    Conclude,
    Event,
    Execution,
    Intend,
    Intended,
    Located,
    NoteProgress,
    Settle,
    Stage,
    StartMigration,
    StartRefused,
    Task,
    View,
    Watch,
)
from balancerd.core.history import Outcome
from balancerd.core.observation import JobReport, Presence
from balancerd.core.policy import Limits
from balancerd.core.reconcile import Act, Finding, judge, may_start
from balancerd.core.record import Conclusion, Intent, IntentKind

CONFIRMED_AFTER = 5.0  # seconds between two equal answers before a copy of a VM is touched
ASK_AGAIN = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds; the last one repeats
ABORT_AGAIN = 30.0  # seconds after which an abort that changed nothing is asked for once more
SILENCE = 60.0  # seconds without any news of a job, after which the hosts are asked
TOUCHING = frozenset({Act.RESUME_SOURCE, Act.RESUME_TARGET, Act.DESTROY_SOURCE, Act.DESTROY_TARGET})
_CANCELLED = 78  # VIR_ERR_OPERATION_ABORTED: for the record only, it decides nothing

Step = tuple[Task, tuple[Command, ...]]


def check(task: Task, view: View, number: int) -> Step:
    """From waiting to asking both hosts, just before the start."""
    move = task.move
    vm = view.snapshot.cluster.vms[move.vm]
    task = replace(task, uuid=vm.uuid, autostart=vm.autostart).to(Stage.CHECKING, view.now)
    return task, (Ask(number, move.vm, vm.uuid, (move.source, move.target)),)


def apply(task: Task, event: Event, execution: Execution, view: View) -> Step:
    """The task after one event; an event that means nothing in its stage changes nothing."""
    match (task.stage, event):
        case (Stage.CHECKING, Located()):
            return _checked(task, event, execution, view)
        case (Stage.INTENDING, Intended()):
            return _intended(task, event, view)
        case (Stage.RUNNING, StartRefused()):
            refused = replace(task, start_error=event.error)
            return refused.to(Stage.VERIFYING, view.now, event.error), ()
        case (Stage.RUNNING | Stage.VERIFYING | Stage.SETTLING, JobReport()):
            return _told(task, event, view)
        case (Stage.VERIFYING, Located()):
            return _verified(task, event, view)
        case (Stage.SETTLING, Acted()):
            return _acted(task, event, view)
        case (Stage.RUNNING, AbortWanted()):
            return _abort(task, f"{event.by} wanted it", view.now)
        case _:
            return task, ()


def tick(task: Task, view: View) -> Step:
    """The task after time has passed."""
    if task.stage is Stage.RUNNING:
        return _watch(task, view)
    if task.stage is Stage.VERIFYING and view.now >= asks_at(task):
        move = task.move
        asked = replace(task, asked=view.now, asks=task.asks + 1)
        hosts = (move.source, move.target)
        return asked, (Ask(move.number, move.vm, task.uuid, hosts),)
    return task, ()


def asks_at(task: Task) -> float:
    """When the hosts are to be asked again about a task that is being verified."""
    if not task.asks:
        return 0.0
    return task.asked + ASK_AGAIN[min(task.asks, len(ASK_AGAIN)) - 1]


def adopted(intent: Intent, move_task: Task) -> Task:
    """The task of an intent that an earlier balancerd left open: first of all, ask the hosts."""
    return replace(
        move_task,
        stage=Stage.VERIFYING,
        since=intent.at,
        uuid=intent.uuid,
        intent=intent.id,
        started=intent.at,
        autostart=intent.autostart,
        target_defined=intent.target_defined,
        adopted=True,
    )


def _pair(task: Task, event: Located) -> tuple[Presence, Presence]:
    move, presence = task.move, event.location.presence
    unreachable = Presence.UNREACHABLE
    return presence.get(move.source, unreachable), presence.get(move.target, unreachable)


def _checked(task: Task, event: Located, execution: Execution, view: View) -> Step:
    source, target = _pair(task, event)
    obstacle = may_start(source, target)
    if obstacle:
        return task.to(Stage.DROPPED, view.now, obstacle), ()
    task = replace(task, target_defined=target is not Presence.ABSENT)
    intent = _intent(task, execution, view)
    return task.to(Stage.INTENDING, view.now), (Intend(task.move.number, intent),)


def _intent(task: Task, execution: Execution, view: View) -> Intent:
    move = task.move
    return Intent(
        kind=IntentKind.MIGRATE,
        at=view.now,
        host=move.source,
        vm=move.vm,
        uuid=task.uuid,
        target=move.target,
        method=move.method,
        reason=move.reason,
        plan=execution.plan_id,
        action=move.number,
        bandwidth=view.policy.limits.bandwidth,
        autostart=task.autostart,
        target_defined=task.target_defined,
        predicted_seconds=move.seconds,
        predicted_bytes=move.bytes,
        predicted_downtime=move.downtime,
    )


def _intended(task: Task, event: Intended, view: View) -> Step:
    if event.intent is None:
        return task.to(Stage.WAITING, view.now, "paused"), ()
    move, limits = task.move, view.policy.limits
    running = replace(
        task,
        intent=event.intent,
        started=view.now,
        progressed=view.now,
        deadline=deadline(move.seconds, limits),
    ).to(Stage.RUNNING, view.now)
    start = StartMigration(
        move.number,
        event.intent,
        move.vm,
        move.source,
        move.target,
        move.method,
        limits.bandwidth,
        limits.downtime,
    )
    return running, (start,)


def deadline(predicted: float, limits: Limits) -> float:
    """Seconds a migration may take: three times the prediction, but never less than the floor."""
    return max(limits.deadline, 3.0 * predicted)


def _told(task: Task, report: JobReport, view: View) -> Step:
    """News of the job. Figures of the end may arrive after it; they are kept, not believed."""
    figures = report if report.ended or task.report is None else _with_progress(task.report, report)
    task = replace(task, report=figures)
    if report.progress and report.progress.processed > task.processed:
        task = replace(task, processed=report.progress.processed, progressed=view.now)
    if report.ended and task.stage is Stage.RUNNING:
        return task.to(Stage.VERIFYING, view.now, report.error), ()
    if report.progress and task.stage is Stage.RUNNING:
        return task, (NoteProgress(task.move.number, task.intent, report),)
    return task, ()


def _with_progress(kept: JobReport, news: JobReport) -> JobReport:
    return kept if kept.ended else news


def _watch(task: Task, view: View) -> Step:
    """A running migration that takes too long or stands still is given up."""
    ran = view.now - task.started
    stood = view.now - max(task.progressed, task.started)
    silent = view.now - max(task.since, task.report.at if task.report else 0.0)
    limits = view.policy.limits
    if task.abort_asked:
        if view.now - task.abort_asked >= ABORT_AGAIN:
            return _abort(task, task.abort_reason, view.now)
    elif task.deadline and ran > task.deadline:
        return _abort(task, f"not done after {ran:.0f} s", view.now)
    elif stood > limits.stall:
        return _abort(task, f"no progress for {stood:.0f} s", view.now)
    if silent > SILENCE:
        return task.to(Stage.VERIFYING, view.now, "no news of the job"), ()
    return task, ()


def _abort(task: Task, reason: str, now: float) -> Step:
    move = task.move
    task = replace(task, abort_asked=now, abort_reason=reason)
    return task, (AbortMigration(move.number, move.vm, move.source, reason),)


def _verified(task: Task, event: Located, view: View) -> Step:
    """Both hosts answered; the state-pair table says what it means."""
    pair = _pair(task, event)
    if pair != task.pair:
        task = replace(task, pair=pair, pair_since=event.location.at)
    if pair[0] is Presence.RUNNING_WITH_JOB:
        return _still_running(task, view)
    stood = event.location.at - task.pair_since
    finding = judge(*pair, stood)
    if finding.outcome is None:
        return replace(task, detail=finding.detail), ()
    acts = tuple(act for act in finding.acts if _due(act, task, pair))
    if TOUCHING & set(acts) and stood < CONFIRMED_AFTER:
        return replace(task, detail=f"{finding.detail}; to be confirmed"), ()
    task = _ruled(replace(task, acts=acts), finding)
    if not acts:
        return _conclude(task, view)
    return task.to(Stage.SETTLING, view.now), (_settle(task),)


def _ruled(task: Task, finding: Finding) -> Task:
    """The task with a finding's outcome: a failure that somebody asked for is an abort."""
    if finding.outcome is not Outcome.FAILED:
        return replace(task, outcome=finding.outcome, detail=finding.detail)
    if task.abort_asked:
        return replace(task, outcome=Outcome.ABORTED, detail=task.abort_reason)
    if task.report and task.report.error_code == _CANCELLED:
        return replace(task, outcome=Outcome.ABORTED, detail="somebody else aborted it")
    if task.start_error:
        return replace(task, outcome=Outcome.NOT_STARTED, detail=task.start_error)
    return replace(task, outcome=Outcome.FAILED, detail=finding.detail)


def _due(act: Act, task: Task, pair: tuple[Presence, Presence]) -> bool:
    """Whether an act applies to this VM: only what is there, and only what is ours to put right."""
    match act:
        case Act.UNDEFINE_SOURCE:
            return pair[0] in (Presence.MIGRATED, Presence.OUTGOING)
        case Act.UNDEFINE_TARGET:
            return not task.target_defined
        case Act.CARRY_AUTOSTART:
            return task.autostart
        case _:
            return True


def _still_running(task: Task, view: View) -> Step:
    """The job goes on, whatever the call said: watch it again."""
    move = task.move
    limit = task.deadline or deadline(move.seconds, view.policy.limits)
    task = replace(task, deadline=limit, progressed=view.now, asks=0)
    watch = Watch(move.number, move.vm, move.source, move.target)
    return task.to(Stage.RUNNING, view.now, "adopted" if task.adopted else task.detail), (watch,)


def _settle(task: Task) -> Settle:
    move = task.move
    return Settle(move.number, task.acts[0], move.vm, move.source, move.target, task.autostart)


def _acted(task: Task, event: Acted, view: View) -> Step:
    """One act is done: the next one, or the end. One that failed sends us back to asking."""
    if event.error:
        return task.to(Stage.VERIFYING, view.now, event.error), ()
    task = replace(task, acts=task.acts[1:])
    if task.acts:
        return task, (_settle(task),)
    return _conclude(task, view)


def _conclude(task: Task, view: View) -> Step:
    outcome, report = task.outcome, task.report
    assert outcome is not None
    conclusion = Conclusion(
        intent=task.intent,
        at=view.now,
        outcome=outcome,
        detail=task.detail,
        bytes=report.bytes if report else None,
        iterations=report.iterations if report else None,
        downtime=report.downtime if report else None,
        seconds=report.seconds if report and report.seconds else view.now - task.started,
        error=(report.error if report else "") or task.start_error,
        error_code=report.error_code if report else 0,
        error_domain=report.error_domain if report else 0,
        adopted=task.adopted,
    )
    ended = task.to(OUTCOME_STAGE[outcome], view.now)
    return ended, (Conclude(task.move.number, conclusion),)
