"""balancerd is killed, stopped and paused in the midst of what it does, and hosts fail it."""

from __future__ import annotations

import signal
import time

from tests.lab.rig import Disk, GuestSpec, Rig
from tests.lab.service import MakeService, policy
from tests.lab.small_site import full, is_copied, relief, settled, the_only_one, unharmed


def test_nothing_starts_once_pause_has_returned(rig: Rig, service: MakeService) -> None:
    guests = full(rig)
    running = service(relief(mode="advise"))
    running.start()
    running.until(lambda: running.listing("plan", "list"), 90, "plan")
    running.ctl("pause", "--reason", "test")
    (plan,) = running.listing("plan", "list")
    running.ctl("approve", str(plan["id"]))
    running.after_cycles(3)
    assert not running.migrations()
    assert all(guest.where() == ["h1"] for guest in guests.values())
    assert running.stop() == 0
    running.start()
    running.after_cycles(2)
    assert not running.migrations(), "a pause outlives a restart"
    unharmed(*guests.values())


SLOWLY = 'bandwidth = "8 MiB/s"'  # 10 s for a guest


def test_a_migration_outlives_a_killed_balancerd_and_is_recorded_once(
    rig: Rig, service: MakeService
) -> None:
    """Dies if the next balancerd does not ask the hosts what became of an open intent, or begins
    the migration again. It knows within 10 s; here it may be slower with everything else.
    """
    guests = full(rig)
    running = service(relief(limits=SLOWLY))
    running.start()
    running.until(lambda: any(map(is_copied, guests.values())), 90, "migration")
    running.stop(signal.SIGKILL)
    assert the_only_one(running)["outcome"] == "under way"
    begun = time.monotonic()
    running.launch()
    running.until(lambda: "watching" in running.log.read_text(), 60, "adoption")
    assert time.monotonic() - begun < 20
    settled(running)
    migration = the_only_one(running)
    assert migration["outcome"] == "done"
    assert migration["adopted"]
    assert guests[migration["vm"]].where() == [migration["target"]]
    unharmed(*guests.values())


def test_a_balancerd_that_is_stopped_ends_at_once_and_its_migration_without_it(
    rig: Rig, service: MakeService
) -> None:
    """As systemd stops it. Dies if it waits for the migration, gives it up, or takes it for ended;
    and if the next one believes anything but what the hosts say of what it did not see."""
    guests = full(rig)
    running = service(relief(limits=SLOWLY))
    running.start()
    running.until(lambda: any(map(is_copied, guests.values())), 90, "migration")
    begun = time.monotonic()
    assert running.stop(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 10
    assert "stopped; migrations that run go on by themselves" in running.log.read_text()
    migration = the_only_one(running)
    assert migration["outcome"] == "under way"
    guest, target = guests[migration["vm"]], migration["target"]
    assert is_copied(guest), "it goes on"
    rig.wait_for(lambda: guest.where() == [target], 90, "it arrives though nobody looks")
    running.launch()
    settled(running)
    migration = the_only_one(running)
    assert (migration["outcome"], migration["adopted"]) == ("done", True)
    assert guest.where() == [target]
    assert running.stop(signal.SIGTERM) == 0
    unharmed(*guests.values())


def test_a_vm_that_arrived_paused_while_balancerd_was_dead_is_let_go_on_by_the_next(
    rig: Rig, service: MakeService
) -> None:
    """Nothing locks its disk, so that it must not run before its source is known to be gone. Dies
    if the next balancerd does not know what was announced, or waits for somebody to do it."""
    disk = Disk("shared", format="raw", shareable=True)
    guest = rig.start("a", "h1", GuestSpec(disk=disk))
    running = service(policy("quiet", limits=SLOWLY))
    running.start()
    running.ctl("drain", "h1")
    running.until(lambda: is_copied(guest), 90, "migration")
    running.stand_still()
    rig.wait_for(lambda: guest.where() != ["h1"] and len(guest.states()) == 1, 60, "it arrives")
    running.stop(signal.SIGKILL)
    (target,) = guest.where()
    assert rig.running_on(guest.name) == [], "it stands still"
    beats = guest.counter().beats
    assert the_only_one(running)["outcome"] == "under way"
    running.launch()
    settled(running)
    migration = the_only_one(running)
    assert (migration["outcome"], migration["target"]) == ("done", target)
    assert migration["adopted"]
    assert rig.running_on(guest.name) == [target]
    rig.wait_for(lambda: guest.counter().beats > beats, 20, "it goes on")
    counter = guest.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0)


def test_a_killed_target_libvirtd_leaves_the_vm_on_its_source_and_the_pair_rests(
    rig: Rig, service: MakeService
) -> None:
    guests = full(rig)
    running = service(relief(limits=SLOWLY))
    running.start()
    running.until(lambda: any(map(is_copied, guests.values())), 90, "migration")
    (begun,) = running.recorded("SELECT target, begun_at FROM migrations")  # soon it is over
    target = rig.host(begun["target"])
    target.kill_libvirtd()
    time.sleep(2)
    target.start_libvirtd()

    first = f"SELECT ended_at, outcome FROM migrations WHERE begun_at = {begun['begun_at']!r}"
    running.until(lambda: running.recorded(first)[0]["ended_at"], 120, "end of it")
    assert running.recorded(first)[0]["outcome"] == "failed"
    running.after_cycles(4)
    ways = [(m["source"], m["target"]) for m in running.migrations()]
    assert ways.count(("h1", begun["target"])) == 1, "the pair rests"
    unharmed(*guests.values())
