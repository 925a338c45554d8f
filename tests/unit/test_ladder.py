"""What a stall is, and which step of the ladder comes after how many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from balancerd.core.observation import JobProgress
from balancerd.core.policies.ladder import GROUND, Climb, Ladder, Ladders, followed, next_rung

MEMORY, RATE = 1000, 100  # bytes, and bytes per second


def told(sizes: list[int], every: float) -> Climb:
    """Rounds of these sizes at RATE, heard of every so many seconds."""
    climb, processed, at, heard = GROUND, 0, 0.0, every
    for round_, size in enumerate(sizes, start=1):
        lasts = size / RATE
        while heard < at + lasts:
            sent = int((heard - at) * RATE)
            news = JobProgress(MEMORY, processed + sent, size - sent, round_, heard)
            climb = followed(climb, news)
            heard += every
        processed, at = processed + size, at + lasts
    return climb


@pytest.mark.parametrize("every", [0.1, 0.5, 0.9])
def test_rounds_that_get_smaller_are_no_stalls(every: float) -> None:
    assert told([1000, 800, 640, 512, 400, 300], every).stalls == 0


@pytest.mark.parametrize("every", [0.1, 0.5, 0.9])
def test_each_round_that_is_no_smaller_than_all_before_it_is_a_stall(every: float) -> None:
    """Dies when what remains is compared as it was heard of: some of a round is sent by then."""
    assert told([1000, 500, 500, 400, 600, 400], every).stalls == 3


def test_a_round_counts_once_however_often_it_is_heard_of() -> None:
    climb = told([1000, 1000], 0.01)
    assert (climb.round, climb.stalls) == (2, 1)


def test_disks_that_were_copied_before_the_memory_belong_to_no_round() -> None:
    """Dies when the first round counts as large as both together: whatever came after it would be
    smaller, and the first stall would be none."""
    climb = followed(GROUND, JobProgress(9000, 8000, 1000, 0, 1.0))
    climb = followed(climb, JobProgress(10_000, 9100, 900, 1, 2.0))
    climb = followed(climb, JobProgress(10_000, 10_000, 1000, 2, 3.0))
    assert climb.stalls == 1


@given(st.lists(st.integers(60, MEMORY), min_size=2, max_size=12), st.floats(0.05, 0.5))
def test_stalls_are_what_oVirt_counts(sizes: list[int], every: float) -> None:  # noqa: N802
    """Rounds after the first that did not get below the smallest before them."""
    rounds = [MEMORY, *sizes]
    stalls = sum(size >= min(rounds[:n]) for n, size in enumerate(rounds) if n)
    close = sum(abs(size - min(rounds[:n])) <= 1 for n, size in enumerate(rounds) if n)
    assert abs(told(rounds, every).stalls - stalls) <= close  # bytes are whole


def test_the_default_is_ovirts_ladder() -> None:
    steps = [(rung.stalls, rung.downtime) for rung in Ladder().step if rung.downtime]
    assert steps == [(1, 0.15), (2, 0.2), (3, 0.3), (4, 0.4), (6, 0.5)]
    assert Ladder().downtime == 0.1
    assert [rung.then for rung in Ladder().step[-2:]] == ["post-copy", "abort"]


def test_a_step_is_due_once_there_are_enough_stalls() -> None:
    ladder = Ladder()
    assert next_rung(Climb(stalls=0), ladder) is None
    assert next_rung(Climb(stalls=5, rung=4), ladder) is None
    assert next_rung(Climb(stalls=6, rung=4), ladder) == ladder.step[4]
    assert next_rung(Climb(stalls=99, rung=len(ladder.step)), ladder) is None


@pytest.mark.parametrize(
    "steps",
    [
        [{"stalls": 1}],
        [{"stalls": 1, "downtime": 0.1, "then": "abort"}],
        [{"stalls": 2, "downtime": 0.1}, {"stalls": 1, "then": "abort"}],
        [{"stalls": 0, "downtime": 0.1}],
    ],
)
def test_a_ladder_that_makes_no_sense_is_refused(steps: list[dict[str, object]]) -> None:
    with pytest.raises(ValidationError):
        Ladder.model_validate({"step": steps})


def test_no_class_waits_longer_than_a_gentler_one() -> None:
    ladders = Ladders()
    tops = [
        max(rung.downtime or 0.0 for rung in ladder.step)
        for ladder in (ladders.latency, ladders.normal, ladders.batch)
    ]
    assert tops == sorted(tops)
