"""The state machine of one migration: theory of operation.

A migration is believed only where both hosts confirm it. It is checked before it starts (the VM
runs on the source, nothing of it is active on the target), announced by an intent, started, and
watched by the bytes it processes: time that passes without a byte is the only sign of a cut
network. However the call ends, in success, in error or not at all, both hosts are asked, and
`verification` says what happened. Only a job that is known to be ours is ever given up.

`apply` takes in one event, `tick` the passing of time; both give the new task and commands.
"""

from collections.abc import Mapping

from balancerd.core.executing.closing import close, tell
from balancerd.core.executing.cold import may_carry
from balancerd.core.executing.convergence import (
    first_pause,
    give_up,
    hurry,
    press,
    start_method,
    tuned,
)
from balancerd.core.executing.execution import OUTCOME_STAGE, Execution, Stage, Task, View
from balancerd.core.executing.messages import (
    AbortWanted,
    Acted,
    Ask,
    CloseWanted,
    Command,
    Conclude,
    Event,
    HurryWanted,
    Intend,
    Intended,
    Located,
    NoteProgress,
    StartMigration,
    StartRefused,
    Tuned,
)
from balancerd.core.executing.preflight import hands_over, objection
from balancerd.core.executing.reconcile import may_start
from balancerd.core.executing.verification import (
    acted,
    ask,
    asks_at,
    deadline,
    everywhere,
    located,
    others_of,
    pair_of,
    tells_of_another,
)
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import Method
from balancerd.core.moving.method import memory_in_use
from balancerd.core.observation import JobReport, Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion, Intent, IntentKind

ABORT_AGAIN = 30.0  # seconds after which an abort that changed nothing is asked for once more
SILENCE = 60.0  # seconds without any news of a job, after which the hosts are asked
UNANSWERED = 10.0  # seconds for which a job is over and its call has not returned, likewise

Step = tuple[Task, tuple[Command, ...]]


def check(task: Task, view: View, number: int) -> Step:
    """From waiting to asking both hosts, just before the start."""
    move = task.move
    vm = view.snapshot.cluster.vms[move.vm]
    task = altered(task, uuid=vm.uuid, autostart=vm.autostart).to(Stage.CHECKING, view.now)
    hosts = everywhere(task, view) if task.is_cold else (move.source, move.target)
    return task, (Ask(number, move.vm, vm.uuid, hosts, move.method, task.is_cold),)


def apply(task: Task, event: Event, execution: Execution, view: View) -> Step:
    """The task after one event; an event that means nothing in its stage changes nothing."""
    match (task.stage, event):
        case (Stage.CHECKING, Located()):
            return _checked(task, event, execution, view)
        case (Stage.INTENDING, Intended()):
            return _intended(task, event, view)
        case (Stage.RUNNING, StartRefused()):
            refused = altered(task, start_error=event.error, foreign=event.error)
            return refused.to(Stage.VERIFYING, view.now, event.error), ()
        case (Stage.RUNNING | Stage.VERIFYING | Stage.SETTLING, JobReport()):
            return _told(task, event, view)
        case (Stage.VERIFYING, Located()):
            return _and_told(located(task, event, view), view)
        case (Stage.SETTLING, Acted()):
            return _and_told(acted(task, event, view), view)
        case (Stage.RUNNING, Tuned()):
            return tuned(task, event, view)
        case (_, HurryWanted() | AbortWanted() | CloseWanted()):
            return _wanted(task, event, view)
        case _:
            return task, ()


def _and_told(step: Step, view: View) -> Step:
    """A step of verifying, and what people have to be told after it."""
    task, commands = step
    task, words = tell(task, view)
    return task, (*commands, *words)


def _wanted(task: Task, event: HurryWanted | AbortWanted | CloseWanted, view: View) -> Step:
    """What an operator asks for."""
    match (task.stage, event):
        case (Stage.RUNNING, HurryWanted()):
            return hurry(task, event, view)
        case (Stage.RUNNING, AbortWanted()):
            return give_up(task, f"{event.by} wanted it", view.now)
        case (Stage.VERIFYING, CloseWanted()):
            return close(task, event, view)
        case _:
            return task, ()


def tick(task: Task, view: View) -> Step:
    """The task after time has passed."""
    if task.stage is Stage.RUNNING:
        return _watch(task, view)
    if task.stage is Stage.VERIFYING and view.now >= asks_at(task):
        return ask(task, view)
    return task, ()


def adopted(intent: Intent, move_task: Task) -> Task:
    """The task of an intent that an earlier balancerd left open: first of all, ask the hosts."""
    return altered(
        move_task,
        stage=Stage.VERIFYING,
        since=intent.at,
        uuid=intent.uuid,
        intent=intent.id,
        started=intent.at,
        autostart=intent.autostart,
        target_defined=intent.target_defined,
        hand_over=intent.hand_over,
        adopted=True,
        ours=intent.seen,
    )


def _checked(task: Task, event: Located, execution: Execution, view: View) -> Step:
    source, target = pair_of(task, event.location.presence)
    others = others_of(task, event.location.presence)
    obstacle = _obstacle(task, source, target, others)
    passing = target is Presence.UNREACHABLE or _obstacle(task, source, Presence.ABSENT, others)
    if obstacle and passing:  # the next look shows that, too
        return task.to(Stage.DROPPED, view.now, obstacle), ()
    defined, said = target is not Presence.ABSENT, obstacle or _objection(task, event, view)
    found, method, rules = event.preflight, task.move.method, view.policy.methods
    paused = found is not None and hands_over(found, method, rules)
    task = altered(task, target_defined=defined, objection=said, hand_over=paused)
    if task.move.set_number and not task.cleared and not said:
        return altered(task, cleared=view.now).to(Stage.WAITING, view.now), ()
    intent = _intent(task, execution, view)
    return task.to(Stage.INTENDING, view.now), (Intend(task.move.number, intent),)


def _obstacle(
    task: Task, source: Presence, target: Presence, others: Mapping[str, Presence]
) -> str:
    """Why the VM may not go between hosts that say this of it; "" when it may."""
    return may_carry(source, target, others) if task.is_cold else may_start(source, target)


def _objection(task: Task, event: Located, view: View) -> str:
    """What the hosts' own facts say against the start; "" for nothing."""
    if event.preflight is None:
        return ""
    move, snapshot = task.move, view.snapshot
    memory = memory_in_use(snapshot.cluster.vms[move.vm], snapshot.loads.get(move.vm))
    return objection(event.preflight, move.method, memory, view.policy)


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
        bandwidth=task.bandwidth,
        autostart=task.autostart,
        target_defined=task.target_defined,
        hand_over=task.hand_over,
        predicted_seconds=move.seconds,
        predicted_bytes=move.bytes,
        predicted_downtime=move.downtime,
        basis=move.basis,
    )


def _intended(task: Task, event: Intended, view: View) -> Step:
    if event.intent is None:
        return altered(task, refused=view.now).to(Stage.WAITING, view.now, "paused"), ()
    if task.objection:
        return _objected(altered(task, intent=event.intent), view)
    move, limits = task.move, view.policy.limits
    running = altered(
        task,
        intent=event.intent,
        started=view.now,
        progressed=view.now,
        limited=view.now,
        downtime=first_pause(task, view),
        post_copy=start_method(task, view) is Method.POST_COPY,
        deadline=deadline(move.seconds, limits),
    ).to(Stage.RUNNING, view.now)
    start = StartMigration(
        move.number,
        event.intent,
        move.vm,
        move.source,
        move.target,
        start_method(task, view),
        task.bandwidth,
        running.downtime,
        task.hand_over,
    )
    return running, (start,)


def _objected(task: Task, view: View) -> Step:
    """Dropped before it began. It is written down, lest the same move be planned again at once."""
    conclusion = Conclusion(task.intent, view.now, Outcome.OBJECTED, task.objection)
    dropped = task.to(OUTCOME_STAGE[Outcome.OBJECTED], view.now, task.objection)
    return dropped, (Conclude(task.move.number, conclusion),)


def _told(task: Task, report: JobReport, view: View) -> Step:
    """News of the job. Figures of the end may arrive after it; they are kept, not believed."""
    foreign = tells_of_another(task, report)
    if foreign:
        task = altered(task, foreign=foreign, start_error=report.error or foreign)
        return (_verify(task, view, foreign) if task.stage is Stage.RUNNING else task), ()
    if report.over:
        return _over(task, view), ()
    figures = report if report.ended or task.report is None else _with_progress(task.report, report)
    progress, runs = report.progress, task.stage is Stage.RUNNING and not report.ended
    goes_on = progress is not None and progress.processed > task.processed
    is_ours = runs and progress is not None and not task.adopted
    task = altered(
        task,
        report=figures,
        processed=progress.processed if progress and goes_on else task.processed,
        progressed=view.now if goes_on else task.progressed,
        ours=task.ours or is_ours,
    )
    if task.stage is Stage.RUNNING and report.ended:
        return _verify(task, view, report.error), ()
    if runs and progress and task.ours:
        task, steps = press(task, progress, view)
        return task, (NoteProgress(task.move.number, task.intent, report), *steps)
    return task, ()


def _over(task: Task, view: View) -> Task:
    """A healthy call returns right after its job; one whose half died may wait for its peer."""
    last = task.report
    late = last is not None and view.now - last.at > UNANSWERED
    if task.stage is not Stage.RUNNING or not task.ours or not late:
        return task
    return _verify(task, view, "its job is over, and the call has not returned")


def _verify(task: Task, view: View, why: str) -> Task:
    return task.to(Stage.VERIFYING, view.now, why)


def _with_progress(kept: JobReport, news: JobReport) -> JobReport:
    return kept if kept.ended else news


def _watch(task: Task, view: View) -> Step:
    """A running migration that takes too long or stands still is given up; or told of, where it is
    not ours, or there is no way back from post-copy."""
    ran = view.now - task.started
    stood = view.now - max(task.progressed, task.started)
    silent = view.now - max(task.since, task.report.at if task.report else 0.0)
    limits = view.policy.limits
    if not task.ours or task.switched:
        stale = silent > SILENCE
        return (_verify(task, view, "no news of the job"), ()) if stale else tell(task, view)
    if task.abort_reason:
        if view.now - task.abort_asked >= ABORT_AGAIN:
            return give_up(task, task.abort_reason, view.now)
    elif task.deadline and ran > task.deadline:
        return give_up(task, f"not done after {ran:.0f} s", view.now)
    elif stood > limits.stall:
        return give_up(task, f"no progress for {stood:.0f} s", view.now)
    if silent > SILENCE:
        return _verify(task, view, "no news of the job"), ()
    return task, ()
