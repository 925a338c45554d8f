"""A plan being carried out, as values: stages and their table, tasks.

`executor.advance` is the only function that turns events into commands (see `messages`). Nothing
here or there touches the world.

    WAITING ─► CHECKING ─► INTENDING ─► RUNNING ─► VERIFYING ─► SETTLING ─► done, failed, aborted,
       └──────────┴───────────┴─► dropped              └─────────────────►  lost, quarantined
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from balancerd.core.executing.reconcile import Act
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import JobReport, Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History
from balancerd.core.past.record import PlanState
from balancerd.core.plan import Action, Move, Plan
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.ladder import GROUND, Climb
from balancerd.core.policies.policy import Policy


class Stage(StrEnum):
    """Where one action of a plan stands."""

    WAITING = "waiting"
    CHECKING = "checking"  # both hosts are being asked before the start
    INTENDING = "intending"  # the intent is being committed
    RUNNING = "running"
    VERIFYING = "verifying"  # it ended somehow; both hosts are being asked where the VM is
    SETTLING = "settling"  # leftovers are being put right
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    DROPPED = "dropped"  # never started
    LOST = "lost"
    QUARANTINED = "quarantined"


S = Stage
ENDED = frozenset({S.DONE, S.FAILED, S.ABORTED, S.DROPPED, S.LOST, S.QUARANTINED})
UNDER_WAY = frozenset({S.CHECKING, S.INTENDING, S.RUNNING, S.VERIFYING, S.SETTLING})
OPEN = frozenset(Stage) - ENDED
LINGERS = 30.0  # seconds of being verified in vain, after which a task holds up no planning
_BUSY = OPEN - {S.VERIFYING}
_VERDICTS = frozenset({S.DONE, S.FAILED, S.ABORTED, S.DROPPED, S.LOST, S.QUARANTINED})

TRANSITIONS: Mapping[Stage, frozenset[Stage]] = {
    S.WAITING: frozenset({S.CHECKING, S.INTENDING, S.DROPPED}),
    S.CHECKING: frozenset({S.INTENDING, S.WAITING, S.DROPPED}),
    S.INTENDING: frozenset({S.RUNNING, S.WAITING, S.DROPPED}),
    S.RUNNING: frozenset({S.VERIFYING, S.DONE, S.FAILED}),
    S.VERIFYING: _VERDICTS | {S.RUNNING, S.SETTLING},
    S.SETTLING: _VERDICTS | {S.VERIFYING},
    **{stage: frozenset() for stage in ENDED},
}

PLAN_TRANSITIONS: Mapping[PlanState, frozenset[PlanState]] = {
    PlanState.PROPOSED: frozenset({PlanState.RUNNING, PlanState.SUPERSEDED}),
    PlanState.RUNNING: frozenset({PlanState.DONE, PlanState.FAILED, PlanState.SUPERSEDED}),
    **{
        state: frozenset[PlanState]()
        for state in (PlanState.DONE, PlanState.FAILED, PlanState.SUPERSEDED)
    },
}

OUTCOME_STAGE: Mapping[Outcome, Stage] = {
    Outcome.DONE: S.DONE,
    Outcome.FAILED: S.FAILED,
    Outcome.ABORTED: S.ABORTED,
    Outcome.NOT_STARTED: S.FAILED,
    Outcome.OBJECTED: S.DROPPED,
    Outcome.LOST: S.LOST,
    Outcome.QUARANTINED: S.QUARANTINED,
}


@dataclass(frozen=True, slots=True)
class Warrant:
    """The leave to act. Only `warrant_of_policy` and `warrant_of_approval` make one."""

    by: str
    approved: bool  # an operator approved this very plan


def warrant_of_policy(policy: Policy) -> Warrant | None:
    """The leave that mode `act` gives; None in `observe` and `advise`."""
    return Warrant(f"policy {policy.name}", approved=False) if policy.mode is Mode.ACT else None


def warrant_of_approval(policy: Policy, operator: str) -> Warrant | None:
    """The leave that an operator gives to one plan; None in `observe`."""
    return None if policy.mode is Mode.OBSERVE else Warrant(operator, approved=True)


@dataclass(frozen=True)  # no slots: see `many_fields`
class Task:
    """One action on its way. Times are seconds since the epoch; 0 where it did not happen yet."""

    action: Action
    stage: Stage = Stage.WAITING
    since: float = 0.0  # when it entered its stage; when verifying began, while it is settling
    uuid: str = ""
    intent: int = 0
    started: float = 0.0
    deadline: float = 0.0  # seconds it may run
    report: JobReport | None = None  # the last news of the migration
    bandwidth: int = 0  # the cap it was given, bytes per second
    limited: float = 0.0  # when that was changed last
    downtime: float = 0.0  # the longest pause it may end with by now
    climb: Climb = GROUND  # the policy's ladder, as far as it got
    remaining: int = 0  # bytes, when last heard of
    post_copy: bool = False  # it was started so that it can go on in post-copy
    switched: bool = False  # it was told to go on in post-copy: there is no way back
    untuned: float = 0.0  # when something could last not be done to its job
    hurry: str = ""  # how an operator wants it hurried, until it is
    hurried_by: str = ""
    processed: int = 0  # bytes, by which progress is measured
    progressed: float = 0.0
    abort_asked: float = 0.0
    abort_reason: str = ""
    asked: float = 0.0  # when the hosts were last asked
    asks: int = 0
    pair: tuple[Presence, Presence] | None = None  # what source and target last said
    pair_since: float = 0.0
    jobless: bool = False  # its source was seen without our job: another that it has is not ours
    told: str = ""  # which answers of its hosts people were told of
    acts: tuple[Act, ...] = ()
    outcome: Outcome | None = None
    detail: str = ""
    autostart: bool = False
    target_defined: bool = False
    hand_over: bool = False  # it arrives paused, and is resumed once its source is seen to be gone
    resumed: float = 0.0  # when it was
    adopted: bool = False
    ours: bool = False  # a job was seen that must be the one that this task began
    foreign: str = ""  # why the job that holds the VM is somebody else's; "" while nothing says so
    look_wide: bool = False  # the other hosts are to be asked too
    start_error: str = ""
    cleared: float = 0.0  # when its hosts said nothing against it, before its set was committed
    refused: float = 0.0  # when the ledger last took no intent of it
    objection: str = ""  # what the hosts' own facts speak against the start
    empty_seen: float = 0.0  # when a host about to sleep was first seen empty

    def to(self, stage: Stage, now: float, detail: str = "") -> "Task":
        """The task in another stage; a transition that is not in the table is a defect."""
        if stage not in TRANSITIONS[self.stage]:
            raise AssertionError(f"no transition from {self.stage} to {stage}")
        return altered(self, stage=stage, since=now, detail=detail or self.detail)

    @property
    def is_cold(self) -> bool:
        """Whether only a definition is to be moved."""
        return isinstance(self.action, Move) and self.action.method is Method.COLD

    @property
    def move(self) -> Move:
        """The action of a task that is a move."""
        assert isinstance(self.action, Move)
        return self.action


class Tasks(Mapping[int, Task]):
    """Tasks by their numbers, and beside that by stage and VM: of the thousands that a plan may
    have most wait or have ended, and a step concerns few."""

    __slots__ = ("_all", "_alone", "_at", "_of")

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._all = {task.action.number: task for task in tasks}
        self._at: dict[Stage, set[int]] = {stage: set() for stage in Stage}
        # Whose moves these are never changes, and neither do the ways of those that fall with none.
        self._of: dict[str, list[int]] = {}
        self._alone: dict[int, tuple[str, str]] = {}
        for number, task in self._all.items():
            self._at[task.stage].add(number)
            if isinstance(move := task.action, Move):
                self._of.setdefault(move.vm, []).append(number)
                if not move.after and not move.set_number:
                    self._alone[number] = move.source, move.target

    def at(self, stages: Iterable[Stage]) -> list[int]:
        """The numbers of those that are in one of these stages, in order."""
        return sorted(number for stage in stages for number in self._at[stage])

    def any_at(self, stages: Iterable[Stage]) -> bool:
        """Whether any is in one of these stages."""
        return any(self._at[stage] for stage in stages)

    def alone(self, stage: Stage) -> list[tuple[int, tuple[str, str]]]:
        """The moves in a stage that neither come after others nor go with them: their numbers, and
        from where to where they go."""
        numbers = self._at[stage] & self._alone.keys()
        return [(number, self._alone[number]) for number in numbers]

    def moves_under_way(self) -> list[Task]:
        """The moves that have begun and not ended, in order."""
        found = [self._all[number] for number in self.at(UNDER_WAY)]
        return [task for task in found if isinstance(task.action, Move)]

    def of(self, vm: str) -> Sequence[int]:
        """The numbers of a VM's moves, in order."""
        return self._of.get(vm, ())

    def in_hand(self) -> "TasksInHand":
        """The same, to be changed by one step."""
        return TasksInHand.copy_of(self)

    def values(self) -> ValuesView[Task]:
        """The tasks, in order."""
        return self._all.values()

    def __getitem__(self, number: int) -> Task:
        return self._all[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class TasksInHand(Tasks):
    """Tasks that a step changes, before it hands them on to be changed no more."""

    __slots__ = ()

    @classmethod
    def copy_of(cls, tasks: Tasks) -> Self:
        """Tasks to be changed without changing these."""
        copy = cls.__new__(cls)
        copy._all, copy._of, copy._alone = tasks._all.copy(), tasks._of, tasks._alone
        copy._at = {stage: numbers.copy() for stage, numbers in tasks._at.items()}
        return copy

    def __setitem__(self, number: int, task: Task) -> None:
        before = self._all[number]
        if task is not before:
            self._all[number] = task
            self._at[before.stage].remove(number)
            self._at[task.stage].add(number)


@dataclass(frozen=True, slots=True)
class Execution:
    """A plan being carried out. `plan_id` 0 holds what an earlier balancerd left under way."""

    plan_id: int
    created: float
    warrant: Warrant | None
    tasks: Tasks
    stopped: str = ""  # why nothing of it will be started any more
    state: PlanState = PlanState.RUNNING

    @classmethod
    def of(cls, plan: Plan, plan_id: int, warrant: Warrant) -> "Execution":
        """The beginning: every action waits. Needs a warrant, which observe and advise lack."""
        tasks = Tasks(Task(action, since=plan.at) for action in plan.actions)
        return cls(plan_id, plan.at, warrant, tasks)

    def busy(self, now: float) -> bool:
        """Whether it holds up planning: something waits or runs.

        A task that has been verified in vain for `LINGERS` seconds does not: its host may be away
        for days, and only its own VM has to wait for that.
        """
        tasks = self.tasks
        return tasks.any_at(_BUSY) or any(
            now - tasks[number].since < LINGERS for number in tasks.at((S.VERIFYING,))
        )

    def settled(self) -> bool:
        """Whether every task has ended."""
        return not self.tasks.any_at(OPEN)


@dataclass(frozen=True, slots=True)
class View:
    """What advancing may look at: the newest snapshot, the policy of this moment, the past."""

    snapshot: Snapshot
    policy: Policy
    history: History
    now: float
    paused: bool = False
    frozen: str = ""
    fresh: bool = True  # the snapshot is young enough to start something on it
