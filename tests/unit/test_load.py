"""Counters become rates, and a reading that cannot be true is a doubt, not a rate."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.core.columns import Loads
from balancerd.core.model import Host, Load
from balancerd.core.observation import HostCounters, VMCounters, VMReading
from balancerd.core.sensing.counters import Doubt, Seen, seen_hosts, seen_vms
from balancerd.core.sensing.load import Tracks, follow
from balancerd.core.sensing.whereabouts import whereabouts
from balancerd.core.units import GIB, MIB
from tests.readings import host_reading, vm_reading

HOSTS = {name: Host(name, 8.0, 4 * GIB, cores=8) for name in ("h1", "h2")}


def seen_on(host: str, at: float, *vms: VMReading) -> tuple[Seen, dict[str, Doubt]]:
    """The counters of VMs on one host."""
    shown = [host_reading(host, at, *vms)]
    return seen_vms(whereabouts(shown, {host}), shown, HOSTS)


class Watched:
    """One VM of 2 cores, and what a window of 60 s shows of it."""

    def __init__(self) -> None:
        self.tracks = Tracks.none()

    def see(self, at: float, cpu: float | None, host: str = "h1") -> Doubt | None:
        """Read it once more; the doubt there is about the reading."""
        reading = replace(vm_reading("a"), counters=VMCounters(cpu, 0.0, GIB))
        seen, doubts = seen_on(host, at, reading)
        self.tracks, more = follow(self.tracks, seen, 60.0)
        return (doubts | more).get("a")

    @property
    def load(self) -> Load | None:
        """The load as it is known now."""
        load = self.tracks.loads["a"]
        return None if math.isnan(load.cpu) else load


def followed(*readings: tuple[float, float]) -> Watched:
    vm = Watched()
    for at, cpu in readings:
        assert vm.see(at, cpu) is None
    return vm


def load_after(*readings: tuple[float, float]) -> Load:
    load = followed(*readings).load
    assert load is not None
    return load


def test_the_first_reading_gives_no_load() -> None:
    assert followed((0, 100.0)).load is None


def test_a_rate_is_the_difference_of_two_readings_over_their_time() -> None:
    assert load_after((0, 100.0), (10, 115.0)).cpu == pytest.approx(1.5)


def test_the_mean_weighs_readings_by_their_time() -> None:
    # 10 s at 2 cores and 30 s at 0: a mean of readings would say 1.0.
    load = load_after((0, 0.0), (10, 20.0), (40, 20.0))
    assert load.cpu_mean == pytest.approx(0.5)
    assert (load.readings, load.since) == (2, 0.0)


def test_readings_older_than_the_window_do_not_count() -> None:
    load = load_after((0, 0.0), (10, 20.0), (80, 20.0), (90, 30.0))
    assert load.cpu_mean == pytest.approx(10.0 / 80.0)
    assert (load.readings, load.since) == (2, 10.0)


def test_without_a_window_the_newest_rate_is_the_mean() -> None:
    """Dies when a point that ends as the window begins is left out though it is the newest."""
    vm = vm_reading("a")
    first, _ = seen_on("h1", 0.0, replace(vm, counters=VMCounters(2.0)))
    then, _ = seen_on("h1", 10.0, replace(vm, counters=VMCounters(7.0)))
    before, _ = follow(Tracks.none(), first, 0.0)
    after, _ = follow(before, then, 0.0)
    assert after.loads["a"].cpu_mean == pytest.approx(0.5)


def test_a_counter_that_went_backwards_starts_a_new_base() -> None:
    vm = followed((0, 100.0), (10, 110.0), (20, 5.0))
    assert vm.load is not None
    assert vm.load.cpu == pytest.approx(1.0), "the last good load stays"
    vm.see(30, 6.0)
    assert vm.load.cpu == pytest.approx(0.1)


def test_a_vm_on_another_host_starts_a_new_base_there() -> None:
    """Dies when the place is left out: 40 s of CPU in 10 s would be a doubt."""
    vm = followed((0, 0.0), (10, 10.0))
    assert vm.see(20, 50.0, host="h2") is None
    assert vm.tracks.place == ("h2",)
    assert vm.load is not None
    assert vm.load.cpu == 1.0, "what was measured before stays"


@pytest.mark.parametrize("cpu", [math.nan, math.inf, -1.0, None])
def test_an_impossible_counter_is_a_doubt_and_changes_nothing(cpu: float | None) -> None:
    vm = followed((0, 0.0), (10, 5.0))
    doubt = vm.see(20, cpu)
    assert doubt is not None
    assert doubt.missing is (cpu is None)
    assert vm.load == load_after((0, 0.0), (10, 5.0))
    assert vm.tracks.at[0] == 10.0


@pytest.mark.parametrize(
    "counters", [VMCounters(0.0, math.nan, GIB), VMCounters(0.0, 0.0, -1), VMCounters(0.0, -1.0)]
)
def test_an_impossible_figure_beside_the_cpu_time_is_a_doubt_too(counters: VMCounters) -> None:
    _, doubts = seen_on("h1", 0.0, replace(vm_reading("a"), counters=counters))
    assert doubts.keys() == {"a"}


def test_more_cpu_than_the_vm_has_is_a_doubt() -> None:
    assert followed((0, 0.0)).see(10, 60.0) == Doubt("used 6.0 cores of 2.0")


def test_qemus_own_threads_do_not_make_a_doubt_but_do_not_count_beyond_the_size() -> None:
    assert load_after((0, 0.0), (10, 35.0)).cpu == 2.0


def test_the_same_reading_twice_changes_nothing() -> None:
    vm = followed((0, 0.0), (10, 5.0))
    before = vm.load
    vm.see(10, 7.0)
    assert vm.load == before
    assert vm.tracks.cpu_seconds[0] == 5.0


def test_what_is_not_told_is_not_zero() -> None:
    load = load_after((0, 0.0), (10, 5.0))
    assert (load.network, load.block, load.dirty_rate) == (None, None, None)


def test_bytes_and_waiting_become_rates() -> None:
    tracks = Tracks.none()
    for at, counters in (
        (0.0, VMCounters(0.0, 1.0, GIB, 100, 1000, 7.0)),
        (10.0, VMCounters(5.0, 3.0, 2 * GIB, 600, 900, 8.0)),
    ):
        seen, _ = seen_on("h1", at, replace(vm_reading("a"), counters=counters))
        tracks, _ = follow(tracks, seen, 60.0)
    load = tracks.loads["a"]
    assert load.steal == pytest.approx(0.1), "2 s of 10 s on each of 2 vCPUs"
    assert load.network == pytest.approx(50.0)
    assert load.block is None, "its counter was reset"
    assert load.memory == 2 * GIB
    assert load.dirty_rate == 8.0


@pytest.mark.parametrize(
    ("swapped", "ballooned", "shortage"),
    [
        (5 * MIB, 4 * GIB, 2.0 * GIB),  # half a MiB a second
        (900 * MIB, 4 * GIB, 4.0 * GIB),
        (900 * MIB, 0, 0.0),  # too small a guest: a balloon has nothing of its
        (0, 4 * GIB, 0.0),  # it does without
        (None, 4 * GIB, 0.0),
        (900 * MIB, None, 0.0),
    ],
)
def test_a_guest_that_swaps_lacks_what_its_balloon_holds(
    swapped: int | None, ballooned: int | None, shortage: float
) -> None:
    tracks = Tracks.none()
    for at, counters in (
        (0.0, VMCounters(0.0, swapped=0, ballooned=0)),
        (10.0, VMCounters(5.0, swapped=swapped, ballooned=ballooned)),
    ):
        seen, _ = seen_on("h1", at, replace(vm_reading("a"), counters=counters))
        tracks, _ = follow(tracks, seen, 60.0)
    assert tracks.loads["a"].shortage == pytest.approx(shortage)


def test_a_host_lacks_what_it_uses_for_as_long_as_tasks_wait_for_memory() -> None:
    tracks = Tracks.none()
    for at, stalled in ((0.0, 7.0), (10.0, 8.0)):
        told = {"h1": (at, HostCounters(at, 4 * GIB, GIB, stalled))}
        tracks, _ = follow(tracks, seen_hosts(told, HOSTS)[0], 60.0)
    assert tracks.loads["h1"].shortage == pytest.approx(0.1 * 3 * GIB)


def test_tracks_follow_their_names_when_others_come_and_go() -> None:
    """Dies when rows are taken for names: b would be measured from a's counters."""
    tracks = Tracks.none()
    for at, names in ((0.0, "ab"), (10.0, "bc"), (20.0, "abc")):
        vms = [replace(vm_reading(n), counters=VMCounters(at * (ord(n) - 96) / 3)) for n in names]
        seen, _ = seen_on("h1", at, *vms)
        tracks, doubts = follow(tracks, seen, 60.0)
        assert not doubts
    assert math.isnan(tracks.loads["a"].cpu), "it was away, and begins anew"
    assert tracks.loads["b"].cpu == pytest.approx(2 / 3)
    assert (tracks.loads["b"].readings, tracks.loads["c"].readings) == (2, 1)


def test_a_vm_that_cannot_be_read_keeps_its_load() -> None:
    vm = followed((0, 0.0), (10, 5.0))
    before = vm.load
    shown = [host_reading("h1", 0.0, vm_reading("a", cpu_seconds=1e9))]
    seen, doubts = seen_vms(whereabouts(shown, fresh=()), shown, HOSTS)
    vm.tracks, _ = follow(vm.tracks, seen, 60.0)
    assert (vm.load, doubts) == (before, {})


FAST = {"h1": Host("h1", 8.0, 4 * GIB, cores=4)}


def host(tracks: Tracks, at: float, busy: float, free: int = GIB) -> tuple[Tracks, bool]:
    """One more reading of a host with 4 cores of speed 2; whether it is believed."""
    counters = HostCounters(busy, 4 * GIB, free)
    seen, doubts = seen_hosts({"h1": (at, counters)}, FAST)
    tracks, more = follow(tracks, seen, 60.0)
    return tracks, not (doubts or more)


def test_a_fast_hosts_busy_time_counts_in_reference_cores() -> None:
    first, _ = host(Tracks.none(), 0, 0.0)
    tracks, _ = host(first, 10, 20.0)
    assert tracks.loads["h1"].cpu == pytest.approx(4.0)
    assert tracks.loads["h1"].memory == 3 * GIB


def test_a_host_busier_than_all_its_cores_is_a_doubt() -> None:
    first, _ = host(Tracks.none(), 0, 0.0)
    assert not host(first, 10, 50.0)[1]


def test_a_host_that_was_started_anew_has_no_load_until_it_was_read_twice() -> None:
    tracks, _ = host(Tracks.none(), 0, 0.0)
    tracks, _ = host(tracks, 10, 20.0)
    tracks, _ = host(tracks, 20, 1.0)
    assert math.isnan(tracks.loads["h1"].cpu)
    tracks, _ = host(tracks, 30, 11.0)
    assert tracks.loads["h1"].cpu_mean == pytest.approx(2.0), "what was before does not count"


def test_what_was_measured_before_a_change_can_be_forgotten() -> None:
    tracks, _ = host(Tracks.none(), 0, 0.0)
    tracks, _ = host(tracks, 10, 30.0)
    tracks, _ = host(tracks.forget(["h1", "unknown"]), 20, 40.0)
    assert tracks.loads["h1"].cpu_mean == pytest.approx(2.0)


def test_more_free_memory_than_there_is_is_a_doubt() -> None:
    assert not host(Tracks.none(), 0, 0.0, free=5 * GIB)[1]


_rates = st.none() | st.floats(0, 1e9)
_loads = st.builds(
    Load,
    cpu=st.floats(0, 100),
    cpu_mean=st.floats(0, 100),
    memory=st.integers(0, 2**50),
    steal=st.floats(0, 1),
    network=_rates,
    block=_rates,
    readings=st.integers(0, 100),
    since=st.floats(0, 2e9),
    dirty_rate=_rates,
    shortage=st.floats(0, 2**50),
)


@given(st.dictionaries(st.text(max_size=3), _loads), st.data())
def test_a_table_of_loads_is_the_mapping_it_was_made_of(
    loads: dict[str, Load], data: st.DataObject
) -> None:
    """Dies when a column is left out or two are exchanged, in `of`, an item, or `only`."""
    table = Loads.of(loads)
    assert table == loads
    assert Loads.of(table) is table
    kept = [data.draw(st.booleans()) for _ in loads]
    some = {name: load for (name, load), keep in zip(loads.items(), kept, strict=True) if keep}
    assert table.only(np.array(kept, dtype=np.bool_)) == some
