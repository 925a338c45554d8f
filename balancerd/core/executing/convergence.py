"""Bringing a running migration to its end: the ladder, an operator's hurry, and giving up.

Only a migration that is known to be ours is touched. Every step is a command of its own, and a line
of the audit.
"""

from dataclasses import replace

from balancerd.core.executing.execution import Task, View
from balancerd.core.executing.messages import (
    AbortMigration,
    Command,
    HurryWanted,
    SetDowntime,
    SwitchToPostCopy,
    Tuned,
)
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import Method
from balancerd.core.observation import JobProgress
from balancerd.core.policies.ladder import Ladder, Rung, followed, next_rung
from balancerd.core.policies.tags import POST_COPY, class_of, says_yes

LONGEST_PAUSE = 2000.0  # seconds; QEMU takes no more
TUNE_AGAIN = 5.0  # seconds after which what could not be done to a job is tried again
SLOWEST = 99  # per cent by which auto-converge slows a VM down at most

Step = tuple[Task, tuple[Command, ...]]


def ladder_of(task: Task, view: View) -> Ladder:
    """The ladder of the VM's class."""
    vm = view.snapshot.cluster.vms.get(task.move.vm)
    found: Ladder = getattr(view.policy.ladder, class_of(vm) if vm else "normal")
    return found


def first_pause(task: Task, view: View) -> float:
    """The pause that a migration starts with, seconds."""
    return min(ladder_of(task, view).downtime, view.policy.limits.downtime)


def start_method(task: Task, view: View) -> Method:
    """How a move is started: so that it can go on in post-copy, where policy and VM allow that.

    (Not one that is handed over: libvirt refuses both at once, as post-copy lets a VM run on its
    target while its source is still needed.)
    """
    method, vm = task.move.method, view.snapshot.cluster.vms.get(task.move.vm)
    if task.hand_over:
        return method
    allowed = view.policy.methods.post_copy and vm is not None and says_yes(vm, POST_COPY)
    return Method.POST_COPY if method is Method.PRE_COPY and allowed else method


def press(task: Task, progress: JobProgress, view: View) -> Step:
    """News of a job of ours: what to do so that it converges."""
    task = altered(task, climb=followed(task.climb, progress), remaining=progress.remaining)
    if task.switched or task.abort_reason or view.now - task.untuned < TUNE_AGAIN:
        return task, ()
    if task.hurry:
        return _hurry(task, view)
    if task.move.method is Method.POST_COPY and progress.iteration > 1:
        return _switch(task, "all of its memory was copied once")
    rung = next_rung(task.climb, ladder_of(task, view))
    if rung is None or (rung.then == "abort" and _is_slowed_more(task, progress)):
        return task, ()
    task = altered(task, climb=replace(task.climb, rung=task.climb.rung + 1))
    return _climb(task, rung, view)


def _is_slowed_more(task: Task, progress: JobProgress) -> bool:
    """Whether auto-converge still has something to take from the VM."""
    return task.move.method is Method.AUTO_CONVERGE and progress.throttle < SLOWEST


def _climb(task: Task, rung: Rung, view: View) -> Step:
    reason = f"stalled {task.climb.stalls} times"
    if rung.then == "abort":
        return give_up(task, f"does not converge: {reason}", view.now)
    if rung.then == "post-copy":
        return _switch(task, reason) if task.post_copy else (task, ())
    assert rung.downtime is not None
    return _allow(task, min(rung.downtime, view.policy.limits.downtime), reason)


def _allow(task: Task, pause: float, reason: str) -> Step:
    """Allow a longer pause; a shorter one is nothing to speak of."""
    if pause <= task.downtime:
        return task, ()
    move = task.move
    return altered(task, downtime=pause), (
        SetDowntime(move.number, move.vm, move.source, pause, reason),
    )


def _switch(task: Task, reason: str) -> Step:
    move = task.move
    switch = SwitchToPostCopy(move.number, move.vm, move.source, reason)
    return altered(task, switched=True), (switch,)


def hurry(task: Task, event: HurryWanted, view: View) -> Step:
    """The operator wants it done; at once if the job is known to be ours, else as soon as it is."""
    task = altered(task, hurry="by force" if event.force else "by the ladder", hurried_by=event.by)
    return _hurry(task, view) if task.ours and not task.switched else (task, ())


def _hurry(task: Task, view: View) -> Step:
    """To the ladder's top at once; by force: whatever pause it takes, or post-copy if allowed. It
    is wanted until it was done."""
    reason, force = f"{task.hurried_by} wants it done", task.hurry == "by force"
    if force and task.post_copy:
        return _switch(task, reason)
    pause = view.policy.limits.downtime
    if force:
        needed = 2.0 * task.remaining / max(task.bandwidth, 1)
        pause = min(max(pause, needed), LONGEST_PAUSE)
    task, commands = _allow(task, pause, reason)
    return (task, commands) if commands else (altered(task, hurry=""), ())


def tuned(task: Task, event: Tuned, view: View) -> Step:
    """What could not be done to the job is done again with news of a while later."""
    match event.what:
        case "bandwidth":
            return (altered(task, bandwidth=0) if event.error else task), ()
        case _ if not event.error:
            return altered(task, hurry=""), ()
        case "post-copy":
            return altered(task, switched=False, untuned=view.now), ()
        case _:
            down = replace(task.climb, rung=max(0, task.climb.rung - 1))
            return altered(task, downtime=0.0, climb=down, untuned=view.now), ()


def give_up(task: Task, reason: str, now: float) -> Step:
    """Ask the source to give up, once the job is known to be ours; until then keep the wish."""
    if not task.ours:
        return altered(task, abort_reason=reason), ()
    move = task.move
    task = altered(task, abort_asked=now, abort_reason=reason)
    return task, (AbortMigration(move.number, move.vm, move.source, reason),)
