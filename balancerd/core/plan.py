"""What the planner decides: moves and power actions in order, and why not others. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from balancerd.core.lessons import MODEL_ONLY, Basis
from balancerd.core.model import Method


class Verdict(StrEnum):
    """What an assessment says of a host."""

    OVERLOADED = "overloaded"
    NORMAL = "normal"
    IDLE = "idle"
    DRAINING = "draining"
    ASLEEP = "asleep"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Assessment:
    """One host's verdict with the numbers behind it; utilisations are fractions of capacity."""

    host: str
    verdict: Verdict
    reason: str
    cpu: float = 0.0  # now
    cpu_mean: float = 0.0  # window mean
    cpu_expected: float = 0.0  # forecast with its spread
    memory: float = 0.0  # charged by VMs and overhead
    vms: int = 0
    waiting: float = 0.0  # share of the time that its VMs' vCPUs stood ready and were not run
    shortage: float = 0.0  # bytes of memory that it and its VMs visibly lack


@dataclass(frozen=True, slots=True)
class Move:
    """An intended change. `after`: numbers of the actions that must be done before it starts."""

    number: int  # 1-based, over all actions of the plan
    vm: str
    source: str
    target: str
    method: Method
    reason: str
    wave: int = 1
    after: tuple[int, ...] = ()
    begin: float = 0.0  # predicted, seconds after the plan's first move
    seconds: float = 0.0  # predicted
    bytes: int = 0  # predicted
    downtime: float = 0.0  # predicted, seconds
    score_after: float = 0.0  # the objective's score once this and all earlier moves are done
    parked: bool = False  # an earlier move of this plan parked the VM at the source: no cool-down
    numa: tuple[int, ...] = ()  # NUMA nodes of the target meant for a VM that is bound to some
    set_number: int = 0  # moves of one number start all or none; 0: of no set
    basis: Basis = MODEL_ONLY  # what the predictions rest on, and how far off they may be


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put an empty host to sleep."""

    number: int
    host: str
    reason: str
    wave: int = 1
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake a sleeping host."""

    number: int
    host: str
    reason: str
    wave: int = 1
    after: tuple[int, ...] = ()


Action = Move | Sleep | Wake


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate was not taken: the constraint, its numbers, and what would have to change."""

    vm: str  # "" where it is about a host as a whole: that it is emptied, or sleeps
    host: str  # the target refused; "" where the VM may not move at all
    constraint: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class HostFigures:
    """One host in a plan's table of before and after; fractions of capacity."""

    host: str
    cpu: float
    memory: float
    vms: int
    on: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the independent checker found when it replayed the plan, move by move."""

    steps: int
    violations: tuple[str, ...]  # empty: every intermediate state keeps every rule
    slack: Mapping[str, float]  # smallest distance to each limit over all states, by constraint
    soft_breaks: tuple[str, ...] = ()  # soft rules that are broken at the end, with their cost


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, also when it is "nothing". Scores: smaller is better."""

    at: float
    policy: str  # name of the policy document
    objective: str
    actions: tuple[Action, ...]
    reason: str
    score_before: float
    score_after: float
    assessments: tuple[Assessment, ...] = ()
    before: tuple[HostFigures, ...] = ()
    after: tuple[HostFigures, ...] = ()
    refusals: tuple[Refusal, ...] = ()  # the most telling ones
    refusal_counts: Mapping[str, int] = field(default_factory=dict)  # all, by constraint
    certificate: Certificate | None = None

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves among the actions, in order."""
        return tuple(action for action in self.actions if isinstance(action, Move))
