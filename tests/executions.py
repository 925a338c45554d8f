"""A plan being carried out in a world of the test's own making: four hosts, small quiet VMs."""

from collections.abc import Sequence
from dataclasses import replace

from balancerd.core.executing.execution import Execution, Stage, View, warrant_of_policy
from balancerd.core.executing.executor import adopt, advance, follow_up
from balancerd.core.executing.messages import (
    Acted,
    Command,
    Conclude,
    Event,
    Intended,
    Located,
    StartRefused,
    Tuned,
)
from balancerd.core.model import VM, Cluster, Forecast, Host, Load, Method, PowerState, Snapshot
from balancerd.core.observation import JobProgress, JobReport, Location, Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History
from balancerd.core.past.record import Intent, IntentKind
from balancerd.core.plan import Action, Move, Plan
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB

P = Presence
ANSWERS = (Located, Intended, StartRefused, Acted, Tuned)
START = 1000.0
POLICY = Policy(summary="test", name="test", mode=Mode.ACT)
WARRANT = warrant_of_policy(POLICY)
assert WARRANT is not None


SLEPT = History(put_to_sleep={"h4": START - 3600})


def move(number: int, vm: str, source: str, target: str, *after: int) -> Move:
    return Move(number, vm, source, target, Method.PRE_COPY, "test", after=after)


def snapshot(at: float = START, **placement: str) -> Snapshot:
    """Four hosts of 16 cores and 64 GiB; small, quiet VMs."""
    names = ("h1", "h2", "h3", "h4")
    hosts = {n: Host(n, 16.0, 64 * GIB, cores=16, can_sleep=True) for n in names}
    vms = {name: VM(name, GIB, uuid=f"uuid-{name}") for name in placement}
    load = Load(0.1, 0.1, GIB // 2, readings=10, since=0.0)
    return Snapshot(
        at=at,
        cluster=Cluster(hosts, vms, dict(placement)),
        loads=dict.fromkeys(vms, load),
        host_loads=dict.fromkeys(hosts, load),
        forecasts=dict.fromkeys(vms, Forecast(0.1, 0.01)),
    )


def switched_off(seen: Snapshot, *names: str) -> Snapshot:
    hosts = dict(seen.cluster.hosts)
    for name in names:
        hosts[name] = replace(hosts[name], power=PowerState.OFF)
    return replace(seen, cluster=replace(seen.cluster, hosts=hosts))


class Run:
    """An execution with its view; `feed` advances it, after answers by them alone as the loop does,
    and keeps the commands it gave."""

    def __init__(self, *actions: Action, policy: Policy = POLICY, **placement: str) -> None:
        plan = Plan(START, "test", "spread", actions, "test", 1.0, 0.5)
        assert WARRANT is not None
        self.execution = Execution.of(plan, 1, WARRANT)
        self.view = View(snapshot(START, **placement), policy, SLEPT, START)
        self.commands: list[Command] = []

    def feed(self, *events: Event, at: float | None = None) -> tuple[Command, ...]:
        if at is not None:
            self.view = replace(self.view, now=at)
        answered = bool(events) and all(isinstance(event, ANSWERS) for event in events)
        go_on = follow_up if answered else advance
        self.execution, commands = go_on(self.execution, events, self.view)
        self.commands += commands
        return commands

    def located(self, number: int, source: Presence, target: Presence) -> tuple[Command, ...]:
        task = self.execution.tasks[number].move
        presence = {task.source: source, task.target: target}
        return self.feed(Located(number, Location(task.vm, self.view.now, presence)))

    def started(self, number: int = 1, at: float | None = None) -> None:
        """Through the check and the intent to a running migration."""
        self.feed(at=at)
        self.located(number, P.RUNNING, P.ABSENT)
        self.feed(Intended(number, 70 + number))
        assert self.stage(number) is Stage.RUNNING

    def ended(self, number: int = 1, error: str = "", code: int = 0) -> tuple[Command, ...]:
        m = self.execution.tasks[number].move
        report = JobReport(
            m.vm, m.source, m.target, self.view.now, ended=True, error=error, error_code=code
        )
        return self.feed(report)

    def progress(self, processed: int, at: float) -> tuple[Command, ...]:
        m = self.execution.tasks[1].move
        progress = JobProgress(10 * GIB, processed, 10 * GIB - processed, 1, at - START)
        return self.feed(JobReport(m.vm, m.source, m.target, at, progress), at=at)

    def stage(self, number: int = 1) -> Stage:
        return self.execution.tasks[number].stage

    def outcome(self) -> Outcome | None:
        found = [c.conclusion.outcome for c in self.commands if isinstance(c, Conclude)]
        assert len(found) <= 1, "an intent is concluded once"
        return found[0] if found else None


def of(kind: type[Command], commands: Sequence[Command]) -> list[Command]:
    return [command for command in commands if isinstance(command, kind)]


def one_move(policy: Policy = POLICY) -> Run:
    return Run(move(1, "a", "h1", "h2"), a="h1", policy=policy)


def left_under_way(*, seen: bool) -> Run:
    """An adopted migration that goes on; `seen`: its progress was recorded before."""
    run = one_move()
    intent = Intent(IntentKind.MIGRATE, START, "h1", "a", "uuid-a", "h2", id=7, seen=seen)
    run.execution = adopt([intent])
    run.feed()
    run.located(1, P.RUNNING_WITH_JOB, P.INCOMING)
    assert run.stage() is Stage.RUNNING
    return run
