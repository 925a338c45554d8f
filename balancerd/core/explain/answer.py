"""What a question is asked about, and what an answer consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Move, Plan, Refusal
from balancerd.core.policies.policy import Policy


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan with all that it was made of; the policy is the one in force at the plan's time."""

    snapshot: Snapshot
    policy: Policy
    history: History
    plan: Plan


@dataclass(frozen=True, slots=True)
class Fact:
    """Something an answer rests on: a sentence, and its numbers with their unit in the key."""

    about: str
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One sentence, and what it rests on."""

    sentence: str
    facts: tuple[Fact, ...] = ()
    moves: tuple[Move, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    change: tuple[str, ...] = ()  # what would have to be done, all of it, for the answer to change
