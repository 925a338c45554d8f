"""The state machine of a power action.

A host goes to sleep only after two snapshots, `SEEN_APART` seconds apart, both showed it empty;
that it is off, or awake and answering, is believed when a snapshot says so.
"""

from balancerd.core.executing.execution import OUTCOME_STAGE, Execution, Stage, Task, View
from balancerd.core.executing.messages import (
    Command,
    Conclude,
    Event,
    Intend,
    Intended,
    StartRefused,
    SwitchFailed,
    SwitchPower,
)
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import PowerState
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import may_be_woken
from balancerd.core.past.record import Conclusion, Intent, IntentKind
from balancerd.core.plan import Move, Sleep
from balancerd.core.sensing.whereabouts import ACTIVE

SEEN_APART = 15.0  # seconds between the two observations of an empty host
SLEEP_PATIENCE = 600.0  # seconds a host may take to shut down
WAKE_PATIENCE = 900.0  # seconds a host may take to boot and answer

Step = tuple[Task, tuple[Command, ...]]


def begin(task: Task, execution: Execution, view: View) -> Step:
    """From waiting to the intent, once a host to be put to sleep was seen empty twice."""
    if isinstance(task.action, Sleep):
        obstacle = _occupied(task.action.host, view)
        if obstacle:
            return task.to(Stage.DROPPED, view.now, obstacle), ()
        if not task.empty_seen:
            return altered(task, empty_seen=view.snapshot.at), ()
        if view.snapshot.at - task.empty_seen < SEEN_APART:
            return task, ()
    elif not may_be_woken(_host(task), view.history, view.policy):
        return task.to(Stage.DROPPED, view.now, "something else switched it off"), ()
    intent = Intent(
        kind=IntentKind.SLEEP if isinstance(task.action, Sleep) else IntentKind.WAKE,
        at=view.now,
        host=_host(task),
        reason=task.action.reason,
        plan=execution.plan_id,
        action=task.action.number,
    )
    return task.to(Stage.INTENDING, view.now), (Intend(task.action.number, intent),)


def apply(task: Task, event: Event, view: View) -> Step:
    """The task after one event."""
    match (task.stage, event):
        case (Stage.INTENDING, Intended(intent=None)):
            task = altered(task, empty_seen=0.0, refused=view.now)
            return task.to(Stage.WAITING, view.now, "paused"), ()
        case (Stage.INTENDING, Intended(intent=int(intent))):
            running = altered(task, intent=intent, started=view.now).to(Stage.RUNNING, view.now)
            wake = not isinstance(task.action, Sleep)
            return running, (SwitchPower(task.action.number, intent, _host(task), wake),)
        case (Stage.RUNNING, StartRefused() | SwitchFailed()):
            return _conclude(task, Outcome.NOT_STARTED, event.error, view.now)
        case _:
            return task, ()


def tick(task: Task, view: View) -> Step:
    """The task after time has passed: the snapshot tells whether the host got there."""
    if task.stage is not Stage.RUNNING:
        return task, ()
    host, ran = _host(task), view.now - task.started
    facts = view.snapshot.cluster.hosts.get(host)
    state = facts.power if facts else PowerState.UNKNOWN
    if isinstance(task.action, Sleep):
        if state is PowerState.OFF:
            return _conclude(task, Outcome.DONE, "off", view.now)
        patience = SLEEP_PATIENCE
    else:
        if state is PowerState.ON and host not in view.snapshot.unknown_hosts():
            return _conclude(task, Outcome.DONE, f"awake after {ran:.0f} s", view.now)
        patience = WAKE_PATIENCE
    if ran > patience:
        return _conclude(task, Outcome.FAILED, f"still {state} after {ran:.0f} s", view.now)
    return task, ()


def adopted(intent: Intent, task: Task) -> Task:
    """The task of a power intent that an earlier balancerd left open."""
    return altered(
        task,
        stage=Stage.RUNNING,
        since=intent.at,
        intent=intent.id,
        started=intent.at,
        adopted=True,
    )


def _host(task: Task) -> str:
    assert not isinstance(task.action, Move)
    return task.action.host


def _occupied(host: str, view: View) -> str:
    """Why a host must not go to sleep now; "" when it is known to be empty."""
    snapshot = view.snapshot
    cluster = snapshot.cluster
    if host not in cluster.hosts or host in snapshot.unknown_hosts():
        return "not known well enough"
    if cluster.hosts[host].power is not PowerState.ON:
        return f"is {cluster.hosts[host].power}"
    if not cluster.hosts[host].may_sleep:
        return "has no power driver that is believed"
    if any(target == host for target in cluster.flights.values()):
        return "a VM is on its way to it"
    active = [
        vm
        for vm, place in cluster.placement.items()
        if place == host and cluster.vms[vm].state in ACTIVE
    ]
    if active:
        return f"{active[0]} runs on it"
    awake = sum(
        1
        for name, other in cluster.hosts.items()
        if other.power is PowerState.ON and name not in snapshot.unknown_hosts()
    )
    keep = view.policy.power.keep_on
    return "" if awake > keep else f"only {awake} hosts are on, {keep} must be"


def _conclude(task: Task, outcome: Outcome, detail: str, now: float) -> Step:
    conclusion = Conclusion(
        intent=task.intent,
        at=now,
        outcome=outcome,
        detail=detail,
        seconds=now - task.started,
        adopted=task.adopted,
    )
    ended = task.to(OUTCOME_STAGE[outcome], now, detail)
    return ended, (Conclude(task.action.number, conclusion),)
