"""VMs that belong together move as one set: none of them starts unless all may.

A set is *committed* at one moment: the rules found room for all of it at once, no breaker held any
of it back, and both hosts of each member said nothing against it. Until then none of it starts; if
anything speaks against one member, the whole set is dropped. From then on its members start one
after the other as the limits allow, each checked once more. Where one of them ends and did not get
there, those that still wait are dropped, and the next plan brings together what is apart.
"""

from collections.abc import Mapping, Sequence

from balancerd.core.executing.execution import ENDED, UNDER_WAY, Stage, Task, View
from balancerd.core.plan import Move


def fellows(tasks: Mapping[int, Task], move: Move) -> list[Task]:
    """The other members of a move's set; none for one that moves alone."""
    if not move.set_number:
        return []
    return [
        task
        for task in tasks.values()
        if isinstance(task.action, Move)
        and task.action.set_number == move.set_number
        and task.action.number != move.number
    ]


def left_behind(others: Sequence[Task]) -> Task | None:
    """A fellow that ended and did not get there."""
    return next((t for t in others if t.stage in ENDED and t.stage is not Stage.DONE), None)


def is_cleared(task: Task, view: View) -> bool:
    """Whether its hosts were asked a short while ago, and said nothing against it."""
    return bool(task.cleared) and view.now - task.cleared <= view.policy.detection.stale_after


def is_committed(task: Task, others: Sequence[Task], view: View) -> bool:
    """Whether a member may start as soon as the limits allow."""
    if any(_has_begun(other) for other in others):
        return True
    return not others or all(is_cleared(member, view) for member in (task, *others))


def _has_begun(task: Task) -> bool:
    return bool(task.cleared) and (task.stage is Stage.DONE or task.stage in UNDER_WAY)
