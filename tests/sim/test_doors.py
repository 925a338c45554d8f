"""The checks at a simulated life's doors can fail: each is walked into once."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.model import VM, Cluster, Forecast, Host, Method, PowerState, Snapshot
from balancerd.core.observation import Presence
from balancerd.core.past.record import Intent, IntentKind
from balancerd.core.policies.policy import Policy
from balancerd.ports import BackendError, PowerError
from tests.sim.doors import BrokenError, Doors
from tests.sim.doorways import frozen
from tests.worlds import a_flavour, a_host_group, a_scenario, a_world, send

POLICY = Policy.model_validate(
    {
        "summary": "test",
        "limits": {"per_site": 2, "per_host": 1, "bandwidth": 1000, "downtime": 0.3},
        "detection": {"stale_after": 90.0},
        "capacity": {"memory_reserve": 0, "memory_reserve_share": 0.0, "spread_factor": 1.0},
    }
)


def nobody() -> Ledger:
    raise AssertionError("what is asked here needs no ledger")


def at_the_doors(world: World) -> Doors:
    made = Doors(world, nobody, POLICY, lambda _vm, _target: None)
    made.observe()
    return made


@pytest.fixture
def doors() -> Doors:
    """Five hosts and two VMs on the first; the loop has just looked."""
    return at_the_doors(a_world(a_scenario(hosts=[a_host_group(count=5)])))


def start(
    doors: Doors,
    source: str,
    target: str,
    bandwidth: int = 500,
    pause: float = 0.1,
    method: Method = Method.PRE_COPY,
) -> None:
    doors._must_be_within_limits(source, target, method, bandwidth, pause)


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


def test_one_that_copies_disks_counts_as_several(doors: Doors) -> None:
    send(doors.world, "v0", "a1", "a2")
    with pytest.raises(BrokenError, match="one more"):
        start(doors, "a3", "a4", method=Method.STORAGE)


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


@pytest.mark.parametrize("silent", [1, 2])
def test_an_act_while_too_many_hosts_are_silent_breaks_the_life(silent: int) -> None:
    """One of five may be; two are a larger share than `detection.unknown_hosts`."""
    faults = [
        {"kind": "unreachable", "host": f"a{n}", "at": 1.0, "lasts": 60.0}
        for n in range(2, 2 + silent)
    ]
    doors = at_the_doors(a_world(a_scenario(hosts=[a_host_group(count=5)], faults=faults)))
    doors.world.advance(doors.world.now() + 2.0)
    doors.observe()
    assert bool(doors.frozen) is (silent == 2)
    if doors.frozen:
        with pytest.raises(BrokenError, match="are silent"):
            doors.wake("a5")


def test_an_act_in_a_split_brain_breaks_the_life(doors: Doors) -> None:
    seen = doors.world.observe()
    one, two, *others = seen.readings
    assert one.vms and not two.vms
    twice = replace(seen, readings=(one, replace(two, vms=one.vms), *others))
    power = doors.world.states([reading.host for reading in seen.readings])
    assert not frozen(seen, power, POLICY.detection)
    doors.frozen = frozen(twice, power, POLICY.detection)
    with pytest.raises(BrokenError, match="runs on a1 and a2"):
        doors.sleep("a5")


def test_a_start_that_leaves_too_little_room_breaks_the_life(doors: Doors) -> None:
    """Two VMs of 1000 bytes where 1900 may land: the one that is on its way counts, too."""
    doors.snapshot = lambda: a_snapshot(doors.world, memory=1900)
    doors._must_find_room("v0", "a2")
    send(doors.world, "v0", "a1", "a2")
    with pytest.raises(BrokenError, match="2000 bytes on a2, where 1900 may land"):
        doors._must_find_room("v1", "a2")


def test_what_leaves_a_host_is_counted_there_until_it_is_gone(doors: Doors) -> None:
    send(doors.world, "v0", "a1", "a2")
    doors.snapshot = lambda: a_snapshot(doors.world, memory=2500)
    with pytest.raises(BrokenError, match="3000 bytes on a1"):
        doors._must_find_room("another", "a1")


def test_a_start_that_leaves_too_little_cpu_breaks_the_life(doors: Doors) -> None:
    """Three cores expected with a spread of one, where 3.9 may land."""
    doors.snapshot = lambda: a_snapshot(doors.world, cores=6.0, forecast=Forecast(3.0, 1.0))
    with pytest.raises(BrokenError, match=r"4\.000 cores on a2"):
        doors._must_find_room("v0", "a2")


def a_snapshot(
    world: World, memory: float = 1e9, cores: float = 64.0, forecast: Forecast | None = None
) -> Snapshot:
    """The world as seen by somebody for whom VMs may take this much of each host."""
    names = [host.name for host in world.site.hosts]
    size = round(memory / POLICY.thresholds.memory.landing)
    vms = {name: VM(name, 1000) for name in ("v0", "v1", "another")}
    hosts = {name: Host(name, cores, size) for name in names}
    return Snapshot(
        at=world.now(),
        cluster=Cluster(hosts, vms, dict.fromkeys(("v0", "v1"), "a1")),
        loads={},
        host_loads={},
        forecasts=dict.fromkeys(vms, forecast) if forecast else {},
    )


def test_a_start_while_nothing_can_be_recorded_breaks_the_life(doors: Doors) -> None:
    doors.is_full = lambda: True
    with pytest.raises(BrokenError, match="cannot be recorded"):
        doors.wake("a2")


def an_intent(plan: int) -> Intent:
    return Intent(IntentKind.WAKE, 0.0, "a2", plan=plan)


def test_a_start_breaks_the_life_where_the_policy_only_observes_by_now(doors: Doors) -> None:
    """In `advise`, it needs an operator's word; the clock that counts is balancerd's own."""
    night = {"name": "night", "from": "00:00", "to": "12:00", "timezone": "UTC", "mode": "observe"}
    doors.policy = POLICY.model_validate({"summary": "t", "mode": "act", "window": [night]})
    doors._must_be_warranted(an_intent(7))  # at 22:13
    doors.ahead = lambda: 2 * 3600.0
    with pytest.raises(BrokenError, match="in mode observe"):
        doors._must_be_warranted(an_intent(7))
    doors.policy = POLICY.model_validate({"summary": "t", "mode": "advise"})
    doors.approved = {7}
    doors._must_be_warranted(an_intent(7))
    with pytest.raises(BrokenError, match="in mode advise"):
        doors._must_be_warranted(an_intent(8))


def test_a_start_before_its_intent_is_committed_breaks_the_life(
    doors: Doors, tmp_path: Path
) -> None:
    doors.policy = POLICY.model_validate({"summary": "t", "mode": "act"})
    with Ledger(tmp_path / "ledger.db", durable=False) as ledger:
        doors.ledger = lambda: ledger
        with ledger.batch():
            ledger.intend(Intent(IntentKind.WAKE, 0.0, "a2"))
            with pytest.raises(BrokenError, match="not committed"):
                doors._must_be_intended("", "a2", "")
        doors._must_be_intended("", "a2", "")


OWN = {"local_disk": 1000}
BASED = OWN | {"on_top": 100}


@pytest.mark.parametrize(
    ("method", "flavour", "locked"),
    [
        (Method.POST_COPY, {}, True),
        (Method.POST_COPY, {"tags": {"post-copy": "yes"}}, False),
        (Method.PRE_COPY, OWN, True),
        (Method.COLD, OWN, True),
        (Method.STORAGE, {}, True),
        (Method.OVERLAY, {"tags": {"overlay": "yes"}}, True),
        (Method.OVERLAY, OWN | {"tags": {"overlay": "yes"}}, True),
        (Method.OVERLAY, BASED, True),
    ],
)
def test_a_method_that_is_not_for_this_vm_breaks_the_life(
    method: Method, flavour: dict[str, object], locked: bool
) -> None:
    scenario = a_scenario(flavours=[a_flavour(**flavour)], migration={"disk_locks": locked})
    doors = at_the_doors(a_world(scenario))
    with pytest.raises(BrokenError):
        doors._must_be_allowed("v0", method)


@pytest.mark.parametrize(
    ("method", "flavour"),
    [
        (Method.POST_COPY, {"tags": {"post-copy": "yes"}}),
        (Method.STORAGE, OWN),
        (Method.OVERLAY, BASED | {"tags": {"overlay": "yes"}}),
    ],
)
def test_methods_that_are_for_a_vm_are_let_through(
    method: Method, flavour: dict[str, object]
) -> None:
    doors = at_the_doors(a_world(a_scenario(flavours=[a_flavour(**flavour)])))
    doors._must_be_allowed("v0", method)


@pytest.mark.parametrize(
    ("locks", "wanted", "hand_over", "fault"),
    [
        ({}, "hand-over", False, ""),
        ({"disk_locks": False}, "hand-over", True, ""),
        ({"disk_locks": False}, "hand-over", False, "without a hand-over"),
        ({"disk_locks": False}, "plain", False, "without a hand-over"),
        ({"locks_shown": False}, "plain", False, ""),
        ({"locks_shown": False}, "hand-over", True, ""),
        ({"locks_shown": False}, "hand-over", False, "whose locks do not show"),
        ({"locks_shown": False}, "refuse", False, "whose locks do not show"),
    ],
)
def test_a_vm_that_might_run_twice_breaks_the_life_unless_the_policy_knows_better(
    locks: dict[str, bool], wanted: str, hand_over: bool, fault: str
) -> None:
    doors = at_the_doors(a_world(a_scenario(migration=locks)))
    doors.policy = Policy.model_validate({"summary": "t", "methods": {"unlocked": wanted}})
    broken = pytest.raises(BrokenError, match=fault) if fault else nullcontext()
    with broken:
        doors._must_not_run_twice("v0", Method.PRE_COPY, hand_over=hand_over)


def test_a_start_to_another_time_breaks_the_life() -> None:
    fault = {"kind": "clock-set", "host": "a2", "at": 0.0, "lasts": 60.0}
    worlds = (a_world(a_scenario(faults=[fault], seed=seed)) for seed in range(100))
    far = next(world for world in worlds if abs(world._state.ahead[1]) > 60.0)
    doors = at_the_doors(far)
    doors._must_be_of_one_time("v0", "a1", "a3", Method.PRE_COPY)
    with pytest.raises(BrokenError, match="s ahead"):
        doors._must_be_of_one_time("v0", "a1", "a2", Method.PRE_COPY)


def test_of_a_host_that_is_not_configured_nothing_is_told_and_nothing_is_done_there(
    doors: Doors,
) -> None:
    """As by a backend and power driver that were made without it."""
    doors.unconfigured = {"a1"}
    assert [reading.host for reading in doors.observe().readings] == ["a2", "a3", "a4", "a5"]
    assert doors.locate("v0", "", ["a1"]).presence == {"a1": Presence.UNREACHABLE}
    assert doors.preflight("v0", "", "a1", "a2", Method.PRE_COPY).source.error
    assert doors.states(["a1"]) == {"a1": PowerState.UNKNOWN}
    with pytest.raises(BackendError, match="no such host is configured"):
        doors.abort("v0", "a1")
    with pytest.raises(PowerError):
        doors.wake("a1")


def test_a_host_that_holds_half_of_a_vm_is_not_to_sleep(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies when only what runs keeps a host awake."""
    monkeypatch.setattr(doors, "_must_be_intended", lambda *_: None)
    doors.world.hand.pause("v0")
    doors.world.hand.shut_off("v1")
    with pytest.raises(BrokenError, match=r"put to sleep with \['v0'\]"):
        doors.sleep("a1")
