"""Carrying out a plan: what to do next, given what came of the last commands.

`advance` goes through the whole plan, and `follow_up` carries on what was commanded until there are
no more commands. Actions start as their prerequisites are done and the limits allow, each
re-checked on the newest snapshot and the policy of the moment; the first failure stops the plan,
what runs already runs on to its end.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from functools import cached_property, lru_cache
from operator import attrgetter

from balancerd.core.executing import closing, migration, powering, sets, verification
from balancerd.core.executing.execution import (
    ENDED,
    OPEN,
    OUTCOME_STAGE,
    UNDER_WAY,
    Execution,
    Stage,
    Task,
    Tasks,
    TasksInHand,
    View,
)
from balancerd.core.executing.messages import (
    AbortWanted,
    CloseWanted,
    Command,
    EndPlan,
    Event,
    HurryWanted,
    SwitchFailed,
)
from balancerd.core.executing.throttle import Traffic, divide, over_budget
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import JobReport
from balancerd.core.outcome import Against, Outcome
from balancerd.core.past.breakers import Breakers, State, breakers
from balancerd.core.past.history import History, PastMove
from balancerd.core.past.objections import Objections, objections
from balancerd.core.past.record import Intent, IntentKind, PlanState
from balancerd.core.placing.constraints import Gate
from balancerd.core.plain import as_dict
from balancerd.core.plan import Action, Move, Refusal, Sleep, Wake
from balancerd.core.policies.choices import Mode
from balancerd.core.same import Same

# News from outside, which knows no numbers.
BY_VM = (JobReport, AbortWanted, HurryWanted, CloseWanted)
INTEND_AGAIN = 1.0  # seconds after which a refused intent is tried again, lest it be for ever
_MAY_HAVE_OBJECTED = UNDER_WAY | {OUTCOME_STAGE[Outcome.OBJECTED]}
_MOVED = UNDER_WAY | {Stage.DONE}
_STOPS_A_PLAN = frozenset({Stage.FAILED, Stage.ABORTED, Stage.LOST, Stage.QUARANTINED})

Step = tuple[Execution, tuple[Command, ...]]


def advance(execution: Execution, events: Sequence[Event], view: View) -> Step:
    """The execution after these events, and what is to be done now, in order."""
    tasks, commands = divide(execution.tasks, view)
    _take_in(tasks, commands, events, execution, view)
    return _go_through(tasks, commands, execution, view)


def follow_up(execution: Execution, answers: Sequence[Event], view: View) -> Step:
    """The same after the commands just given were performed, which came to these answers.

    What was answered goes on. All else has been gone through a moment ago, and is again only where
    something ended: that makes room, or stops the plan.
    """
    tasks, commands = divide(execution.tasks, view)
    answered = _take_in(tasks, commands, answers, execution, view)
    if any(tasks[number].stage not in UNDER_WAY for number in answered):
        return _go_through(tasks, commands, execution, view)
    for number in sorted(answered):
        tasks[number], more = _tick(tasks[number], view)
        commands += more
    return replace(execution, tasks=tasks), tuple(commands)


def due(execution: Execution) -> float | None:
    """The next time at which something has to be done without any event; None: nothing has."""
    tasks = execution.tasks
    times = (verification.asks_at(tasks[number]) for number in tasks.at((Stage.VERIFYING,)))
    return min(times, default=None)


def adopt(intents: Iterable[Intent]) -> Execution:
    """What an earlier balancerd left under way: verified first, watched where it still runs."""
    tasks: list[Task] = []
    created = 0.0
    for number, intent in enumerate(intents, start=1):
        tasks.append(_adopted(number, intent))
        created = max(created, intent.at)
    reason = "balancerd was started again"
    return Execution(0, created, None, Tasks(tasks), stopped=reason)


def moving(executions: Iterable[Execution]) -> dict[str, str]:
    """VMs whose migrations are not settled, and where to."""
    return {
        task.move.vm: task.move.target
        for execution in executions
        for task in execution.tasks.moves_under_way()
    }


def own_moves(executions: Iterable[Execution]) -> frozenset[str]:
    """VMs that balancerd itself is moving; not those whose job turned out to be another's."""
    return frozenset(
        task.move.vm
        for execution in executions
        for task in execution.tasks.moves_under_way()
        if not task.foreign
    )


def _take_in(
    tasks: TasksInHand,
    commands: list[Command],
    events: Sequence[Event],
    execution: Execution,
    view: View,
) -> set[int]:
    """Change the tasks that events are for, and add what follows to the commands; their numbers."""
    concerned: set[int] = set()
    for event in events:
        for number in _addressed(tasks, event):
            tasks[number], more = _apply(tasks[number], event, execution, view)
            commands += more
            concerned.add(number)
    return concerned


def _go_through(
    tasks: TasksInHand, commands: list[Command], execution: Execution, view: View
) -> Step:
    """Let time pass for all that is under way, and start what may start."""
    stopped = execution.stopped or _stop_reason(execution, tasks, view)
    execution = replace(execution, stopped=stopped)
    starts = _Starts(tasks, execution, view)
    for number in starts.in_order():
        if tasks[number].stage is Stage.WAITING:
            tasks[number], more = starts.try_to(number)
        else:
            tasks[number], more = _tick(tasks[number], view)
        commands += more
    execution = replace(execution, tasks=tasks)
    execution, end = _end(execution)
    return execution, (*commands, *end)


def may_press(executions: Iterable[Execution], vm: str) -> str:
    """Why a VM's migration can be neither hurried nor given up; "" when it can."""
    return _obstacle(executions, vm, closing.may_press)


def may_close(executions: Iterable[Execution], vm: str) -> str:
    """Why a VM's migration may not be left to people; "" when it may."""
    return _obstacle(executions, vm, closing.may_close)


def _obstacle(executions: Iterable[Execution], vm: str, to: Callable[[Task], str]) -> str:
    """What is in the way of doing something to a VM's migration, if it has one."""
    found = [
        to(execution.tasks[number])
        for execution in executions
        for number in _under_way(execution.tasks, vm)
    ]
    return found[0] if found else "is not being moved by balancerd"


def _under_way(tasks: Tasks, vm: str) -> list[int]:
    """A VM's moves that have begun and not ended."""
    return [number for number in tasks.of(vm) if tasks[number].stage in UNDER_WAY]


def _addressed(tasks: Tasks, event: Event) -> Sequence[int]:
    """The tasks an event is for: by name where the news came from outside, else by number."""
    if isinstance(event, SwitchFailed):
        return [n for n in tasks.at((Stage.RUNNING,)) if _switches(tasks[n], event.host)]
    if isinstance(event, BY_VM):
        return _under_way(tasks, event.vm)
    return (event.task,)


def _switches(task: Task, host: str) -> bool:
    return not isinstance(task.action, Move) and task.action.host == host


def _apply(
    task: Task, event: Event, execution: Execution, view: View
) -> tuple[Task, tuple[Command, ...]]:
    if isinstance(task.action, Move):
        return migration.apply(task, event, execution, view)
    return powering.apply(task, event, view)


def _tick(task: Task, view: View) -> tuple[Task, tuple[Command, ...]]:
    if isinstance(task.action, Move):
        return migration.tick(task, view)
    return powering.tick(task, view)


def _stop_reason(execution: Execution, tasks: Tasks, view: View) -> str:
    """Why nothing more of the plan may start; "" while it may."""
    for number in tasks.at(_STOPS_A_PLAN):
        task = tasks[number]
        return f"{_name(task.action)} {task.stage}: {task.detail}"
    if view.now - execution.created > view.policy.limits.plan_life:
        return f"older than {view.policy.limits.plan_life:.0f} s"
    warrant = execution.warrant
    if warrant is None:
        return "no leave to act"
    if view.policy.mode is Mode.OBSERVE:
        return "the policy only observes now"
    if view.policy.mode is Mode.ADVISE and not warrant.approved:
        return "the policy only advises now"
    return ""


class _Starts:
    """Which waiting actions may start now.

    The projected snapshot and its gate are made when the first move gets that far, and charged
    with each move that starts, so that two moves never count on the same room.
    """

    def __init__(self, tasks: Tasks, execution: Execution, view: View) -> None:
        self._tasks = tasks
        self._execution = execution
        self._view = view
        self._gate: Gate | None = None
        self._snapshot = view.snapshot

    @cached_property
    def _traffic(self) -> Traffic:
        return Traffic.of(self._tasks, self._view)

    @cached_property
    def _busy(self) -> tuple[Set[str], Set[str]]:
        return self._traffic.full_hosts()

    @cached_property
    def _breakers(self) -> Breakers:
        return breakers(self._view.history, self._view.policy.limits, self._view.now)

    @cached_property
    def _objections(self) -> Objections:
        history, told = self._view.history, _turned_away(self._tasks)
        known = {(move.vm, move.at) for move in history.moves} if told else set()
        news = tuple(move for move in told if (move.vm, move.at) not in known)
        if news:  # the past is read at the next look
            history = replace(history, moves=history.moves + news)
        return objections(history, self._view.policy.limits, self._view.now)

    def try_to(self, number: int) -> tuple[Task, tuple[Command, ...]]:
        """Start a waiting task if everything allows it; drop it if something never will."""
        task, view, execution = self._tasks[number], self._view, self._execution
        if execution.stopped:
            return task.to(Stage.DROPPED, view.now, execution.stopped), ()
        if _was_refused(task, view):
            return task, ()
        if task.action.after and (undone := self._undone(task.action.after)):
            return _behind(undone, task, view), ()
        if view.paused or view.frozen or not view.fresh:
            return task, ()
        if not isinstance(task.action, Move):
            return powering.begin(task, execution, view)
        fellows = sets.fellows(self._tasks, task.action)
        if fellows and (lost := sets.left_behind(fellows)):
            detail = f"belongs with the {_name(lost.action)}, which was {lost.stage}: {lost.detail}"
            return task.to(Stage.DROPPED, view.now, detail), ()
        return self._try_move(task, fellows)

    def _undone(self, before: Iterable[int]) -> list[Task]:
        tasks = self._tasks
        return [tasks[n] for n in before if n in tasks and tasks[n].stage is not Stage.DONE]

    def _try_move(self, task: Task, fellows: Sequence[Task]) -> tuple[Task, tuple[Command, ...]]:
        move, view = task.move, self._view
        if self._traffic.is_full(move) or self._waits_for_its_turn(move):
            return task, ()
        committed = sets.is_committed(task, fellows, view)
        if not committed and self._waits_for_its_set(task, fellows):
            return task, ()
        gate = self._gate or self._make_gate()
        refusal = gate.refuses(move) or self._objected(move) or self._over_budget(move)
        if refusal:
            detail = f"{refusal.constraint}: {refusal.detail}"
            return task.to(Stage.DROPPED, view.now, detail), ()
        gate.admit(move)
        if committed:
            self._traffic.admit(move)
        else:
            task = altered(task, cleared=0.0)
        return migration.check(task, replace(view, snapshot=self._snapshot), move.number)

    def _objected(self, move: Move) -> Refusal | None:
        """What hosts told another VM since the plan was made, and would tell this one, too."""
        said = None
        if move.method is not Method.COLD:
            said = self._objections.between(move.source, move.target)
        return Refusal(move.vm, move.target, "objection", str(said)) if said else None

    def _over_budget(self, move: Move) -> Refusal | None:
        return over_budget(move, self._tasks.values(), self._execution.created, self._view)

    def _waits_for_its_set(self, task: Task, fellows: Sequence[Task]) -> bool:
        """Whether others of its set are being asked, or would not be let through."""
        is_asked = sets.is_cleared(task, self._view)
        return is_asked or any(self._waits_for_its_turn(other.move) for other in fellows)

    def in_order(self) -> list[int]:
        """The tasks that have not ended, in the order they are tried: the smallest first of those
        that try something out again after failures."""
        numbers = self._tasks.at(OPEN)
        if not self._execution.stopped and self._tasks.any_at((Stage.WAITING,)):
            held_up = self._held_up()
            numbers = [number for number in numbers if number not in held_up]
        if self._breakers == Breakers():
            return numbers
        return sorted(numbers, key=lambda number: self._probing(self._tasks[number]))

    def _held_up(self) -> set[int]:
        """The moves that just wait at a host that others keep busy, and will at the end of this
        step: of a large plan most do, and are not looked into. Not those that may fall with
        another."""
        sources, targets = self._busy
        return {
            number
            for number, (source, target) in self._tasks.alone(Stage.WAITING)
            if source in sources or target in targets
        }

    def _probing(self, task: Task) -> int:
        if task.stage is not Stage.WAITING or not isinstance(task.action, Move):
            return 0
        move = task.move
        return move.bytes if self._breakers.of(move.vm, move.source, move.target) else 0

    def _waits_for_its_turn(self, move: Move) -> bool:
        """Whether failures keep a move back: for a while, or until it may go alone."""
        found = self._breakers.of(move.vm, move.source, move.target)
        return any(one.state is State.OPEN for one in found) or bool(found and self._traffic.site)

    def _make_gate(self) -> Gate:
        view = self._view
        self._snapshot = project(view.snapshot, self._tasks)
        past = _without(Same(view.history), self._execution.created)
        self._gate = Gate.of(self._snapshot, view.policy, past, view.now)
        return self._gate


def _turned_away(tasks: Tasks) -> list[PastMove]:
    """What hosts told VMs of a plan that holds for others, too."""
    found: list[PastMove] = []
    for number in tasks.at(_MAY_HAVE_OBJECTED):
        task = tasks[number]
        if task.outcome is not Outcome.OBJECTED:
            continue
        against = task.report.against if task.report else Against.MOVE
        if against is not Against.MOVE:
            move, said = task.move, Outcome.OBJECTED
            ways = move.vm, move.source, move.target, task.since
            found.append(PastMove(*ways, said, detail=task.detail, against=against))
    return found


def _behind(undone: Sequence[Task], task: Task, view: View) -> Task:
    """A task that comes after these: it waits for them, and falls with one that ended."""
    broken = next((other for other in undone if other.stage in ENDED), None)
    if broken:
        detail = f"needs the {_name(broken.action)}, which was {broken.stage}"
        return task.to(Stage.DROPPED, view.now, detail)
    return task


def _was_refused(task: Task, view: View) -> bool:
    """Whether the ledger took no intent of it a moment ago: a pause that the view may not show."""
    return 0.0 <= view.now - task.refused < INTEND_AGAIN


def project(snapshot: Snapshot, tasks: Tasks) -> Snapshot:
    """The snapshot as it must look by now: moves done since it was taken, and those under way.

    What is under way counts at its source to the end: in post-copy it runs on the target already.
    """
    cluster = snapshot.cluster
    places: dict[str, str] = {}
    flying: dict[str, str] = {}
    for number in tasks.at(_MOVED):
        task = tasks[number]
        done = task.stage is Stage.DONE
        if done and task.since <= snapshot.at:
            continue
        action = task.action
        if isinstance(action, Move) and action.vm in cluster.vms:
            places[action.vm] = action.target if done else action.source
            if not done:
                flying[action.vm] = action.target
    if not places:
        return snapshot
    flights = {vm: to for vm, to in cluster.flights.items() if vm not in places} | flying
    cluster = replace(cluster, placement=as_dict(cluster.placement) | places, flights=flights)
    return replace(snapshot, cluster=cluster)


@lru_cache(maxsize=1)
def _without(history: Same[History], since: float) -> History:
    """The past before the plan: a VM that the plan moves twice does not rest in between. It is the
    same at all steps, so that what was worked out from it is found by it."""
    past = history.value
    earlier = past.moves[: bisect_left(past.moves, since, key=attrgetter("at"))]
    return past if len(earlier) == len(past.moves) else replace(past, moves=earlier)


def _end(execution: Execution) -> tuple[Execution, tuple[Command, ...]]:
    """Close the plan once all its tasks have ended."""
    if execution.state is not PlanState.RUNNING or not execution.settled():
        return execution, ()
    stages = [task.stage for task in execution.tasks.values()]
    done = stages.count(Stage.DONE)
    if any(stage in _STOPS_A_PLAN for stage in stages):
        state = PlanState.FAILED
    else:
        state = PlanState.DONE if done or not stages else PlanState.SUPERSEDED
    dropped = next((t.detail for t in execution.tasks.values() if t.stage is Stage.DROPPED), "")
    detail = execution.stopped or (f"dropped: {dropped}" if dropped else "")
    words = f"{done} of {len(stages)} actions done" + (f"; {detail}" if detail else "")
    ended = replace(execution, state=state)
    if not execution.plan_id:
        return ended, ()
    return ended, (EndPlan(execution.plan_id, state, words),)


def _name(action: Action) -> str:
    """An action as a person calls it."""
    if isinstance(action, Move):
        return f"move of {action.vm} to {action.target}"
    return f"{'sleep' if isinstance(action, Sleep) else 'wake'} of {action.host}"


def _adopted(number: int, intent: Intent) -> Task:
    if intent.kind is IntentKind.MIGRATE:
        move = Move(
            number=number,
            vm=intent.vm,
            source=intent.host,
            target=intent.target,
            method=intent.method or Method.PRE_COPY,
            reason=intent.reason,
            seconds=intent.predicted_seconds,
            bytes=intent.predicted_bytes,
        )
        return migration.adopted(intent, Task(move))
    kind = Sleep if intent.kind is IntentKind.SLEEP else Wake
    return powering.adopted(intent, Task(kind(number, intent.host, intent.reason)))
