"""Cool-downs and back-offs out of what was done before."""

import random
from itertools import groupby
from operator import attrgetter

import pytest

from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove, rests_until
from balancerd.core.policies.limits import Limits
from balancerd.core.units import doubled

LIMITS = Limits(cooldown=100.0, cooldown_max=1000.0, backoff=10.0)
DAY = 86400.0
ENDLESS = {"per_vm_per_day": 999, "per_vm_per_week": 999}  # a budget that concerns nobody


def past(*moves: tuple[float, Outcome]) -> list[PastMove]:
    return [PastMove("v", "h1", "h2", at, outcome) for at, outcome in moves]


def test_a_vm_that_never_moved_does_not_rest() -> None:
    assert rests_until([], LIMITS) == 0.0


def test_a_vm_that_moved_rests_for_the_cooldown() -> None:
    assert rests_until(past((50, Outcome.DONE)), LIMITS) == 150.0


def test_each_further_move_of_a_week_doubles_the_rest() -> None:
    moves = past((0, Outcome.DONE), (DAY, Outcome.DONE), (2 * DAY, Outcome.DONE))
    assert rests_until(moves, LIMITS) == 2 * DAY + 400.0


def test_moves_older_than_a_week_are_forgotten() -> None:
    assert rests_until(past((0, Outcome.DONE), (8 * DAY, Outcome.DONE)), LIMITS) == 8 * DAY + 100.0


def test_the_rest_has_a_longest() -> None:
    moves = past(*((float(n), Outcome.DONE) for n in range(10)))
    assert rests_until(moves, LIMITS) == 9.0 + 1000.0


def test_a_wait_stays_a_number_after_a_night_of_failures() -> None:
    """Dies without a bound on the exponent: 2 ** 1,024 is no float, and a night has that many."""
    assert doubled(1.0, 5000, 60.0) == 60.0


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.ABORTED])
def test_a_migration_that_failed_counts_as_a_move(outcome: Outcome) -> None:
    """Dies when only what was done counts: a VM that never converges would be sent for ever."""
    assert rests_until(past((0, outcome), (500, outcome)), LIMITS) == 700.0


def test_what_never_started_is_no_move() -> None:
    assert rests_until(past((0, Outcome.NOT_STARTED)), LIMITS) == 0.0


def test_what_is_felt_does_not_depend_on_what_was_asked_before() -> None:
    """Dies if a move that is added is taken in twice, or counts for no VM that was moved before; or
    if a past that was forgotten, or another one of the same length, still counts."""
    rng = random.Random(5)
    whole = tuple(
        PastMove(f"v{rng.randrange(6)}", "h1", "h2", float(at), Outcome.DONE)
        for at in sorted(rng.sample(range(2000), 40))
    )
    pasts = [whole[:n] for n in range(41)] + [whole[n:] for n in range(0, 41, 5)]
    pasts += [whole[: rng.randrange(41)] for _ in range(30)]
    for moves in pasts:
        vms = sorted(moves, key=attrgetter("vm", "at"))
        by_vm = {vm: list(past) for vm, past in groupby(vms, key=attrgetter("vm"))}
        now = rng.uniform(0.0, 4000.0)
        felt = {
            vm: past
            for vm, past in by_vm.items()
            if past[-1].at + 2.0 * doubled(100.0, len(past) - 1, 1000.0) > now
        }
        asked = History(moves)
        assert asked.by_vm() == by_vm
        assert asked.felt(now, LIMITS.model_copy(update=ENDLESS)) == felt
