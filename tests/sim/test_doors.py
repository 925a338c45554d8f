"""The checks at a simulated life's doors can fail: each is walked into once."""

import pytest

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.policy import Policy
from tests.sim.seeds import BrokenError, Doors
from tests.worlds import a_host_group, a_scenario, a_world, send

POLICY = Policy.model_validate(
    {
        "summary": "test",
        "limits": {"per_site": 2, "per_host": 1, "bandwidth": 1000, "downtime": 0.3},
        "detection": {"stale_after": 90.0},
    }
)


def nobody() -> Ledger:
    raise AssertionError("what is asked here needs no ledger")


@pytest.fixture
def doors() -> Doors:
    """Five hosts and two VMs on the first; the loop has just looked."""
    world = a_world(a_scenario(hosts=[a_host_group(count=5)]))
    made = Doors(world, nobody, POLICY, lambda _vm, _target: None)
    made.observe()
    return made


def start(doors: Doors, source: str, target: str, bandwidth: int = 500, pause: float = 0.1) -> None:
    doors._must_be_within_limits(source, target, bandwidth, pause)


def test_a_start_within_all_limits_is_let_through(doors: Doors) -> None:
    send(doors.world, "v0", "a1", "a2")
    start(doors, "a3", "a4")


@pytest.mark.parametrize(("source", "target"), [("a1", "a3"), ("a3", "a2")])
def test_one_more_out_of_or_into_a_busy_host_breaks_the_life(
    doors: Doors, source: str, target: str
) -> None:
    send(doors.world, "v0", "a1", "a2")
    with pytest.raises(BrokenError, match="one more"):
        start(doors, source, target)


def test_one_more_than_the_site_allows_breaks_the_life(doors: Doors) -> None:
    send(doors.world, "v0", "a1", "a2")
    send(doors.world, "v1", "a1", "a3")
    with pytest.raises(BrokenError, match="one more"):
        start(doors, "a4", "a5")


def test_what_an_operator_began_does_not_count(doors: Doors) -> None:
    doors.world.hand.migrate("v0", "a2")
    start(doors, "a1", "a2")


def test_a_start_on_an_old_look_breaks_the_life(doors: Doors) -> None:
    doors.world.advance(doors.world.now() + 91.0)
    with pytest.raises(BrokenError, match="91 s ago"):
        start(doors, "a1", "a2")


@pytest.mark.parametrize(("bandwidth", "pause"), [(0, 0.1), (1001, 0.1), (500, 0.4)])
def test_a_cap_or_pause_beyond_the_policy_breaks_the_life(
    doors: Doors, bandwidth: int, pause: float
) -> None:
    with pytest.raises(BrokenError, match="a start with"):
        start(doors, "a1", "a2", bandwidth, pause)


def test_changing_a_cap_beyond_the_policy_breaks_the_life(doors: Doors) -> None:
    with pytest.raises(BrokenError, match="was to send"):
        doors.set_bandwidth("v0", "a1", 1001)
