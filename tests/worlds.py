"""Small simulated sites for tests, with everything that does not matter filled in.

`a_world()` has three hosts of 4 cores and 16 GiB on links of 100 bytes-per-second units (see LINK)
and two VMs of 2 cores and 1000 bytes each on the first host. Round numbers, so that a test can do
its sums by hand.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from balancerd.adapters.sim.load import Table
from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sim.world import World
from balancerd.core.model import Method
from balancerd.core.observation import (
    HostCounters,
    HostReading,
    JobReport,
    Presence,
    VMReading,
)

START = 1_700_000_000.0
LINK = 100  # bytes per second
VM_MEMORY = 1000  # bytes: ten seconds over a link alone
HOST_MEMORY = 5000


def a_scenario(**changes: Any) -> Scenario:
    """Three hosts a1, a2, a3 and two VMs v0, v1; `changes` are keys of the scenario."""
    fields: dict[str, Any] = {
        "name": "test",
        "start": START,
        "duration": 3600.0,
        "cycle": 60.0,
        "hosts": [a_host_group()],
        "flavours": [a_flavour()],
        "vms": {"name": "v%d", "count": 2},
        "network": {"host": LINK},
        "load": {"step": 300.0},
        "power": {"boot": 120.0, "shutdown": 30.0},
    }
    return Scenario.model_validate(fields | changes)


def a_host_group(**changes: Any) -> dict[str, Any]:
    """Hosts of 4 cores whose draw is straight from 100 W to 200 W."""
    group = {
        "name": "a%d",
        "first": 1,
        "count": 3,
        "cores": 4,
        "memory": HOST_MEMORY,
        "power_curve": [100.0, 200.0],
    }
    return group | changes


def a_flavour(**changes: Any) -> dict[str, Any]:
    """VMs of 2 cores."""
    return {"vcpus": 2, "cpu": 2.0, "memory": VM_MEMORY} | changes


def a_site(scenario: Scenario | None = None, demand: Any = None) -> Site:
    """The scenario's site; `demand` (steps x VMs, reference cores) takes the load's place."""
    scenario = scenario or a_scenario()
    site = build(scenario)
    if demand is None:
        demand = np.ones((1, len(site.vms)))
    table = Table(scenario.load.step, np.array(demand, dtype=float))
    return Site(scenario, site.hosts, site.links, site.vms, site.flavours, table, site.placement)


def a_world(scenario: Scenario | None = None, demand: Any = None) -> World:
    """A world of that site, at its start."""
    return World(a_site(scenario, demand))


def send(
    world: World,
    vm: str,
    source: str,
    target: str,
    *,
    method: Method = Method.PRE_COPY,
    bandwidth: int = 0,
    downtime: float = 0.0,
    hand_over: bool = False,
) -> None:
    """Ask for a migration, if not told otherwise without a cap and with no pause allowed."""
    world.migrate(vm, source, target, method, bandwidth, downtime, hand_over=hand_over)


def reading(world: World, host: str) -> HostReading:
    """What one host tells now."""
    return next(one for one in world.observe().readings if one.host == host)


def counters(world: World, host: str) -> HostCounters:
    """The counters of a host that answers."""
    found = reading(world, host).counters
    assert found is not None
    return found


def used(vm: VMReading) -> float:
    """CPU seconds of a VM that runs, as its host counts them."""
    assert vm.counters is not None
    assert vm.counters.cpu_seconds is not None
    return vm.counters.cpu_seconds


def presences(world: World, vm: str, *hosts: str) -> tuple[Presence, ...]:
    """What each of the hosts says of the VM."""
    return tuple(world.locate(vm, "", hosts).presence[host] for host in hosts)


def live(world: World, seconds: float) -> list[JobReport]:
    """Let time pass, event by event; the ends of migrations that were reported."""
    return watched(world, seconds, lambda: None)


def watched(world: World, seconds: float, check: Callable[[], None]) -> list[JobReport]:
    """As `live`, with a check after every event."""
    ends, until = [], world.now() + seconds
    while world.now() < until:
        world.advance(min(world.next_event(), until))
        ends += [report for report in world.reports() if report.ended]
        check()
    return ends
