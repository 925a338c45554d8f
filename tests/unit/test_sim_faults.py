"""Faults of a simulated site: each does what it says, for as long as it says, by its seed."""

from itertools import pairwise
from math import isnan
from typing import Any, TypeAlias

import pytest

from balancerd.adapters.sim import endings
from balancerd.adapters.sim.copies import Ending
from balancerd.adapters.sim.faults import SKEWS
from balancerd.adapters.sim.world import World
from balancerd.core.executing.reconcile import judge
from balancerd.core.model import Method
from balancerd.core.observation import JobProgress, Presence
from balancerd.core.outcome import Outcome
from balancerd.ports import BackendError
from tests.worlds import (
    a_flavour,
    a_host_group,
    a_scenario,
    a_world,
    counters,
    live,
    presences,
    reading,
    send,
    used,
    watched,
)

Fault: TypeAlias = dict[str, Any]  # as a scenario's file has it


def struck(*faults: Fault, **changes: Any) -> World:
    return a_world(a_scenario(faults=list(faults), **changes))


def at(kind: str, host: str, begin: float, lasts: float) -> Fault:
    return {"kind": kind, "host": host, "at": float(begin), "lasts": float(lasts)}


def test_a_crashed_host_takes_its_vms_down_and_starts_them_when_it_is_back() -> None:
    world = struck(at("host-crash", "a1", 10, 100))
    live(world, 11)
    assert world.running("v0") == ()
    assert world.states(["a1"])["a1"].value == "off"
    live(world, 100 + 120)
    assert (world.running("v0"), world.running("v1")) == (("a1",), ("a1",))
    assert world.accounts.unserved[0] == pytest.approx(220.0, abs=0.01)
    assert world.violations == []


def test_a_target_that_crashes_leaves_the_vm_on_its_source() -> None:
    world = struck(at("host-crash", "a2", 5, 100))
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 60)
    assert end.error_code == 1
    assert world.running("v0") == ("a1",)


def test_an_unreachable_host_says_nothing_and_its_vms_go_on() -> None:
    world = struck(at("unreachable", "a1", 10, 50))
    live(world, 20)
    assert reading(world, "a1").error
    assert presences(world, "v0", "a1") == (Presence.UNREACHABLE,)
    with pytest.raises(BackendError):
        send(world, "v0", "a1", "a2")
    live(world, 50)
    assert used(reading(world, "a1").vms[0]) == pytest.approx(70.0)


def test_a_migration_from_a_host_that_hangs_is_lost_sight_of_and_ends_well() -> None:
    """The caller is told of an error, once; the VM arrives all the same."""
    world = struck(at("unreachable", "a1", 5, 50))
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 60)
    assert end.error == endings.SIGHT_LOST[0]
    assert world.running("v0") == ("a2",)


def test_a_migration_to_a_host_that_hangs_is_given_up_and_its_half_stays_for_a_while() -> None:
    world = struck(at("unreachable", "a2", 5, 60), network={"host": 10})
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 70)
    assert end.at == pytest.approx(world.site.scenario.start + 5 + endings.KEEPALIVE)
    assert presences(world, "v0", "a1", "a2") == (Presence.RUNNING, Presence.INCOMING)
    live(world, 60)
    assert presences(world, "v0", "a1", "a2") == (Presence.RUNNING, Presence.ABSENT)


def test_a_target_that_hangs_for_less_than_the_keepalive_is_not_noticed() -> None:
    world = struck(at("unreachable", "a2", 5, endings.KEEPALIVE - 1), network={"host": 10})
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 120)
    assert (end.error, world.running("v0")) == ("", ("a2",))


def test_giving_up_one_migration_does_not_touch_the_next_of_its_vm() -> None:
    world = struck(at("unreachable", "a2", 5, 60), network={"host": 10})
    send(world, "v0", "a1", "a2")
    live(world, 8)
    world.abort("v0", "a1")
    send(world, "v0", "a1", "a3")
    assert [end.error_code for end in live(world, 120)] == [78, 0]
    assert world.running("v0") == ("a3",)


def test_a_half_that_was_left_over_does_not_outlive_its_host() -> None:
    world = struck(at("daemon-killed", "a2", 5, 3), at("host-crash", "a2", 9, 50))
    send(world, "v0", "a1", "a2")
    live(world, 9)
    live(world, 300)
    assert presences(world, "v0", "a1", "a2") == (Presence.RUNNING, Presence.ABSENT)


def test_a_killed_daemon_ends_its_migrations_and_leaves_its_vms() -> None:
    world = struck(at("daemon-killed", "a1", 5, 3))
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 20)
    assert end.error_code == 38
    assert presences(world, "v0", "a1", "a2") == (Presence.RUNNING, Presence.ABSENT)


def test_a_daemon_killed_between_switch_over_and_end_leaves_a_paused_source() -> None:
    """Over all seeds the target sometimes runs and sometimes is gone: nobody can tell by the
    error."""
    found = set()
    for seed in range(12):
        world = struck(at("daemon-killed", "a1", 11, 3), migration={"switch_over": 5.0}, seed=seed)
        send(world, "v0", "a1", "a2")
        (end,) = live(world, 20)
        assert end.error_code == 38
        found.add(presences(world, "v0", "a1", "a2"))
    outgoing = Presence.OUTGOING
    assert found == {(outgoing, Presence.RUNNING), (outgoing, Presence.ABSENT)}


def test_a_cut_network_tells_nothing_and_only_stops_the_bytes() -> None:
    world = struck(at("network-cut", "a2", 5, 40))
    send(world, "v0", "a1", "a2")
    seen: list[JobProgress | None] = []
    for _ in range(8):
        world.advance(world.now() + 5)
        seen += [report.progress for report in world.reports()]
    assert [progress and progress.processed for progress in seen] == [500] * 8
    (end,) = live(world, 20)
    assert end.error == ""
    assert end.seconds == pytest.approx(50.0, abs=1e-5)


def test_a_full_target_refuses_and_nobody_is_to_blame() -> None:
    world = struck(at("target-full", "a2", 0, 100))
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 1)
    assert "memory" in end.error
    assert (world.running("v0"), world.violations) == (("a1",), [])


def test_a_host_that_does_not_boot_goes_off_again() -> None:
    world = struck(at("power-on-fails", "a3", 0, 300), power={"boot": 120.0, "shutdown": 0.0})
    world.sleep("a3")
    world.wake("a3")
    live(world, 121)
    assert world.states(["a3"])["a3"].value == "off"
    live(world, 200)
    world.wake("a3")
    live(world, 121)
    assert world.states(["a3"])["a3"].value == "on"


def test_frozen_counters_stand_still_with_fresh_times() -> None:
    world = struck(at("frozen-counters", "a1", 10, 100))
    live(world, 20)
    first = reading(world, "a1")
    live(world, 50)
    second = reading(world, "a1")
    assert first.counters is not None
    assert (second.counters, second.vms) == (first.counters, first.vms)
    assert second.at == first.at + 50
    live(world, 50)
    assert counters(world, "a1").cpu_busy > first.counters.cpu_busy


def test_frozen_counters_do_not_hide_who_left() -> None:
    """Kills: replaying the whole reading, in which a VM that left still runs."""
    world = struck(at("frozen-counters", "a1", 10, 100))
    live(world, 20)
    reading(world, "a1")
    send(world, "v0", "a1", "a2")
    live(world, 20)
    assert [vm.vm.name for vm in reading(world, "a1").vms] == ["v1"]


def test_absurd_readings_cannot_be_true() -> None:
    absurd = set()
    for seed in range(40):
        world = struck(at("absurd-reading", "a1", 10, 100), seed=seed)
        live(world, 20)
        told = counters(world, "a1")
        absurd.add(
            isnan(told.cpu_busy)
            or told.cpu_busy < 0
            or told.cpu_busy > 1e9
            or told.memory_available > told.memory_total
        )
    assert absurd == {True}


@pytest.mark.parametrize("phase", ["start", "perform", "gap", "finish"])
def test_a_migration_that_fails_ends_once_and_at_most_one_copy_runs(phase: str) -> None:
    for seed in range(30):
        world = struck({"kind": "migration-fails", "phase": phase}, seed=seed)
        send(world, "v0", "a1", "a2")

        def at_most_one(world: World = world) -> None:
            assert len(world.running("v0")) <= 1

        ends = watched(world, 60, at_most_one)
        assert len(ends) == 1
        assert ends[0].error or phase == "finish"
        assert world.violations == []


def test_without_disk_locks_a_vm_may_come_to_run_twice() -> None:
    runs = set()
    for seed in range(40):
        world = struck(
            {"kind": "migration-fails", "phase": "gap"},
            migration={"disk_locks": False},
            seed=seed,
        )
        send(world, "v0", "a1", "a2")
        live(world, 60)
        runs.add(world.running("v0"))
    assert runs == {(), ("a1",), ("a2",), ("a1", "a2")}


def every_ending() -> list[Ending]:
    everything = (*endings.PERFORM, *endings.GAP_WITHOUT_LOCKS, *endings.FINISH)
    return [ending for ending in everything if isinstance(ending, Ending)]


@pytest.mark.parametrize("ending", every_ending(), ids=lambda e: f"{e.source} + {e.target}")
def test_the_state_pair_table_can_settle_every_ending(ending: Ending) -> None:
    """What the world leaves behind, `reconcile` knows what to make of, once the half is gone."""
    finding = judge(ending.source, ending.target, waited=61.0)
    assert finding.outcome is not None


def test_faults_at_random_times_come_by_their_seed() -> None:
    def outages(seed: int) -> list[tuple[bool, ...]]:
        world = struck(
            {"kind": "unreachable", "per_day": 200.0, "lasts": 60.0}, seed=seed, duration=7200.0
        )
        seen = []
        for _ in range(120):
            world.advance(world.now() + 60)
            seen.append(tuple(bool(r.error) for r in world.observe().readings))
        return seen

    assert outages(1) == outages(1)
    assert outages(1) != outages(2)
    began = sum(
        any(b and not a for a, b in zip(x, y, strict=True)) for x, y in pairwise(outages(1))
    )
    assert 4 < began < 40  # 200 a day are 17 in two hours


def test_the_chance_is_the_share_of_migrations_that_fail() -> None:
    failing = {"kind": "migration-fails", "phase": "start", "chance": 0.25}
    world = struck(
        failing,
        hosts=[a_host_group(memory=10**9)],
        vms={"name": "v%d", "count": 1},
        flavours=[a_flavour(memory=1)],
    )
    failed = 0
    for _ in range(400):
        (source,) = world.running("v0")
        send(world, "v0", source, "a2" if source != "a2" else "a3")
        (end,) = live(world, 1)
        failed += bool(end.error)
    assert 70 < failed < 130


def in_post_copy(*faults: Fault, **changes: Any) -> World:
    """A VM that runs on a2 since 5 s, and half of whose memory is on a1 until 15 s."""
    world = struck(*faults, flavours=[a_flavour(dirty_rate=40)], **changes)
    send(world, "v0", "a1", "a2", method=Method.POST_COPY)
    live(world, 5)
    world.switch_to_post_copy("v0", "a1")
    assert presences(world, "v0", "a1", "a2") == (Presence.RUNNING_WITH_JOB, Presence.POSTCOPY)
    return world


TORN = [
    (at("host-crash", "a2", 6, 900), (Presence.POSTCOPY_FAILED, Presence.UNREACHABLE)),
    (at("host-crash", "a1", 6, 900), (Presence.UNREACHABLE, Presence.POSTCOPY_FAILED)),
]


@pytest.mark.parametrize(("fault", "said"), TORN)
def test_a_host_that_dies_in_post_copy_takes_the_vm_with_it(
    fault: Fault, said: tuple[Presence, Presence]
) -> None:
    """Dies when the VM is back on its source, as after pre-copy."""
    world = in_post_copy(fault)
    (end,) = live(world, 60)
    assert end.error_code in (1, 38)
    assert (presences(world, "v0", "a1", "a2"), world.running("v0")) == (said, ())


@pytest.mark.parametrize(
    ("at_source", "said"),
    [
        (True, (Presence.CRASHED, Presence.FAILED)),
        (False, (Presence.POSTCOPY_FAILED, Presence.CRASHED)),
    ],
)
def test_a_process_that_dies_in_post_copy_takes_the_vm_with_it(
    at_source: bool, said: tuple[Presence, Presence]
) -> None:
    world = in_post_copy()
    world.hand.crash("v0", at_source=at_source)
    (end,) = live(world, 60)
    assert (end.error_code, presences(world, "v0", "a1", "a2")) == (9, said)
    assert judge(*said, waited=0).outcome is Outcome.LOST
    world.hand.start("v0", "a1")  # whoever starts it again ends what is left of it
    assert world.running("v0") == ("a1",)
    assert Presence.POSTCOPY_FAILED not in world.copies("v0").values()


def test_a_source_daemon_killed_in_post_copy_loses_sight_of_what_goes_on() -> None:
    """Dies when a daemon takes the VM with it: only who watched is told of an error."""
    world = in_post_copy(at("daemon-killed", "a1", 6, 1))
    (end,) = live(world, 3)
    assert end.error_code == 38
    assert presences(world, "v0", "a1", "a2") == (Presence.OUTGOING, Presence.POSTCOPY)
    live(world, 60)
    assert presences(world, "v0", "a1", "a2") == (Presence.MIGRATED, Presence.RUNNING)


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (1, (Presence.POSTCOPY_FAILED, Presence.FAILED)),
        (30, (Presence.MIGRATED, Presence.RUNNING)),
    ],
)
def test_a_target_daemon_that_is_back_before_all_memory_is_there_ends_the_vm(
    away: float, said: tuple[Presence, Presence]
) -> None:
    """As the lab has it."""
    world = in_post_copy(at("daemon-killed", "a2", 6, away))
    (end,) = live(world, 60)
    assert (end.error_code, presences(world, "v0", "a1", "a2")) == (1, said)


def test_nobody_aborts_a_post_copy_by_hand() -> None:
    world = in_post_copy()
    world.hand.abort("v0")
    (end,) = live(world, 60)
    assert (end.error, world.running("v0")) == ("", ("a2",))


def test_a_link_cut_in_post_copy_delays_it_or_breaks_it_off_until_it_is_recovered() -> None:
    found = set()
    for seed in range(8):
        world = in_post_copy(at("network-cut", "a2", 6, 60), seed=seed)
        live(world, 55)
        told = presences(world, "v0", "a1", "a2")
        found.add(told)
        world.hand.recover("v0")  # in vain, while the link is down
        assert presences(world, "v0", "a1", "a2") == told
        live(world, 15)
        world.hand.recover("v0")
        live(world, 60)
        assert presences(world, "v0", "a1", "a2")[1] is Presence.RUNNING
    assert found == {
        (Presence.RUNNING_WITH_JOB, Presence.POSTCOPY),
        (Presence.POSTCOPY_FAILED, Presence.POSTCOPY_FAILED),
    }


@pytest.mark.parametrize("begin", [0, 5])
def test_a_target_without_room_for_the_disk_fails_the_copy_and_leaves_the_vm(begin: float) -> None:
    world = struck(at("storage-full", "a2", begin, 900), flavours=[a_flavour(local_disk=4000)])
    live(world, 1)
    send(world, "v0", "a1", "a2", method=Method.STORAGE)
    send(world, "v1", "a1", "a3", method=Method.STORAGE)
    first, second = live(world, 200)
    assert (first.error, first.error_code) == (endings.NO_SPACE.error, 9)
    assert (second.error, world.running("v0"), world.running("v1")) == ("", ("a1",), ("a3",))


def test_a_migration_without_its_disk_is_refused() -> None:
    world = struck(flavours=[a_flavour(local_disk=4000)])
    world.hand.migrate("v1", "a2")  # an operator knows how
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 30)
    assert (end.error, world.running("v0")) == (endings.NO_DISK[0], ("a1",))
    assert [one.kind for one in world.violations] == ["sent without its disks"]


def test_a_definition_that_was_on_the_target_before_outlives_a_failed_arrival() -> None:
    world = struck(at("daemon-killed", "a1", 5, 3))
    world.hand.define("v0", "a2")
    send(world, "v0", "a1", "a2")
    live(world, 2)
    assert presences(world, "v0", "a2") == (Presence.INCOMING,)
    live(world, 20)
    assert presences(world, "v0", "a1", "a2") == (Presence.RUNNING, Presence.SHUTOFF)


def test_a_flag_to_start_with_the_host_is_not_taken_along() -> None:
    world = struck(flavours=[a_flavour(autostart=True)])
    assert reading(world, "a1").vms[0].vm.autostart
    send(world, "v0", "a1", "a2")
    live(world, 30)
    assert not reading(world, "a2").vms[0].vm.autostart
    world.set_autostart("v0", "a2", autostart=True)
    assert reading(world, "a2").vms[0].vm.autostart


def test_a_host_that_hangs_in_its_shutdown_is_on_again() -> None:
    world = struck(at("power-off-fails", "a3", 0, 900))
    world.sleep("a3")
    live(world, 60)
    assert world.states(["a3"])["a3"].value == "on"


def test_what_befalls_a_post_copy_does_so_before_it_has_ended() -> None:
    """Dies when the blow comes so late that the VM has arrived by then."""
    found = set()
    for seed in range(12):
        world = in_post_copy({"kind": "migration-fails", "phase": "post-copy"}, seed=seed)
        (end,) = live(world, 60)
        assert end.error
        found.add(presences(world, "v0", "a1", "a2"))
    assert found == {
        (Presence.CRASHED, Presence.FAILED),
        (Presence.POSTCOPY_FAILED, Presence.CRASHED),
        (Presence.POSTCOPY_FAILED, Presence.POSTCOPY_FAILED),
        (Presence.MIGRATED, Presence.RUNNING),
    }


def test_a_host_whose_clock_is_set_shows_it_before_a_migration_and_only_for_as_long() -> None:
    world = struck(at("clock-set", "a2", 5, 60))
    told, shown = [world.preflight("v0", "", "a1", "a2", Method.PRE_COPY).skew], []
    for seconds in (10, 60):
        live(world, seconds)
        told.append(world.preflight("v0", "", "a1", "a2", Method.PRE_COPY).skew)
        facts = reading(world, "a2").facts
        shown.append(facts and facts.clock)
    assert told[0] == told[2] == 0.0
    assert told[1] in SKEWS
    assert shown == [float(round(told[1])), None]
    assert world.preflight("v0", "", "a1", "a3", Method.PRE_COPY).skew == 0.0


def test_a_changed_base_image_shows_and_ruins_the_disk_that_is_put_on_it() -> None:
    """Dies when nobody is blamed for that: no state of either host tells of it."""
    based = a_flavour(local_disk=1000, on_top=100)
    world = struck(at("base-changed", "a2", 5, 60), flavours=[based])
    live(world, 10)
    for target, same in (("a2", False), ("a3", True)):
        found = world.preflight("v0", "", "a1", target, Method.OVERLAY).overlays
        assert found is not None
        assert (found.bases[0].here == found.bases[0].there) is same
    send(world, "v0", "a1", "a3", method=Method.OVERLAY)
    assert world.violations == []
    send(world, "v1", "a1", "a2", method=Method.OVERLAY)
    assert [violation.kind for violation in world.violations] == ["put on another base image"]


def test_locks_that_do_not_show_lock_all_the_same() -> None:
    world = struck(migration={"locks_shown": False})
    assert world.preflight("v0", "", "a1", "a2", Method.PRE_COPY).image_locks is None
    assert world.site.scenario.migration.disk_locks
