"""What happens behind balancerd's back, and what a balancerd that was started anew hears of."""

import pytest

from balancerd.adapters.sim.world import World
from balancerd.core.model import VMState
from balancerd.core.observation import Presence
from balancerd.ports import BackendError
from tests.worlds import a_scenario, a_world, live, presences, reading, send


def states(world: World, host: str) -> dict[str, VMState]:
    return {vm.vm.name: vm.state for vm in reading(world, host).vms}


def test_a_migration_by_hand_is_seen_and_not_told() -> None:
    world = a_world()
    world.hand.migrate("v0", "a2")
    world.advance(world.now() + 6)
    assert world.reports() == ()
    assert presences(world, "v0", "a1") == (Presence.RUNNING_WITH_JOB,)
    send(world, "v0", "a1", "a3")
    (refused,) = live(world, 60)
    assert (refused.target, refused.error_code) == ("a3", 55)
    assert world.running("v0") == ("a2",)


def test_an_operator_may_overfill_a_host_and_is_not_blamed() -> None:
    world = a_world(a_scenario(faults=[{"kind": "target-full", "at": 0.0}]))
    world.sleep("a3")
    world.hand.migrate("v0", "a3")
    assert (world.violations, world.running("v0")) == ([], ("a1",))


def test_an_abort_by_hand_is_told_as_an_end() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 5)
    world.hand.abort("v0")
    (end,) = live(world, 60)
    assert (end.error_code, world.running("v0")) == (78, ("a1",))


@pytest.mark.parametrize(
    ("act", "state"),
    [("pause", VMState.PAUSED), ("shut_off", VMState.SHUTOFF), ("crash", VMState.CRASHED)],
)
def test_a_vm_that_was_stopped_is_there_and_does_not_run(act: str, state: VMState) -> None:
    world = a_world()
    getattr(world.hand, act)("v0")
    assert (states(world, "a1")["v0"], world.running("v0")) == (state, ())
    with pytest.raises(BackendError):
        send(world, "v0", "a1", "a2")
    with pytest.raises(BackendError):
        world.resume("v0", "a1")  # a user's pause is not ours to end
    world.hand.start("v0", "a1")
    assert (states(world, "a1")["v0"], world.running("v0")) == (VMState.RUNNING, ("a1",))


def test_a_vm_that_crashes_under_way_is_lost_on_its_source() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 5)
    world.hand.crash("v0")
    (end,) = live(world, 60)
    assert (end.error_code, end.error_domain) == (9, 20)
    assert presences(world, "v0", "a1", "a2") == (Presence.CRASHED, Presence.ABSENT)


def test_a_crashed_vm_comes_back_by_itself_where_a_scenario_says_so() -> None:
    fault = {"kind": "vm-crash", "vm": "v1", "at": 10.0, "lasts": 60.0}
    world = a_world(a_scenario(faults=[fault]))
    live(world, 20)
    assert world.running("v1") == ()
    live(world, 60)
    assert world.running("v1") == ("a1",)
    assert world.accounts.unserved[1] == pytest.approx(60.0)


def test_a_left_over_definition_does_not_hinder_a_migration() -> None:
    world = a_world()
    world.hand.define("v0", "a2")
    assert presences(world, "v0", "a2") == (Presence.SHUTOFF,)
    send(world, "v0", "a1", "a2")
    (end,) = live(world, 60)
    assert (end.error, presences(world, "v0", "a1", "a2")) == (
        "",
        (Presence.ABSENT, Presence.RUNNING),
    )


def test_a_balancerd_started_anew_hears_only_of_what_it_adopts() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    send(world, "v1", "a1", "a3")
    live(world, 5)
    world.forget()
    world.adopt("v1", "a1", "a3")
    world.adopt("v1", "a1", "a3")
    (end,) = live(world, 60)
    assert (end.vm, end.error) == ("v1", "")
    assert (world.running("v0"), world.running("v1")) == (("a2",), ("a3",))


def test_adopting_a_migration_that_is_over_tells_of_an_end_without_figures() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    world.advance(world.now() + 60)
    world.forget()
    assert world.reports() == ()
    world.adopt("v0", "a1", "a2")
    (end,) = world.reports()
    assert (end.ended, end.bytes) == (True, None)
    assert world.running("v0") == ("a2",)


def test_destroying_a_copy_that_runs_is_refused_and_a_violation() -> None:
    world = a_world()
    with pytest.raises(BackendError):
        world.destroy("v0", "a1")
    assert world.running("v0") == ("a1",)
    assert [violation.kind for violation in world.violations] == ["would kill"]


def test_a_host_cannot_be_asked_about_what_is_not_there_without_harm() -> None:
    """As with a real one: the absence of what should be removed is as good as its removal."""
    world = a_world()
    world.destroy("v0", "a2")
    world.undefine("v0", "a2")
    assert (world.running("v0"), world.violations) == (("a1",), [])


def test_what_is_undefined_is_gone_and_is_started_only_once_it_is_defined_anew() -> None:
    """Dies when what runs can be undefined, or what nobody has can be started."""
    world = a_world()
    world.hand.undefine("v0", "a1")
    assert world.running("v0") == ("a1",)
    world.hand.shut_off("v0")
    world.hand.undefine("v0", "a1")
    world.hand.start("v0", "a1")
    assert (world.copies("v0"), world.running("v0")) == ({}, ())
    world.hand.define("v0", "a2")
    world.hand.start("v0", "a2")
    assert world.running("v0") == ("a2",)
