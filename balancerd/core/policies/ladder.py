"""How a migration that does not converge is pressed to an end, step by step, as the policy says.

Pre-copy goes round by round: what the VM wrote during one is sent in the next. A round that is not
smaller than every one before it is a stall; the ladder says what is done after how many of them.
The default is oVirt's: pauses of 150, 200, 300, 400 and 500 ms after 1, 2, 3, 4 and 6 stalls.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from balancerd.core.observation import JobProgress
from balancerd.core.policies.quantity import Duration, Schema


class Rung(Schema):
    """One step: a longer pause, or something harsher."""

    stalls: Annotated[int, Field(ge=1)] = Field(description="rounds that did not get smaller")
    downtime: Duration | None = Field(None, description="allow a pause so long from now on")
    then: Literal["post-copy", "abort"] | None = Field(
        None, description='instead: "post-copy" where policy and VM allow it, or "abort"'
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.downtime is None) == (self.then is None):
            raise ValueError('needs either "downtime" or "then"')
        return self


def _pauses(*steps: tuple[int, float]) -> tuple[Rung, ...]:
    return tuple(Rung(stalls=stalls, downtime=downtime) for stalls, downtime in steps)


def _end(post_copy: int, abort: int) -> tuple[Rung, ...]:
    return Rung(stalls=post_copy, then="post-copy"), Rung(stalls=abort, then="abort")


_LATENCY = (*_pauses((1, 0.1), (3, 0.15), (5, 0.2)), *_end(7, 9))
_NORMAL = (*_pauses((1, 0.15), (2, 0.2), (3, 0.3), (4, 0.4), (6, 0.5)), *_end(8, 10))
_BATCH = (*_pauses((1, 0.5)), *_end(6, 20))


_DOWNTIME = "the longest pause at first"
_STEP = "what is done after how many stalls, in order"


class Ladder(Schema):
    """What a class of VMs is put up with so that its migrations come to an end."""

    downtime: Duration = Field(0.1, description=_DOWNTIME)
    step: tuple[Rung, ...] = Field(_NORMAL, description=_STEP)

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        stalls = [rung.stalls for rung in self.step]
        if stalls != sorted(stalls):
            raise ValueError("steps must be in the order of their stalls")
        return self


class LatencyLadder(Ladder):
    """For VMs that notice a pause: small steps, and given up rather than stopped for long."""

    downtime: Duration = Field(0.05, description=_DOWNTIME)
    step: tuple[Rung, ...] = Field(_LATENCY, description=_STEP)


class BatchLadder(Ladder):
    """For VMs that nobody waits for: stopped for longer sooner, and given up late."""

    downtime: Duration = Field(0.3, description=_DOWNTIME)
    step: tuple[Rung, ...] = Field(_BATCH, description=_STEP)


class Ladders(Schema):
    """A ladder for each class of VMs; a VM's class is its tag `class`, else "normal"."""

    latency: LatencyLadder = LatencyLadder()
    normal: Ladder = Ladder()
    batch: BatchLadder = BatchLadder()


CLASSES = tuple(Ladders.model_fields)


@dataclass(frozen=True, slots=True)
class Climb:
    """How far up a migration is, and what its rounds were like so far. Sizes in bytes."""

    round: int = 0  # the newest that was seen
    ends_at: int = 0  # what will have been processed when it ends
    smallest: int | None = None  # of all rounds
    stalls: int = 0
    rung: int = 0  # steps that were taken


GROUND = Climb()


def followed(climb: Climb, progress: JobProgress) -> Climb:
    """After news of the job. A round counts once, by its size at its start."""
    ends_at = progress.processed + progress.remaining
    if progress.iteration <= climb.round:
        return replace(climb, ends_at=ends_at)
    size = _first(climb, progress) if climb.smallest is None else _size(climb, progress)
    stalled = climb.smallest is not None and size >= climb.smallest
    return replace(
        climb,
        round=progress.iteration,
        ends_at=ends_at,
        smallest=size if climb.smallest is None else min(size, climb.smallest),
        stalls=climb.stalls + stalled,
    )


def _first(climb: Climb, progress: JobProgress) -> int:
    """All of the memory; disks that were copied before it belong to no round."""
    return max(progress.remaining, progress.total - climb.ends_at)


def _size(climb: Climb, progress: JobProgress) -> int:
    """What the round began with. Some of it was sent before the news came: all that was processed
    since the round before ended; where that cannot be told, what remains has to do."""
    sent = progress.processed - climb.ends_at if progress.iteration == climb.round + 1 else 0
    return progress.remaining + max(0, sent)


def next_rung(climb: Climb, ladder: Ladder) -> Rung | None:
    """The step to take now; None while there is none."""
    if climb.rung >= len(ladder.step):
        return None
    rung = ladder.step[climb.rung]
    return rung if climb.stalls >= rung.stalls else None
