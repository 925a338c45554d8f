"""The whole of balancerd on real hosts: the process its user runs, real guests, real migrations."""

from __future__ import annotations

from tests.lab.rig import Rig
from tests.lab.service import CPU_OF_ONE_GUEST, MakeService, policy
from tests.lab.small_site import busy, full, relief, settled, the_only_one, unharmed


def test_an_overloaded_host_is_relieved_once_and_for_all(rig: Rig, service: MakeService) -> None:
    """34 % each, and 5 to 10 % for the emulation. That vCPUs wait, on a busy machine, is overload
    as well; it must not take the one that is left alone round the site."""
    guests = rig.start_all({name: ("h1", busy(34)) for name in ("a", "b")})
    for guest in guests.values():
        guest.reset_gap()
    running = service(policy("quiet", cpu=CPU_OF_ONE_GUEST, steal=0.10))
    running.start()
    running.until(running.migrations, 180, "migration")
    settled(running)
    running.after_cycles(5)
    migration = the_only_one(running)
    assert migration["outcome"] == "done"
    assert migration["source"] == "h1"
    assert migration["bytes"] > 10e6
    assert migration["iterations"] >= 1
    assert 0 < migration["downtime_ms"] < 2000
    assert "h1" in running.plan(migration["plan"])["moves"][0]["reason"]
    (h1,) = [host for host in running.listing("hosts") if host["name"] == "h1"]
    assert h1["cpu_mean_utilisation"] < CPU_OF_ONE_GUEST[1], "below release"
    assert guests[migration["vm"]].where() == [migration["target"]]
    unharmed(*guests.values())


def test_half_empty_hosts_are_packed_within_their_memory(rig: Rig, service: MakeService) -> None:
    guests = rig.start_all(
        {"a": ("h1", busy(5)), "b": ("h2", busy(5)), "c": ("h3", busy(5)), "d": ("h3", busy(5))}
    )
    running = service(policy("pack"))
    running.start()
    running.until(
        lambda: len({host for guest in guests.values() for host in guest.where()}) <= 2,
        240,
        "empty host",
    )
    settled(running)
    assert all(migration["outcome"] == "done" for migration in running.migrations())
    for plan in running.listing("plan", "list"):
        assert running.plan(plan["id"])["certificate"]["violations"] == []
    unharmed(*guests.values())


def test_advise_moves_nothing_until_it_is_approved(rig: Rig, service: MakeService) -> None:
    guests = full(rig)
    running = service(relief(mode="advise"))
    running.start()
    running.until(lambda: running.listing("plan", "list"), 90, "plan")
    running.after_cycles(4)
    assert not running.migrations()
    assert all(guest.where() == ["h1"] for guest in guests.values())
    (plan,) = running.listing("plan", "list")
    running.ctl("approve", str(plan["id"]))
    running.until(running.migrations, 60, "approved migration")
    settled(running)
    assert the_only_one(running)["outcome"] == "done"
    unharmed(*guests.values())


def test_a_drained_host_is_emptied_of_all_its_vms_and_takes_none_back(
    rig: Rig, service: MakeService
) -> None:
    """Dies when a drain stops after its first move, or its VMs come back or go on elsewhere."""
    guests = rig.start_all({name: ("h1", busy(3)) for name in ("a", "b", "c")})
    running = service(policy("quiet"))
    running.start()
    running.ctl("drain", "h1")
    running.until(lambda: not rig.placement()["h1"], 180, "empty host")
    settled(running)
    running.after_cycles(2)
    found = sorted((m["vm"], m["source"], m["outcome"]) for m in running.migrations())
    assert found == [(name, "h1", "done") for name in sorted(guests)]
    assert all(m["target"] != "h1" for m in running.migrations())
    assert rig.placement()["h1"] == []
    unharmed(*guests.values())
