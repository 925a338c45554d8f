"""CPU, power and counters of a simulated site, on sums done by hand."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.adapters.sim.flights import Phase, Tactic
from balancerd.adapters.sim.machines import NOWHERE, Machines
from balancerd.adapters.sim.score import score
from balancerd.adapters.sim.state import State
from balancerd.adapters.sim.world import World
from balancerd.core.model import Host, PowerState
from balancerd.core.observation import Observation, Presence
from balancerd.ports import BackendError
from tests.worlds import (
    HOST_MEMORY,
    START,
    VM_MEMORY,
    a_flavour,
    a_host_group,
    a_scenario,
    a_site,
    a_world,
    live,
    reading,
    send,
    used,
)

KWH = 3.6e6


def test_a_host_draws_by_its_curve_for_every_second_it_is_on() -> None:
    """a1 at 2 of 4 cores draws 150 W, two idle hosts 100 W each."""
    world = a_world()
    live(world, 100)
    assert world.accounts.energy.tolist() == pytest.approx([15000.0, 10000.0, 10000.0])


@given(
    st.lists(st.floats(0, 500), min_size=2, max_size=12),
    st.lists(st.floats(0, 500), min_size=2, max_size=12),
    st.floats(0, 1),
)
def test_hosts_of_different_curves_draw_what_their_facts_say(
    first: list[float], second: list[float], share: float
) -> None:
    """Seen to fail when the curves are taken to have one length."""
    hosts = [Host("a", 8.0, 1, 8, power_curve=tuple(first))]
    hosts.append(Host("b", 4.0, 1, 4, power_curve=tuple(second)))
    machines = Machines(hosts, (0, 1), 0.1)
    machines.demand = np.array([8.0 * share, 4.0 * share])
    machines.run(10.0)
    expected = [10.0 * host.watts(share) for host in hosts]
    assert machines.accounts.energy.tolist() == pytest.approx(expected)


def test_a_host_over_its_capacity_serves_each_vm_proportionally_less() -> None:
    """Two VMs ask for 3 and 1.5 of the 4 cores: together 4.5, so each gets 8/9."""
    hosts = [Host("a", 4.0, 1, 4, power_curve=(100.0, 200.0))]
    machines = Machines(hosts, (0, 0), 0.0)
    machines.demand = np.array([3.0, 1.5])
    machines.run(90.0)
    assert machines.vm_used.tolist() == pytest.approx([240.0, 120.0])
    assert machines.vm_steal.tolist() == pytest.approx([30.0, 15.0])
    assert machines.host_busy.tolist() == pytest.approx([360.0])
    assert machines.accounts.overloaded.tolist() == [90.0]
    assert machines.accounts.unserved.tolist() == pytest.approx([30.0, 15.0])


def test_a_host_exactly_full_is_not_overloaded() -> None:
    machines = Machines([Host("a", 0.3, 1, 1)], (0, 0, 0), 0.0)
    machines.demand = np.array([0.1, 0.1, 0.1])
    machines.run(10.0)
    assert machines.accounts.overloaded.tolist() == [0.0]


def test_counters_are_in_the_hosts_own_cpu_seconds() -> None:
    """A core worth half a reference core works two seconds for one reference core second."""
    machines = Machines([Host("a", 2.0, 1, cores=4)], (0,), 0.0)
    machines.demand = np.array([1.0])
    machines.run(10.0)
    assert (machines.vm_used[0], machines.host_busy[0]) == (20.0, 20.0)


def test_demand_follows_the_load_step_by_step() -> None:
    world = a_world(a_scenario(load={"step": 60.0}), demand=[[1, 0], [2, 1], [0, 0]])
    live(world, 150)
    first, second = reading(world, "a1").vms
    assert used(first) == pytest.approx(60 * 1 + 60 * 2)
    assert used(second) == pytest.approx(60 * 1)


def test_a_migrating_vm_loses_a_tenth_and_its_counters_begin_again() -> None:
    world = a_world()
    live(world, 10)
    send(world, "v0", "a1", "a2")
    live(world, 5)
    assert used(reading(world, "a1").vms[1]) == pytest.approx(10 + 5 * 0.9)
    live(world, 10)
    assert used(reading(world, "a2").vms[0]) == pytest.approx(5.0)
    assert world.accounts.migration_loss[0] == pytest.approx(10 * 0.1)


def test_waking_takes_the_boot_time_at_full_draw() -> None:
    world = a_world(a_scenario(power={"boot": 120.0, "shutdown": 0.0}))
    world.sleep("a3")
    live(world, 50)
    world.wake("a3")
    assert world.states(["a3"]) == {"a3": PowerState.WAKING}
    assert reading(world, "a3").error
    live(world, 119)
    assert world.states(["a3"]) == {"a3": PowerState.WAKING}
    live(world, 1.001)
    assert world.states(["a3"]) == {"a3": PowerState.ON}
    assert world.accounts.energy[2] == pytest.approx(120 * 200, rel=1e-3)
    assert reading(world, "a3").error == ""


def test_going_to_sleep_takes_its_time_and_then_nothing_is_drawn() -> None:
    world = a_world()
    world.sleep("a3")
    assert world.states(["a3"]) == {"a3": PowerState.SLEEPING}
    live(world, 31)
    assert world.states(["a3"]) == {"a3": PowerState.OFF}
    live(world, 100)
    assert world.accounts.energy[2] == pytest.approx(30 * 100)
    facts = reading(world, "a3").facts
    assert facts is not None
    assert (facts.power, facts.memory) == (PowerState.OFF, HOST_MEMORY)
    assert world.violations == []


def test_asking_for_the_power_a_host_has_changes_nothing() -> None:
    world = a_world()
    world.wake("a1")
    world.sleep("a3")
    world.sleep("a3")
    live(world, 60)
    assert score(world).power_offs == 1


def test_a_host_put_to_sleep_with_vms_takes_them_down_and_that_is_a_violation() -> None:
    world = a_world()
    world.sleep("a1")
    assert [v.kind for v in world.violations] == ["switched off with a VM"] * 2
    assert world.running("v0") == ()
    live(world, 100)
    assert world.accounts.unserved.tolist() == pytest.approx([100.0, 100.0])


def test_switching_a_target_off_under_a_migration_is_a_violation() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 5)
    world.sleep("a2")
    assert [v.kind for v in world.violations] == ["switched off under a migration"]
    (end,) = live(world, 60)
    assert (end.error_code, world.running("v0")) == (1, ("a1",))


def test_sending_a_vm_to_a_host_that_is_off_is_a_violation() -> None:
    world = a_world()
    world.sleep("a3")
    live(world, 60)
    send(world, "v0", "a1", "a3")
    (end,) = live(world, 60)
    assert (end.error_code, world.running("v0")) == (38, ("a1",))
    assert [v.kind for v in world.violations] == ["sent to a host that is not on"]


def test_a_host_that_is_off_cannot_be_asked() -> None:
    world = a_world()
    world.sleep("a3")
    live(world, 60)
    assert world.locate("v0", "", ["a3"]).presence["a3"] is Presence.UNREACHABLE
    with pytest.raises(BackendError):
        world.undefine("v0", "a3")


def test_where_power_follows_the_vms_hosts_are_on_from_the_first_to_the_last() -> None:
    rules = {"boot": 0.0, "shutdown": 0.0, "follows_vms": True, "start_empty_off": True}
    world = a_world(a_scenario(power=rules))
    assert [s.value for s in world.states(["a1", "a2"]).values()] == ["on", "off"]
    send(world, "v0", "a1", "a2")
    send(world, "v1", "a1", "a2")
    live(world, 100)
    assert [s.value for s in world.states(["a1", "a2"]).values()] == ["off", "on"]
    assert world.locate("v0", "", ["a1"]).presence["a1"] is Presence.ABSENT
    assert world.accounts.powered.tolist() == pytest.approx([20.0, 100.0, 0.0], abs=1e-4)


def test_time_jumps_over_any_number_of_events() -> None:
    """One long advance is the same as one from event to event."""
    demand = np.linspace(0.0, 4.0, 24).reshape(12, 2)
    whole, stepped = (a_world(demand=demand) for _ in range(2))
    for world in (whole, stepped):
        send(world, "v0", "a1", "a2")
        world.sleep("a3")
    whole.advance(START + 3600)
    live(stepped, 3600)
    assert whole.accounts.energy.tolist() == pytest.approx(stepped.accounts.energy.tolist())
    assert whole.events() == stepped.events()


def test_the_present_moment_can_be_asked_for_again_and_again() -> None:
    world = a_world()
    live(world, 100)
    world.advance(START + 50)
    assert world.now() == START + 100
    assert (world.observe().at, world.monotonic()) == (START + 100, 100.0)


def test_the_score_of_a_quiet_hour() -> None:
    world = a_world()
    live(world, 3600)
    found = score(world)
    assert found.energy_kwh == pytest.approx((150 + 100 + 100) * 3600 / KWH)
    assert found.energy_bound_kwh == pytest.approx(2 * 3600 * 200 / 4 / KWH)
    assert (found.migrations, found.power_offs, found.power_ons) == (0, 0, 0)
    assert found.mean_active_hosts == pytest.approx(3.0)
    assert found.vms == 2
    assert (found.slatah, found.pdm, found.violations) == (0.0, 0.0, 0)


def test_the_score_of_an_overloaded_hour_with_a_migration() -> None:
    """a1 has 4 cores; its two VMs ask for 3 each until v0 has arrived on a2."""
    scenario = a_scenario(flavours=[a_flavour(cpu=2.0)])
    world = a_world(scenario, demand=[[3.0, 3.0]])
    live(world, 890)
    send(world, "v0", "a1", "a2")
    live(world, 3600 - 890)
    found = score(world)
    assert found.overload_host_seconds == pytest.approx(900.0, abs=1e-3)
    assert found.slatah == pytest.approx((900 / 3600 + 0 + 0) / 3, rel=1e-6)
    assert found.pdm == pytest.approx((0.1 * 10 / 3600 + 0) / 2, rel=1e-5)
    assert found.slav == pytest.approx(found.slatah * found.pdm)
    assert found.esv == pytest.approx(found.slav * found.energy_kwh)
    assert found.unserved_core_seconds == pytest.approx(900 * 2.0, abs=0.01)
    assert (found.migrations, found.moves_per_vm, found.bytes_moved) == (1, 0.5, VM_MEMORY)


def test_observing_makes_no_new_facts() -> None:
    world = a_world()
    before, after = world.observe(), world.observe()
    assert before.readings[0].facts is after.readings[0].facts
    assert before.readings[0].vms[0].vm is after.readings[0].vms[0].vm


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_whatever_moves_every_vm_runs_once_and_counters_only_grow(seed: int) -> None:
    """Without faults. Seen to fail when a migration's end leaves the place unchanged."""
    random = np.random.default_rng(seed)
    site = a_site(
        a_scenario(
            hosts=[a_host_group(count=4, memory=20 * VM_MEMORY)],
            vms={"name": "v%d", "count": 6},
            migration={"setup": 0.5, "switch_over": 0.25},
            flavours=[a_flavour(dirty_rate=60)],
        ),
        demand=random.uniform(0, 2, size=(12, 6)),
    )
    world = World(site)
    hosts = [host.name for host in site.hosts]
    counters: dict[tuple[str, str], float] = {}
    arrivals: list[str] = []
    for _ in range(30):
        vm = f"v{random.integers(6)}"
        (source,) = world.running(vm)
        with suppress(BackendError):  # there is no migration to abort
            if random.integers(4) == 3:
                world.abort(vm, source)
            else:
                send(world, vm, source, str(random.choice(hosts)), downtime=0.3)
        ends = live(world, float(random.uniform(0, 20)))
        arrivals += [end.vm for end in ends if not end.error]
        assert all(len(world.running(f"v{number}")) == 1 for number in range(6))
        _only_grow(world.observe(), counters)
    assert len(arrivals) == score(world).migrations
    assert world.violations == []


@given(st.lists(st.sampled_from(Phase), max_size=4), st.integers(0, 2**32 - 1))
def test_a_host_asked_alone_holds_the_memory_that_it_holds_among_all(
    phases: list[Phase], seed: int
) -> None:
    """Seen to fail when a VM under way in post-copy is charged to its target twice."""
    random, site = np.random.default_rng(seed), a_site()
    state, hosts, vms = State(site), len(site.hosts), len(site.vms)
    for phase in phases:
        vm, (source, target) = int(random.integers(vms)), random.integers(hosts, size=2).tolist()
        state.flights.begin(vm, source, target, Tactic.PRE_COPY, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
        state.flights.rows["phase"][-1] = phase
        state.machines.place[vm] = random.choice([source, target, NOWHERE])
    for copy in Presence:
        state.copies.oddities[int(random.integers(vms)), int(random.integers(hosts))] = copy
    assert [state.charges.on(host) for host in range(hosts)] == state.charges.bytes().tolist()


def _only_grow(observation: Observation, counters: dict[tuple[str, str], float]) -> None:
    """Counters of a VM on one host never shrink, but begin again after it came from elsewhere."""
    seen = set()
    for host in observation.readings:
        assert host.counters is not None
        assert host.counters.cpu_busy >= counters.get((host.host, ""), 0.0)
        counters[host.host, ""] = host.counters.cpu_busy
        for vm in host.vms:
            if vm.counters:
                key = (host.host, vm.vm.name)
                seen.add(key)
                assert used(vm) >= counters.get(key, 0.0)
                counters[key] = used(vm)
    for key in counters.keys() - seen:
        if key[1]:
            del counters[key]
