"""balancerd on real hosts on which somebody else is at work, too: it sees that, and says so."""

from __future__ import annotations

import time

from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.database import Access
from balancerd.cli.record import opened
from balancerd.core.past.record import Request, Verb
from tests.lab.rig import GuestSpec, Rig
from tests.lab.service import MakeService, policy
from tests.lab.small_site import (
    busy,
    full,
    is_copied,
    relief,
    settled,
    the_only_one,
    unharmed,
)

TWIN = "22222222-3333-4444-5555-666666666666"
A_CRAWL = 'bandwidth = "1 MiB/s"'  # more than a minute for a guest


def test_what_an_operator_moved_stays_where_he_put_it_and_is_named(
    rig: Rig, service: MakeService
) -> None:
    """His migration makes a host overloaded: it is relieved of another VM. Dies without vetoes."""
    spec = busy(3, memory_mib=512)
    guests = rig.start_all({"a": ("h1", spec), "b": ("h2", spec)})
    for guest in guests.values():
        guest.reset_gap()
    running = service(relief())
    running.start()
    running.after_cycles(3)
    guests["b"].migrate("h1")
    running.until(running.migrations, 120, "relief")
    settled(running)
    running.after_cycles(3)
    assert (the_only_one(running)["vm"], the_only_one(running)["outcome"]) == ("a", "done")
    assert guests["b"].where() == ["h1"]
    deeds = running.recorded("SELECT detail FROM events WHERE kind = 'veto' AND subject = 'b'")
    # A look may fall into his migration: then he "began to move" it.
    assert any("from h2 to h1" in deed["detail"] for deed in deeds)
    assert not [deed for deed in deeds if "stopped" in deed["detail"]]
    unharmed(*guests.values())


def test_a_vm_that_runs_twice_is_found_at_the_next_look_and_stops_everything(
    rig: Rig, service: MakeService
) -> None:
    """Dies if anything at all is begun, or if two looks go by before it is found."""
    spec = GuestSpec(uuid=TWIN)
    guest = rig.start("a", "h1", spec)
    running = service(policy("quiet"))
    running.start()
    rig.start("a", "h2", spec, wait=False)
    twice = time.time()
    cycles = f"SELECT at, frozen FROM cycles WHERE at > {twice} ORDER BY id"
    running.until(lambda: running.recorded(cycles), 60, "look at it")
    assert "a" in running.recorded(cycles)[0]["frozen"]
    assert "runs on h1 and h2 at once" in running.recorded(cycles)[0]["frozen"]
    running.ctl("drain", "h1")
    running.after_cycles(3)
    assert not running.migrations()
    assert sorted(rig.running_on("a")) == ["h1", "h2"], "which of them to end a person decides"
    guest.kill_qemu("h2")
    running.until(lambda: guest.where() == ["h3"], 120, "drain")
    settled(running)
    ends = [(row["target"], row["outcome"]) for row in reversed(running.migrations())]
    assert ends[-1] == ("h3", "done")
    assert ends[:-1] in ([], [("h2", "objected")]), "what crashed there is a person's, too"


def test_a_migration_is_given_up_at_once_while_balancerd_waits_for_a_third_host_that_hangs(
    rig: Rig, service: MakeService
) -> None:
    """Its look at the hosts, once every two seconds, takes five: in the second of them the request
    comes. Dies when nothing else is done until they are over."""
    guests = full(rig)
    running = service(relief(limits=A_CRAWL))
    running.start()
    running.until(lambda: any(map(is_copied, guests.values())), 90, "migration")
    begun = the_only_one(running)
    third = rig.host("h2" if begun["target"] == "h3" else "h3")
    third.freeze_libvirtd()
    try:
        looked = "SELECT max(at) AS at FROM cycles"
        running.until(lambda: time.time() - running.recorded(looked)[0]["at"] > 3, 30, "long look")
        with opened(running.directory / "state", Access.WRITE) as ledger:
            operator.ask(ledger, Request(0, time.time(), Verb.ABORT, begun["vm"], "test"))
        settled(running)
    finally:
        third.thaw_libvirtd()
    (asked,) = running.recorded("SELECT at FROM requests")
    (given_up,) = running.recorded("SELECT at FROM events WHERE kind = 'abort'")
    (ended,) = running.recorded("SELECT outcome FROM migrations ORDER BY id LIMIT 1")
    assert ended["outcome"] == "aborted"
    # Before libvirt is told, which takes it two seconds on a busy machine.
    assert given_up["at"] - asked["at"] < 1.0
    unharmed(*guests.values())
