"""How long a simulated migration takes, what it sends, and how it ends."""

from typing import Any

import pytest

from balancerd.adapters.sim.world import World
from balancerd.core.model import Method, VMState
from balancerd.core.observation import Presence
from balancerd.ports import BackendError
from tests.worlds import (
    HOST_MEMORY,
    LINK,
    START,
    VM_MEMORY,
    a_flavour,
    a_host_group,
    a_scenario,
    a_world,
    counters,
    live,
    send,
)

ALONE = VM_MEMORY / LINK  # seconds
BIG = 2**20  # times the byte counts of tests.worlds: rounds far above the smallest


def big_world(dirty_rate: int = 0, working_set: float = 1.0, **changes: Any) -> World:
    """The same sums in MiB; the VMs run at half of their CPU and so write at half their rate."""
    return a_world(
        a_scenario(
            hosts=[a_host_group(memory=HOST_MEMORY * BIG)],
            flavours=[
                a_flavour(
                    memory=VM_MEMORY * BIG, dirty_rate=dirty_rate * BIG, working_set=working_set
                )
            ],
            network={"host": LINK * BIG},
            **changes,
        )
    )


def test_a_migration_alone_takes_its_memory_over_the_narrowest_link() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 60)
    assert end.seconds == pytest.approx(ALONE, abs=1e-5)
    assert end.bytes == VM_MEMORY
    assert end.downtime == 0.0


def test_two_migrations_from_one_host_take_twice_as_long() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    send(world, "v1", "a1", "a3")
    ends = live(world, 60)
    assert [end.seconds for end in ends] == pytest.approx([2 * ALONE] * 2, abs=1e-5)


def test_a_link_carries_as_much_one_way_while_it_carries_the_other_way() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 60)
    send(world, "v0", "a2", "a1")
    send(world, "v1", "a1", "a2")
    assert [end.seconds for end in live(world, 60)] == pytest.approx([ALONE] * 2, abs=1e-5)


def test_a_second_migration_slows_the_first_from_when_it_begins() -> None:
    """Five seconds alone are 500 bytes; the other 500 at half rate take ten more."""
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 5)
    send(world, "v1", "a1", "a3")
    first, second = live(world, 60)
    assert (first.vm, second.vm) == ("v0", "v1")
    assert [first.seconds, second.seconds] == pytest.approx([15.0, 15.0], abs=1e-5)


def test_a_rack_link_shared_by_two_pairs_of_hosts_divides_between_them() -> None:
    world = a_world(
        a_scenario(
            hosts=[a_host_group(count=4)],
            network={"host": LINK, "rack": LINK, "racks": 2, "rack_name": "r%d"},
            vms={"name": "v%d", "count": 3},
            flavours=[a_flavour(cpu=4.0)],
        )
    )
    assert [vm.host for vm in world.observe().readings if vm.vms] == ["a1", "a2", "a3"]
    send(world, "v0", "a1", "a3")
    send(world, "v1", "a2", "a4")
    assert [end.seconds for end in live(world, 60)] == pytest.approx([2 * ALONE] * 2, abs=1e-5)


def test_the_callers_cap_and_the_scenarios_cap_both_hold() -> None:
    world = a_world(a_scenario(migration={"bandwidth": 50}))
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 60)
    assert end.seconds == pytest.approx(20.0, abs=1e-5)
    send(world, "v0", "a2", "a1", bandwidth=25)
    (end,) = live(world, 60)
    assert end.seconds == pytest.approx(40.0, abs=1e-5)


def test_a_cap_can_be_changed_under_way() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2", bandwidth=10)
    live(world, 10)
    world.set_bandwidth("v0", "a1", 90)
    (end,) = live(world, 60)
    assert end.seconds == pytest.approx(20.0, abs=1e-5)


def test_pre_copy_sends_the_closed_formulas_bytes() -> None:
    """M (1 - q^(n+1)) / (1 - q) with q = D/B, after n rounds beyond the first.

    Seen to fail when what is written in a round is counted from the start of the migration, and
    when dirtying stops while a round is sent.
    """
    world = big_world(dirty_rate=50)  # at half CPU: 25 of 100, so q = 1/4
    send(world, "v0", "a1", "a2", downtime=0.05)  # 5 MiB may be left: 1000/4/4/4/4 = 3.9
    (end,) = live(world, 60)
    total = VM_MEMORY * BIG * (1 - 0.25**5) / (1 - 0.25)
    assert end.bytes == pytest.approx(total, rel=1e-6)
    assert end.iterations == 4
    assert end.downtime == pytest.approx(VM_MEMORY * 0.25**4 / LINK, rel=1e-6)
    assert end.seconds == pytest.approx(total / (LINK * BIG), rel=1e-6)


def test_the_vm_stands_still_for_the_downtime_and_the_switch_over() -> None:
    world = big_world(dirty_rate=50, migration={"switch_over": 0.5})
    send(world, "v0", "a1", "a2", downtime=0.05)
    (end,) = live(world, 60)
    still = VM_MEMORY * 0.25**4 / LINK + 0.5
    assert end.downtime == pytest.approx(still, rel=1e-6)
    assert world.accounts.unserved[0] == pytest.approx(still, rel=1e-4)  # it asks for one core


def test_memory_written_faster_than_it_is_sent_never_converges_until_the_pause_is_raised() -> None:
    world = big_world(dirty_rate=400, working_set=0.5)
    send(world, "v0", "a1", "a2", downtime=0.3)
    assert live(world, 600) == []
    world.set_downtime("v0", "a1", 6.0)
    (end,) = live(world, 60)
    assert end.downtime == pytest.approx(5.0, rel=1e-6)  # the working set of 500 MiB


def test_auto_converge_slows_the_vm_until_it_fits() -> None:
    world = big_world(dirty_rate=250, working_set=0.5)
    send(world, "v0", "a1", "a2", downtime=0.3, method=Method.AUTO_CONVERGE)
    (end,) = live(world, 600)
    assert end.error == ""
    assert end.progress is not None
    assert end.progress.throttle > 20
    assert end.downtime is not None
    assert world.accounts.unserved[0] > end.downtime + 1.0  # it was kept from working, too


def test_post_copy_runs_at_the_target_while_memory_follows() -> None:
    world = big_world(dirty_rate=400, working_set=0.5)
    send(world, "v0", "a1", "a2", method=Method.POST_COPY)
    live(world, ALONE)
    world.switch_to_post_copy("v0", "a1")
    live(world, 2)
    assert world.running("v0") == ("a2",)
    assert world.locate("v0", "", ["a1", "a2"]).presence == {
        "a1": Presence.RUNNING_WITH_JOB,
        "a2": Presence.POSTCOPY,
    }
    told = [counters(world, host) for host in ("a1", "a2", "a3")]
    assert [one.memory_total - one.memory_available for one in told] == [
        2 * VM_MEMORY * BIG,
        VM_MEMORY * BIG,
        0,
    ]
    with pytest.raises(BackendError, match="post-copy"):
        world.abort("v0", "a1")
    (end,) = live(world, 60)
    assert end.seconds == pytest.approx(15.0, rel=1e-6)


def test_only_a_migration_begun_for_it_goes_on_in_post_copy() -> None:
    world = big_world(dirty_rate=400)
    send(world, "v0", "a1", "a2")
    live(world, 1)
    with pytest.raises(BackendError, match="not asked for"):
        world.switch_to_post_copy("v0", "a1")


def test_a_cold_move_takes_the_definition_of_a_vm_that_is_shut_off() -> None:
    world = a_world()
    world.hand.shut_off("v0")
    send(world, "v0", "a1", "a2", method=Method.COLD)
    assert world.copies("v0") == {"a1": Presence.SHUTOFF}
    (end,) = live(world, 60)
    assert end.error == ""
    assert world.copies("v0") == {"a2": Presence.SHUTOFF}


def test_a_cold_move_of_a_vm_that_runs_or_to_a_definition_is_refused() -> None:
    world = a_world()
    with pytest.raises(BackendError, match="it runs"):
        send(world, "v0", "a1", "a2", method=Method.COLD)
    world.hand.shut_off("v0")
    world.hand.define("v0", "a2")
    send(world, "v0", "a1", "a2", method=Method.COLD)
    (end,) = live(world, 60)
    assert "already defined" in end.error
    assert world.copies("v0") == {"a1": Presence.SHUTOFF, "a2": Presence.SHUTOFF}


def test_while_it_moves_a_vm_is_on_both_hosts_and_then_on_one() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 5)
    first, second, _ = world.observe().readings
    assert [(r.vm.name, r.state) for r in first.vms if r.job] == [("v0", VMState.RUNNING)]
    assert [(r.vm.name, r.state) for r in second.vms] == [("v0", VMState.INCOMING)]
    assert counters(world, "a2").memory_available == HOST_MEMORY - VM_MEMORY
    live(world, 10)
    first, second, _ = world.observe().readings
    assert [r.vm.name for r in first.vms] == ["v1"]
    assert [(r.vm.name, r.state) for r in second.vms] == [("v0", VMState.RUNNING)]
    assert counters(world, "a1").memory_available == HOST_MEMORY - VM_MEMORY


def test_an_aborted_migration_leaves_the_vm_where_it_was_and_says_so_once() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 5)
    world.abort("v0", "a1")
    (end,) = live(world, 60)
    assert (end.error_code, end.bytes) == (78, None)
    assert world.running("v0") == ("a1",)
    assert world.locate("v0", "", ["a2"]).presence["a2"] is Presence.ABSENT


def test_nobody_touches_the_halves_of_a_migration_that_is_under_way() -> None:
    world = a_world(a_scenario(migration={"switch_over": 5.0}))
    send(world, "v0", "a1", "a2")
    for seconds, state in ((5, VMState.RUNNING), (7, VMState.OUTGOING)):
        live(world, seconds)
        assert world.locate("v0", "", ["a1"]).presence["a1"] is Presence.RUNNING_WITH_JOB
        assert world.observe().readings[0].vms[-1].state is state
        for act, host in ((world.resume, "a1"), (world.destroy, "a2"), (world.undefine, "a2")):
            with pytest.raises(BackendError):
                act("v0", host)
    (end,) = live(world, 60)
    assert (end.error, world.running("v0")) == ("", ("a2",))


def test_progress_is_told_every_few_seconds() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    world.advance(START + 4)
    assert world.reports() == ()
    world.advance(START + 6)
    (news,) = world.reports()
    assert news.progress is not None
    assert (news.progress.processed, news.progress.remaining, news.ended) == (600, 400, False)
    assert world.reports() == ()


def test_a_second_migration_of_a_vm_fails_and_leaves_the_first_alone() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    send(world, "v0", "a1", "a3")
    (second,) = (r for r in world.reports() if r.ended)
    assert (second.target, second.error_code) == ("a3", 55)
    (first,) = live(world, 60)
    assert (first.target, first.error) == ("a2", "")


def test_a_target_without_room_fails_at_once_and_is_a_violation() -> None:
    world = a_world(a_scenario(hosts=[a_host_group(), a_host_group(name="b%d", memory=999)]))
    send(world, "v0", "a1", "b1")
    (end,) = live(world, 1)
    assert "memory" in end.error
    assert world.running("v0") == ("a1",)
    assert [v.kind for v in world.violations] == ["no room in memory"]


def test_a_vm_without_memory_moves_at_once_and_time_goes_on() -> None:
    """Kills: an event at the present moment, to which nobody can advance."""
    world = a_world(a_scenario(flavours=[a_flavour(memory=0)]))
    send(world, "v0", "a1", "a2")
    assert world.next_event() > world.now()
    (end,) = live(world, 1)
    assert (end.bytes, world.running("v0")) == (0, ("a2",))


def test_memory_can_be_left_out() -> None:
    hosts = [a_host_group(), a_host_group(name="b%d", memory=999)]
    world = a_world(a_scenario(hosts=hosts, memory="free"))
    send(world, "v0", "a1", "b1")
    live(world, 60)
    assert world.running("v0") == ("b1",)
    assert world.violations == []
