"""What goes in and out of carrying out a plan: events in, commands out.

`task` is an action's number. The loop performs commands, and feeds what comes of them back.
"""

from dataclasses import dataclass

from balancerd.core.executing.reconcile import Act
from balancerd.core.model import Method
from balancerd.core.observation import JobReport, Location, Preflight
from balancerd.core.past.record import Conclusion, Intent, PlanState

# Events: what came of a command, or news from outside


@dataclass(frozen=True, slots=True)
class Located:
    """The hosts answered where the VM is."""

    task: int
    location: Location
    preflight: Preflight | None = None  # where it was asked for


@dataclass(frozen=True, slots=True)
class Intended:
    """The intent is committed under this id; None: a pause stands and nothing may be done."""

    task: int
    intent: int | None


@dataclass(frozen=True, slots=True)
class StartRefused:
    """The backend or power driver did not take the order."""

    task: int
    error: str


@dataclass(frozen=True, slots=True)
class SwitchFailed:
    """What had been asked of a host's power driver failed."""

    host: str
    error: str


@dataclass(frozen=True, slots=True)
class Acted:
    """An act of the state-pair table was carried out; `error` is "" when it was."""

    task: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A running migration was given another "bandwidth" or "downtime", or went on in "post-copy";
    `error` is "" when it did."""

    task: int
    what: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class AbortWanted:
    """The operator wants a VM's migration given up."""

    vm: str
    by: str


@dataclass(frozen=True, slots=True)
class HurryWanted:
    """The operator wants a VM's migration to end soon; `force`: whatever pause that takes."""

    vm: str
    by: str
    force: bool


@dataclass(frozen=True, slots=True)
class CloseWanted:
    """The operator has looked at what is waited for, and answers for the VM from now on."""

    vm: str
    by: str


Event = (
    Located
    | Intended
    | StartRefused
    | SwitchFailed
    | Acted
    | Tuned
    | AbortWanted
    | HurryWanted
    | CloseWanted
    | JobReport
)


# Commands: what the loop is to do. Each carries the task's number, so that an event can come back.


@dataclass(frozen=True, slots=True)
class Ask:
    """Read a VM's presence on both hosts, or on all."""

    task: int
    vm: str
    uuid: str
    hosts: tuple[str, ...]  # source and target first
    method: Method | None = None  # of a migration about to start: the hosts' facts are asked for
    lasting: bool = False  # about a definition, which a host keeps while it is off


@dataclass(frozen=True, slots=True)
class Intend:
    """Commit an intent."""

    task: int
    intent: Intent


@dataclass(frozen=True, slots=True)
class StartMigration:
    """Start what intent `intent` announced."""

    task: int
    intent: int
    vm: str
    source: str
    target: str
    method: Method
    bandwidth: int
    downtime: float
    hand_over: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch a migration that runs already."""

    task: int
    vm: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class SetBandwidth:
    """Change the cap of a running migration, bytes per second."""

    task: int
    vm: str
    source: str
    bandwidth: int


@dataclass(frozen=True, slots=True)
class SetDowntime:
    """Allow a running migration a longer pause, seconds."""

    task: int
    vm: str
    source: str
    downtime: float
    reason: str


@dataclass(frozen=True, slots=True)
class SwitchToPostCopy:
    """Let the VM run on the target now, and its memory follow."""

    task: int
    vm: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class AbortMigration:
    """Ask the source to give up."""

    task: int
    vm: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Carry out one act of the state-pair table. `announced`: the move's own intent says so, so
    that it is committed already."""

    task: int
    act: Act
    vm: str
    source: str
    target: str
    autostart: bool
    announced: bool = False


@dataclass(frozen=True, slots=True)
class SwitchPower:
    """Wake a host or put it to sleep, as intent `intent` announced."""

    task: int
    intent: int
    host: str
    wake: bool


@dataclass(frozen=True, slots=True)
class Conclude:
    """Commit how an intent ended."""

    task: int
    conclusion: Conclusion


@dataclass(frozen=True, slots=True)
class NoteProgress:
    """Note how far a migration is."""

    task: int
    intent: int
    report: JobReport


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Tell people of a VM that waits for them: how it stands, and what they can do."""

    task: int
    vm: str
    detail: str


@dataclass(frozen=True, slots=True)
class EndPlan:
    """Note that the plan is over."""

    plan_id: int
    state: PlanState
    detail: str


Command = (
    Ask
    | Intend
    | StartMigration
    | Watch
    | SetBandwidth
    | SetDowntime
    | SwitchToPostCopy
    | AbortMigration
    | Settle
    | SwitchPower
    | Conclude
    | NoteProgress
    | Unsettled
    | EndPlan
)
