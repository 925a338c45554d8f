"""Counters become rates, and a reading that cannot be true is a doubt, not a rate."""

import math

import pytest

from balancerd.core.load import Doubt, Track, follow_host, follow_vm
from balancerd.core.observation import HostCounters, VMCounters
from balancerd.core.units import GIB


def follow(track: Track | None, at: float, cpu: float | None, host: str = "h1") -> Track | Doubt:
    counters = VMCounters(cpu, 0.0, GIB)
    return follow_vm(track, host, at, counters, size=2.0, core=1.0, window=60.0)


def followed(*readings: tuple[float, float]) -> Track:
    track: Track | Doubt | None = None
    for at, cpu in readings:
        assert not isinstance(track, Doubt)
        track = follow(track, at, cpu)
    assert isinstance(track, Track)
    return track


def test_the_first_reading_gives_no_load() -> None:
    assert followed((0, 100.0)).load is None


def test_a_rate_is_the_difference_of_two_readings_over_their_time() -> None:
    load = followed((0, 100.0), (10, 115.0)).load
    assert load is not None
    assert load.cpu == pytest.approx(1.5)


def test_the_mean_weighs_readings_by_their_time() -> None:
    # 10 s at 2 cores and 30 s at 0: a mean of readings would say 1.0.
    load = followed((0, 0.0), (10, 20.0), (40, 20.0)).load
    assert load is not None
    assert load.cpu_mean == pytest.approx(0.5)


def test_readings_older_than_the_window_do_not_count() -> None:
    load = followed((0, 0.0), (10, 20.0), (80, 20.0), (90, 30.0)).load
    assert load is not None
    assert load.cpu_mean == pytest.approx(10.0 / 80.0)


def test_a_counter_that_went_backwards_starts_a_new_base() -> None:
    track = followed((0, 100.0), (10, 110.0), (20, 5.0))
    assert track.load is not None
    assert track.load.cpu == pytest.approx(1.0), "the last good load stays"
    after = follow(track, 30, 6.0)
    assert isinstance(after, Track)
    assert after.load is not None
    assert after.load.cpu == pytest.approx(0.1)


def test_a_vm_on_another_host_starts_a_new_base_there() -> None:
    """Dies when `track.host != host` is left out: 40 s of CPU in 10 s would be a doubt."""
    arrived = follow(followed((0, 0.0), (10, 10.0)), 20, 50.0, host="h2")
    assert isinstance(arrived, Track)
    assert arrived.host == "h2"
    assert arrived.points == followed((0, 0.0), (10, 10.0)).points


@pytest.mark.parametrize("cpu", [math.nan, math.inf, -1.0, None])
def test_an_impossible_counter_is_a_doubt(cpu: float | None) -> None:
    assert isinstance(follow(followed((0, 0.0)), 10, cpu), Doubt)


def test_more_cpu_than_the_vm_has_is_a_doubt() -> None:
    assert isinstance(follow(followed((0, 0.0)), 10, 60.0), Doubt)


def test_qemus_own_threads_do_not_make_a_doubt_but_do_not_count_beyond_the_size() -> None:
    track = follow(followed((0, 0.0)), 10, 35.0)
    assert isinstance(track, Track)
    assert track.load is not None
    assert track.load.cpu == 2.0


def test_the_same_reading_twice_changes_nothing() -> None:
    track = followed((0, 0.0), (10, 5.0))
    assert follow(track, 10, 5.0) is track


def host(track: Track | None, at: float, busy: float, free: int = GIB) -> Track | Doubt:
    counters = HostCounters(busy, 4 * GIB, free)
    return follow_host(track, "h1", at, counters, cpu=8.0, core=2.0, window=60.0)


def test_a_fast_hosts_busy_time_counts_in_reference_cores() -> None:
    first = host(None, 0, 0.0)
    assert isinstance(first, Track)
    track = host(first, 10, 20.0)
    assert isinstance(track, Track)
    assert track.load is not None
    assert track.load.cpu == pytest.approx(4.0)
    assert track.load.memory == 3 * GIB


def test_a_host_busier_than_all_its_cores_is_a_doubt() -> None:
    first = host(None, 0, 0.0)
    assert isinstance(first, Track)
    assert isinstance(host(first, 10, 50.0), Doubt)


def test_more_free_memory_than_there_is_is_a_doubt() -> None:
    assert isinstance(host(None, 0, 0.0, free=5 * GIB), Doubt)
