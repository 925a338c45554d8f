"""balancerd on real hosts on which somebody else is at work, too: it sees that, and says so."""

from __future__ import annotations

import time

from tests.lab.rig import GuestSpec, Rig
from tests.lab.service import MakeService, policy
from tests.lab.test_balancerd import busy, relief, settled, the_only_one, unharmed

TWIN = "22222222-3333-4444-5555-666666666666"


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
    assert any("moved from h2 to h1" in deed["detail"] for deed in deeds)
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
