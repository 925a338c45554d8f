"""The whole of balancerd on real hosts: the process its user runs, real guests, real migrations.

Guests are small and hosts have one CPU, so that a few guests overload one. Every test ends with
the same question: does each guest run on exactly one host, and did its counter go on?
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.rig import Guest, GuestSpec, Load, Rig
from tests.lab.service import PACKING, Service, policy

MakeService = Callable[[str], Service]


@pytest.fixture
def service(rig: Rig, tmp_path: Path) -> Iterator[MakeService]:
    """Makes the service of a policy; it is gone when the test is."""
    made: list[Service] = []

    def make(policy_text: str) -> Service:
        made.append(Service(rig, tmp_path, policy_text))
        return made[-1]

    yield make
    for each in made:
        each.close()


def busy(percent: int, memory_mib: int = 128) -> GuestSpec:
    return GuestSpec(memory_mib=memory_mib, load=Load(cpu_percent=percent))


def unharmed(*guests: Guest) -> None:
    """Each runs on one host, never booted again, never missed or doubled a beat.

    A half of a guest whose migration failed may stand there until libvirt has cleared it away.
    """
    for guest in guests:
        guest.rig.wait_for(lambda g=guest: len(g.where()) == 1, 60, f"one copy of {guest.name}")
        counter = guest.counter()
        assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0), guest.name
        assert counter.largest_gap_s < 2, guest.name


def overload(rig: Rig) -> dict[str, Guest]:
    """h1 carries more than its policy wants (34 % and TCG's 5 to 10 % each), h2 and h3 nothing."""
    guests = rig.start_all({name: ("h1", busy(34)) for name in ("a", "b")})
    for guest in guests.values():
        guest.reset_gap()
    return guests


def test_an_overloaded_host_is_relieved_once_and_for_all(rig: Rig, service: MakeService) -> None:
    guests = overload(rig)
    running = service(policy("quiet"))
    running.start()
    running.until(lambda: running.migrations(), 60, "migration")
    running.until(lambda: all(m["ended_at"] for m in running.migrations()), 60, "end of it")
    running.after_cycles(5)
    (migration,) = running.migrations()
    assert migration["outcome"] == "done"
    assert migration["source"] == "h1"
    assert migration["bytes"] > 10e6
    assert migration["iterations"] >= 1
    assert 0 < migration["downtime_ms"] < 2000
    assert "h1" in running.plan(migration["plan"])["moves"][0]["reason"]
    (h1,) = [host for host in running.listing("hosts") if host["name"] == "h1"]
    assert h1["cpu_mean_utilisation"] < 0.48, "below release"
    assert guests[migration["vm"]].where() == [migration["target"]]
    unharmed(*guests.values())


def test_half_empty_hosts_are_packed_within_their_memory(rig: Rig, service: MakeService) -> None:
    guests = rig.start_all(
        {"a": ("h1", busy(5)), "b": ("h2", busy(5)), "c": ("h3", busy(5)), "d": ("h3", busy(5))}
    )
    running = service(policy("pack", thresholds=PACKING))
    running.start()
    running.until(
        lambda: len({host for guest in guests.values() for host in guest.where()}) <= 2,
        120,
        "empty host",
    )
    running.until(lambda: all(m["ended_at"] for m in running.migrations()), 60, "end of it")
    assert all(migration["outcome"] == "done" for migration in running.migrations())
    for plan in running.listing("plan", "list"):
        assert running.plan(plan["id"])["certificate"]["violations"] == []
    unharmed(*guests.values())


def test_advise_moves_nothing_until_it_is_approved(rig: Rig, service: MakeService) -> None:
    guests = overload(rig)
    running = service(policy("quiet", mode="advise"))
    running.start()
    running.until(lambda: running.listing("plan", "list"), 60, "plan")
    running.after_cycles(4)
    assert not running.migrations()
    assert all(guest.where() == ["h1"] for guest in guests.values())
    (plan,) = running.listing("plan", "list")
    running.ctl("approve", str(plan["id"]))
    running.until(
        lambda: [m["outcome"] for m in running.migrations()] == ["done"], 60, "approved move"
    )
    unharmed(*guests.values())


def test_nothing_starts_once_pause_has_returned(rig: Rig, service: MakeService) -> None:
    guests = overload(rig)
    running = service(policy("quiet", mode="advise"))
    running.start()
    running.until(lambda: running.listing("plan", "list"), 60, "plan")
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


def test_a_migration_outlives_a_killed_balancerd_and_is_recorded_once(
    rig: Rig, service: MakeService
) -> None:
    guests = overload(rig)
    running = service(policy("quiet", limits='bandwidth = "8 MiB/s"'))
    running.start()
    running.until(lambda: running.migrations(), 60, "migration")
    time.sleep(1.0)
    running.stop(signal.SIGKILL)
    (begun,) = running.migrations()
    assert begun["outcome"] == "under way"
    running.start()
    running.until(lambda: all(m["ended_at"] for m in running.migrations()), 90, "end of it")
    (migration,) = running.migrations()
    assert migration["outcome"] == "done"
    assert migration["adopted"]
    assert guests[migration["vm"]].where() == [migration["target"]]
    unharmed(*guests.values())


def test_a_killed_target_libvirtd_leaves_the_vm_on_its_source_and_the_pair_rests(
    rig: Rig, service: MakeService
) -> None:
    guests = overload(rig)
    running = service(policy("quiet", limits='bandwidth = "8 MiB/s"'))
    running.start()
    running.until(lambda: running.migrations(), 60, "migration")
    (begun,) = running.migrations()
    time.sleep(1.5)
    target = rig.host(begun["target"])
    target.kill_libvirtd()
    time.sleep(2)
    target.start_libvirtd()
    running.until(lambda: running.migrations()[-1]["ended_at"], 60, "end of it")
    first = min(running.migrations(), key=lambda m: m["begun_at"])
    assert first["outcome"] == "failed"
    running.after_cycles(4)
    again = [
        m for m in running.migrations() if (m["source"], m["target"]) == ("h1", begun["target"])
    ]
    assert len(again) == 1, "the pair rests"
    unharmed(*guests.values())


def test_a_drained_host_is_emptied_of_all_its_vms_and_takes_none_back(
    rig: Rig, service: MakeService
) -> None:
    """Dies when a drain stops after its first move, or its VMs come back."""
    guests = rig.start_all({name: ("h1", busy(3)) for name in ("a", "b", "c")})
    running = service(policy("quiet", thresholds=PACKING))
    running.start()
    running.ctl("drain", "h1")
    running.until(lambda: not rig.placement()["h1"], 90, "empty host")
    running.until(lambda: all(m["ended_at"] for m in running.migrations()), 30, "end of it")
    running.after_cycles(2)
    left = {m["vm"]: m["outcome"] for m in running.migrations() if m["source"] == "h1"}
    assert left == dict.fromkeys(guests, "done"), running.migrations()
    assert all(m["target"] != "h1" for m in running.migrations())
    assert rig.placement()["h1"] == []
    unharmed(*guests.values())
