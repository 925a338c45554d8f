"""What the hours of the day and the week tell of the next hour, and when they are believed."""

from math import cos, pi

import numpy as np
import pytest

from balancerd.core.sensing.forecast import Pasts, expect
from balancerd.core.sensing.profile import HOURS_TOLD, Profile, inflated, recalled
from balancerd.core.units import DAY, HOUR

MONDAY = 4 * DAY  # since the epoch, a Thursday
NAMES = ("a", "b", "c")


def read(days: float, load: np.ndarray) -> Profile:
    """The profile after so many days of readings, four an hour; `load`: hours of a day × VMs."""
    names = tuple(f"v{column}" for column in range(load.shape[1]))
    profile = Profile.none().among(names)
    for quarter in range(round(days * 96)):
        profile = profile.read(
            MONDAY + quarter * HOUR / 4, load[quarter // 4 % len(load)].astype(float)
        )
    return profile


def waves(count: int) -> np.ndarray:
    """VMs that are busiest at noon, some more than others."""
    day = np.array([1.0 - cos(2 * pi * hour / 24) for hour in range(24)])
    return day[:, np.newaxis] * np.linspace(0.5, 2.0, count)


def test_an_hour_tells_nothing_until_it_was_seen_on_two_days() -> None:
    load = waves(3)
    assert np.isnan(read(1.5, load).usual(20)).all()
    assert read(2.5, load).usual(5) == pytest.approx(load[5], rel=1e-5)


def test_what_a_vm_usually_uses_is_the_mean_of_the_last_days_hours() -> None:
    """As soon as two of them were seen. Dies if the hour that is not over yet counts."""
    load = waves(3)
    assert np.isnan(read(1.75 / 24, load).of_a_day()).all()
    assert read(3.5 / 24, load).of_a_day() == pytest.approx(load[:3].mean(axis=0), rel=1e-5)
    assert read(1.5, load).of_a_day() == pytest.approx(load.mean(axis=0), rel=1e-5)


def test_the_day_of_the_week_counts_from_the_second_week_on() -> None:
    """Dies if all days are averaged: Sunday would be as busy as the others."""
    week = np.concatenate([np.full((144, 1), 4.0), np.full((24, 1), 1.0)])
    sunday = int((MONDAY + 6 * DAY) // HOUR) + 12
    assert read(8, week).usual(sunday) == pytest.approx([4.0 * 6 / 7 + 1.0 / 7], rel=0.1)
    assert read(16, week).usual(sunday)[0] < 2.0


def test_a_morning_is_seen_coming_once_two_mornings_came() -> None:
    """Dies if the turn is taken from the level's own hour on, or only of now."""
    load = waves(30)
    profile = read(4 + 8 / 24, load)
    now = MONDAY + 4 * DAY + 8 * HOUR
    rise = profile.turn(now, now, now + HOUR)
    assert profile.whole.share > 0.9
    assert rise == pytest.approx(load[8] - load[7], rel=0.2)


def test_in_the_evening_the_busier_of_now_and_then_is_expected() -> None:
    load = waves(30)
    now = MONDAY + 4 * DAY + 18 * HOUR
    assert read(4.75, load).turn(now, now, now + HOUR) == pytest.approx(np.zeros(30), abs=1e-9)


def test_a_site_without_habits_is_expected_to_stay_as_it_is() -> None:
    """Dies without the trust: averages of noise would be taken for habits."""
    random = np.random.default_rng(1)
    profile = Profile.none().among(tuple(f"v{number}" for number in range(100)))
    level = np.ones(100)
    for hour in range(10 * 24):
        level = 1.0 + 0.8 * (level - 1.0) + random.normal(0.0, 0.1, 100)
        profile = profile.read(MONDAY + hour * HOUR, level)
    now = MONDAY + 10 * DAY
    assert profile.own.share < 0.1
    assert np.abs(profile.turn(now, now, now + HOUR)).mean() < 0.02


@pytest.mark.parametrize(("common", "expected"), [(0.0, 0.0), (0.5, 0.5**2 / (0.5**2 + 1.0))])
def test_how_far_vms_err_together_is_measured(common: float, expected: float) -> None:
    random = np.random.default_rng(2)
    names = tuple(f"v{number}" for number in range(200))
    profile = Profile.none().among(names)
    level = np.full(200, 50.0)
    for hour in range(15 * 24):
        level = level + random.normal(0.0, 1.0, 200) + common * random.normal()
        profile = profile.read(MONDAY + hour * HOUR, level)
    assert profile.together.share == pytest.approx(expected, abs=0.06)


def test_less_than_a_day_says_nothing_of_errors_in_common() -> None:
    profile = read(HOURS_TOLD / 24, waves(30))
    assert profile.together.share == 0.0


def test_what_is_recalled_from_whole_hours_is_what_was_learned_from_readings() -> None:
    load = waves(3)
    learned = read(5, load)
    hours = [
        (MONDAY + hour * HOUR, dict(zip(learned.names, load[hour % 24].tolist(), strict=True)))
        for hour in range(5 * 24 - 1)
    ]
    again = recalled(hours)
    assert np.array_equal(again.cells, learned.cells, equal_nan=True)
    assert again.whole.share == pytest.approx(learned.whole.share)
    assert again.error == pytest.approx(learned.error)


def test_hours_that_are_missing_make_no_turn() -> None:
    """Dies if the hour after a gap is compared with the one before it."""
    hours = [(MONDAY + hour * HOUR, {"a": 1.0}) for hour in range(48)]
    after = recalled([*hours, (MONDAY + 60 * HOUR, {"a": 9.0})])
    assert after.error == pytest.approx([0.0])
    assert after.last == pytest.approx([9.0])


def test_vms_come_and_go() -> None:
    profile = read(3, waves(3))
    kept = profile.among(("v2", "new", "v0"))
    assert kept.usual(12)[0] == profile.usual(12)[2]
    assert np.isnan(kept.usual(12)[1])
    assert np.isnan(kept.error[1])
    assert kept.among(("v2", "new", "v0")) is kept


def test_variances_of_vms_that_are_alike_add_up_with_their_common_part() -> None:
    variances = np.full(10, 4.0)
    covariance = np.full((10, 10), 0.3 * 4.0) + np.diag(np.full(10, 0.7 * 4.0))
    assert inflated(variances, 0.3, 10.0).sum() == pytest.approx(covariance.sum())


def test_an_expected_turn_is_added_to_the_level_within_what_is_possible() -> None:
    pasts = Pasts.of({}).among(NAMES)
    pasts = Pasts(NAMES, np.ones(3), np.ones(3), np.zeros(3), np.full(3, 1e6), *np.zeros((3, 3)))
    found = expect(pasts, np.full(3, 4.0), 1800.0, None, np.array([1.5, -2.0, 9.0]))
    assert found.cpu.tolist() == [2.5, 0.0, 4.0]
