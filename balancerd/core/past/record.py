"""What is written to the ledger: intents before the act, outcomes after it, requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from balancerd.core.lessons import MODEL_ONLY, Basis
from balancerd.core.model import Method
from balancerd.core.outcome import Against, Outcome

UNSETTLED = "unsettled"  # kind of a line of the audit: people were told of a VM


class IntentKind(StrEnum):
    """The acts that need an intent."""

    MIGRATE = "migrate"
    WAKE = "wake"
    SLEEP = "sleep"


class PlanState(StrEnum):
    """Where a plan stands. The transitions are in `execution.PLAN_TRANSITIONS`."""

    PROPOSED = "proposed"  # waits for approval (mode advise)
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # stopped at its first failure
    SUPERSEDED = "superseded"  # a newer plan, an expired life, or a policy that no longer wants it


class Verb(StrEnum):
    """What an operator may ask of the daemon through the ledger."""

    APPROVE = "approve"  # subject: the plan's id
    REJECT = "reject"  # subject: the plan's id
    DRAIN = "drain"  # subject: a host
    UNDRAIN = "undrain"  # subject: a host
    ABORT = "abort"  # subject: a VM
    HURRY = "hurry"  # subject: a VM; argument force_complete: "yes"
    CLOSE = "close"  # subject: a VM


# What is asked about something that is under way, or waits, at that moment; not about a later one.
OF_THE_MOMENT = frozenset({Verb.APPROVE, Verb.REJECT, Verb.ABORT, Verb.HURRY, Verb.CLOSE})


@dataclass(frozen=True, slots=True)
class Intent:
    """An act about to be done. `id` is 0 until the ledger has given it one."""

    kind: IntentKind
    at: float
    host: str  # the source of a migration; the host of a power action
    vm: str = ""
    uuid: str = ""
    target: str = ""
    method: Method | None = None
    reason: str = ""
    plan: int = 0  # the plan's id in the ledger
    action: int = 0  # the action's number in that plan
    bandwidth: int = 0  # bytes per second
    autostart: bool = False  # of the VM before the move, to be carried over
    target_defined: bool = False  # the target had a definition of the VM before the move
    hand_over: bool = False  # the VM arrives paused: what is announced here is its resumption, too
    predicted_seconds: float = 0.0
    predicted_bytes: int = 0
    predicted_downtime: float = 0.0
    basis: Basis = MODEL_ONLY  # what the predictions rest on
    id: int = 0
    seen: bool = False  # progress was recorded: the job is known to be of this intent


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How an intent ended, with what is known of the migration. None: not told."""

    intent: int
    at: float
    outcome: Outcome
    detail: str = ""
    bytes: int | None = None
    iterations: int | None = None
    downtime: float | None = None
    seconds: float | None = None
    error: str = ""
    error_code: int = 0
    error_domain: int = 0
    adopted: bool = False  # another balancerd process saw the start
    against: Against = Against.MOVE  # what an objection holds for


@dataclass(frozen=True, slots=True)
class Request:
    """Something the operator asked for, until it is answered."""

    id: int
    at: float
    verb: Verb
    subject: str
    by: str
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """The kill switch. While one stands, no intent can be committed."""

    at: float
    by: str
    reason: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Cycle:
    """One completed cycle in one line, and what `balancerctl status` shows of it."""

    at: float
    seconds: float
    sentence: str
    mode: str
    objective: str
    window: str
    hosts_on: int
    hosts_asleep: int
    hosts_unknown: int
    vms: int
    overloaded: int
    frozen: str = ""  # why nothing is done at all; "" when something may be
    plan: int = 0
    plan_seconds: float | None = None  # what planning took; None where nothing was planned
