"""What is waited for without end: people are told of it, and may end it.

Some pairs of answers say that something is wrong and not what: a source that still holds the VM
paused beside a target that is shut off may have lost it, or have it still. A job that an earlier
balancerd left may be somebody else's, however long it takes; and from post-copy there is no way
back, though its link be down or its target hang. Nothing is guessed then and nothing
touched; but nor is it kept from those who can go and look. Nor is what is known and cannot be put
right, as a host refuses it each time.
"""

from balancerd.core.executing.execution import Stage, Task, View
from balancerd.core.executing.messages import CloseWanted, Command, Unsettled
from balancerd.core.executing.verification import conclude
from balancerd.core.many_fields import replace as altered
from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome
from balancerd.core.units import format_size

TOLD_AFTER = 120.0  # seconds of asking in vain
NOT_OURS = "nothing proves its job to be ours, so it is not given up: end it by hand, or let it run"
NO_WAY_BACK = "post-copy can only be waited for: see to the link, and to QEMU on both hosts"

Step = tuple[Task, tuple[Command, ...]]


def tell(task: Task, view: View) -> Step:
    """Say what is waited for, once it has lasted, and again when that is something else."""
    if not _waits(task, view):
        return task, ()
    said = _stands(task)
    if said == task.told:
        return task, ()
    known = task.detail if task.stage is Stage.VERIFYING else ""
    detail = "; ".join(filter(None, (said, known, may_close(task) or _to_close(task))))
    return altered(task, told=said), (Unsettled(task.move.number, task.move.vm, detail),)


def _waits(task: Task, view: View) -> bool:
    """Whether it has been waited for in vain: for an answer, for an act that fails each time, for
    a job that we do not touch, or for one that cannot be given up any more."""
    if task.stage is not Stage.RUNNING:
        return task.stage is Stage.VERIFYING and view.now - task.since > TOLD_AFTER
    if task.switched:
        return view.now - max(task.progressed, task.started) > view.policy.limits.stall
    return not task.ours and 0 < task.deadline < view.now - task.started


def _stands(task: Task) -> str:
    """How it stands."""
    if not task.switched or task.stage is not Stage.RUNNING:
        return _answers(task)
    left = f"{format_size(task.remaining)} of its memory still on {task.move.source}"
    return f"stands still in post-copy, {left}"


def _to_close(task: Task) -> str:
    """What is to be done to one that may be closed."""
    return f"put it right on both hosts, then `balancerctl close {task.move.vm}`"


def may_press(task: Task) -> str:
    """Why an operator can neither hurry a migration nor have it given up; "" when he can."""
    if task.foreign:
        return "is not being moved by balancerd"
    if task.stage is not Stage.RUNNING:
        return f"it is {task.stage}: its hosts are being asked"
    if task.switched:
        return f"it can be neither hurried nor given up: {NO_WAY_BACK}"
    return NOT_OURS if task.adopted and not task.ours else ""


def may_close(task: Task) -> str:
    """Why a migration may not be left to people, and what they can do; "" when it may."""
    if task.stage is not Stage.VERIFYING:
        return _until_it_ends(task)
    if task.pair and task.pair[0] is Presence.RUNNING_WITH_JOB:
        return f"wait for the end of its job on {task.move.source}"
    return ""


def _until_it_ends(task: Task) -> str:
    """What can be done about a migration that has not ended."""
    if task.stage is not Stage.RUNNING:
        return f"it is {task.stage}: wait for its end"
    if task.switched:
        return NO_WAY_BACK
    if task.adopted and not task.ours:
        return NOT_OURS
    return f"it is running: `balancerctl abort {task.move.vm}`, or wait for its end"


def close(task: Task, event: CloseWanted, view: View) -> Step:
    """Conclude it as it is and touch nothing: somebody has looked, and answers for the VM."""
    if may_close(task):
        return task, ()
    detail = f"closed by {event.by}: {_answers(task)}"
    return conclude(altered(task, outcome=Outcome.QUARANTINED, detail=detail), view)


def _answers(task: Task) -> str:
    """What both hosts last said."""
    if task.pair is None:
        return "the hosts have not answered"
    source, target = task.pair
    return f"{task.move.source} says {source.value}, {task.move.target} says {target.value}"
