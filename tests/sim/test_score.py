"""A run's summary and its exported events tell the same story.

The second scorer (`benchmarks/score_events.py`) works from the events, the trace and the scenario
file alone and shares no code with the simulator.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.score import score
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.export import Event, export
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.core.model import Method
from balancerd.core.observation import Presence
from balancerd.core.policies.policy import Policy
from balancerd.documents import parse
from balancerd.simulation import Result, simulate, without_balancing
from benchmarks import score_events
from tests.worlds import counters, reading

HOSTS, VMS, HOURS = 8, 24, 6
SCENARIO = f"""\
name = "small"
start = "2026-03-02T00:00:00+00:00"
duration = "{HOURS}h"
cycle = "300s"
memory = "enforced"
[placement]
rule = "random"
[load]
kind = "trace"
step = "300s"
[network]
host = "1 Gbit/s"
[migration]
bandwidth = "500 Mbit/s"
[power]
boot = "90s"
shutdown = "0s"
[[hosts]]
name = "h%d"
count = {HOSTS // 2}
step = 2
cores = 4
memory = "16 GB"
power_curve = [60, 80, 90]
[[hosts]]
name = "h%d"
count = {HOSTS // 2}
first = 1
step = 2
cores = 4
speed = 1.5
memory = "24 GB"
power_curve = [70, 80, 90, 95, 100, 110]
[[flavours]]
cpu = 2
memory = "2 GB"
[[flavours]]
cpu = 1.5
memory = "1500 MB"
"""
FIGURES = (
    "energy_kwh",
    "slatah",
    "pdm",
    "slav",
    "esv",
    "migrations",
    "power_offs",
    "power_ons",
    "mean_active_hosts",
    "overload_host_seconds",
    "overload_share",
    "unserved_core_seconds",
    "violations",
)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Load by day and night, noisy enough to overload some host now and then."""
    directory, random = tmp_path_factory.mktemp("trace"), np.random.default_rng(7)
    steps = HOURS * 12
    wave = 45 + 35 * np.sin(np.linspace(0, 2 * np.pi, steps))
    for number in range(VMS):
        values = np.clip(wave + random.normal(0, 20, steps), 0, 100).astype(int)
        (directory / f"vm{number:02}").write_text("\n".join(map(str, values)) + "\n")
    return directory


@pytest.fixture
def site(trace: Path) -> Site:
    return build(parse(SCENARIO, Scenario, "small.toml"), trace)


def rescored(events: Iterable[Event], trace: Path) -> dict[str, Any]:
    """The events as they come over a pipe, scored from outside."""
    lines = [json.dumps(event) for event in events]
    outside = score_events.Site(tomllib.loads(SCENARIO), trace)
    return score_events.result(outside, map(json.loads, lines))


def agree(summary: Mapping[str, Any], outside: Mapping[str, Any]) -> None:
    """Times in events are rounded to a millisecond, so sums differ by a little."""
    assert outside["problems"] == []
    for figure in FIGURES:
        assert outside[figure] == pytest.approx(summary[figure], rel=1e-4), figure


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_moves_score_the_same_from_inside_and_from_outside(
    site: Site, trace: Path, seed: int
) -> None:
    """Seen to fail when a move counts from its start, when booting hosts draw by their load, when
    the demand of a step is taken from the next one, and when failed moves are counted."""
    world, random = World(site), np.random.default_rng(seed)
    start, end = site.scenario.start, site.scenario.start + site.scenario.duration
    names = [host.name for host in site.hosts]
    while world.now() < end:
        for _ in range(int(random.integers(0, 4))):
            act_at_random(world, names, random)
        until = min(world.now() + float(random.exponential(150)), end)
        while world.now() < until:
            world.advance(min(world.next_event(), until))
            world.reports()
    assert world.accounts.seconds == pytest.approx(end - start)
    found = score(world)
    assert found.migrations > 50
    assert found.migrations_failed > 5
    assert found.power_ons + found.power_offs > 3
    agree({name: getattr(found, name) for name in FIGURES}, rescored(world.events(), trace))


def act_at_random(world: World, names: list[str], random: np.random.Generator) -> None:
    """Move a VM to a host that is on and has room, or give its move up, or switch an empty host."""
    host = str(random.choice(names))
    told = reading(world, host)
    if told.error:
        world.wake(host)
    elif not told.vms and random.random() < 0.5:
        world.sleep(host)
    else:
        vm = world.site.vms[int(random.integers(VMS))]
        (source,) = world.running(vm.name)
        if world.locate(vm.name, vm.uuid, [source]).presence[source] is not Presence.RUNNING:
            world.abort(vm.name, source)
        elif source != host and counters(world, host).memory_available >= vm.memory:
            world.migrate(vm.name, source, host, Method.PRE_COPY, 0, 0.3)


def test_without_balancing_nothing_moves_and_the_whole_day_is_counted(site: Site) -> None:
    found = without_balancing(site)
    on = {site.hosts[index] for index in range(HOSTS)}
    assert (found.migrations, found.power_offs, found.mean_active_hosts) == (0, 0, len(on))
    idle = sum(host.watts(0) for host in on) * site.scenario.duration / 3.6e6
    full = sum(host.watts(1) for host in on) * site.scenario.duration / 3.6e6
    assert idle < found.energy_kwh < full


PACK = Policy.model_validate(
    {
        "summary": "pack, for tests",
        "name": "pack",
        "mode": "act",
        "objective": "pack",
        "limits": {"per_site": 4, "per_host": 2, "gain": 0.0},
        "power": {"sleep_idle": True, "reserve": 0, "idle_for": 300.0},
    }
)


def lived(site: Site, directory: Path) -> tuple[Result, list[Event]]:
    """A run of the production loop: its result, and the events of its record."""
    directory.mkdir()
    with (
        Ledger(directory / "ledger.db", durable=False) as ledger,
        SamplesStore(directory / "samples.db", durable=False) as samples,
    ):
        result = simulate(site, PACK, ledger, samples)
    with Database(directory / "ledger.db", LEDGER, Access.READ) as ledger:
        return result, list(export(ledger, 0.0))


def test_the_loop_saves_energy_and_its_record_says_what_its_summary_says(
    site: Site, trace: Path, tmp_path: Path
) -> None:
    result, events = lived(site, tmp_path / "record")
    summary = result.as_json()
    assert summary["migrations"] > 5
    assert summary["power_offs"] > 0
    assert summary["violations"] == 0
    assert summary["energy_kwh"] < without_balancing(site).energy_kwh
    assert (summary["cycles"], summary["policy"]) == (HOURS * 12, "pack")
    agree(summary, rescored(events, trace))


def test_the_same_scenario_gives_the_same_run(site: Site, tmp_path: Path) -> None:
    """Event for event: no set order, no clock and no randomness reaches a decision."""
    first, second = (lived(site, tmp_path / name)[1] for name in ("a", "b"))
    assert first == second
