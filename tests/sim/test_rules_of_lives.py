"""What a life says of two VMs that are to be apart: it fails, and only for what we did."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import Conclusion
from tests.sim.doors import BrokenError
from tests.sim.promises import Ended
from tests.sim.seeds import Life
from tests.worlds import send


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """A life that begins with v0 and v1 apart."""
    drawn = (Life(seed, tmp_path, lambda _: None) for seed in range(100))
    found = next(one for one in drawn if one.world.running("v0") != one.world.running("v1"))
    check(found)
    yield found
    found.ledger.__exit__()


def check(life: Life) -> None:
    life.promises.rules_hold({vm.name: life.world.running(vm.name) for vm in life.world.site.vms})


def test_to_send_one_to_where_the_other_runs_breaks_the_life_before_it_arrives(life: Life) -> None:
    """Dies when only what has arrived is looked at."""
    (here,), (there,) = life.world.running("v1"), life.world.running("v0")
    send(life.world, "v1", here, there)
    with pytest.raises(BrokenError, match="v0 and v1"):
        check(life)


def test_one_that_somebody_starts_where_the_other_is_arriving_is_not_our_doing(life: Life) -> None:
    """Dies when what is on its way is forgotten: they would be blamed on us as it arrives."""
    there = life.world.running("v0")[0]
    life.world.hand.crash("v0")
    check(life)
    (here,) = life.world.running("v1")
    send(life.world, "v1", here, there, downtime=60.0)
    check(life)
    life.world.hand.start("v0", there)
    check(life)
    life.world.advance(life.world.now() + 300.0)
    assert life.world.running("v1") == (there,)
    check(life)


def ended(life: Life, outcome: Outcome, *, autostart: bool = False, detail: str = "") -> None:
    """The ledger says that v1 went from the host on which it is to another one."""
    (here,) = life.world.running("v1")
    there = next(host.name for host in life.world.site.hosts if host.name != here)
    move = Ended("v1", here, there, "pre-copy", autostart)
    life.promises.is_true(move, Conclusion(1, 0.0, outcome, detail))


def test_an_end_that_did_not_come_about_breaks_the_life(life: Life) -> None:
    """Dies when the ledger is believed."""
    ended(life, Outcome.FAILED)
    for untrue in (Outcome.DONE, Outcome.LOST):
        with pytest.raises(BrokenError, match="the ledger says"):
            ended(life, untrue)


def test_a_failure_of_what_did_arrive_breaks_the_life(life: Life) -> None:
    (here,) = life.world.running("v1")
    there = next(host.name for host in life.world.site.hosts if host.name != here)
    move = Ended("v1", there, here, "pre-copy", autostart=True)
    with pytest.raises(BrokenError, match="failed, and it is"):
        life.promises.is_true(move, Conclusion(1, 0.0, Outcome.FAILED))
    life.promises.is_true(move, Conclusion(1, 0.0, Outcome.FAILED, "somebody moved it there"))
    life.world.set_autostart("v1", here, autostart=False)
    with pytest.raises(BrokenError, match="does not start with"):
        life.promises.is_true(move, Conclusion(1, 0.0, Outcome.DONE))


def test_a_vm_that_runs_on_two_hosts_breaks_the_life(life: Life) -> None:
    """Dies when only the copy is looked at that runs where the VM is."""
    life.promises.hold(())
    (here,), state = life.world.running("v1"), life.world._state
    there = next(name for name in state.host if name != here)
    state.copies.oddities[state.vm["v1"], state.host[there]] = Presence.RUNNING
    with pytest.raises(BrokenError, match="v1 runs on"):
        life.promises.hold(())


def test_a_vm_of_which_nothing_is_left_breaks_the_life(life: Life) -> None:
    life.world.hand.crash("v1")
    life.promises.hold(())
    life.world._state.copies.oddities.clear()
    with pytest.raises(BrokenError, match="nothing is left of v"):
        life.promises.hold(())
