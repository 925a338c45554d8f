"""Predictions of migrations on a simulated site: they get better, and say how good they are.

First of the model and what it learns by themselves; then as it all happens, through the planner,
links that migrations and production share, the executor and the record.
"""

from math import exp, log
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import build
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.cli.report import compared
from balancerd.core.lessons import NOMINAL, Lesson, Lessons
from balancerd.core.model import Load, Snapshot
from balancerd.core.moving.cost import Cost, migration_cost
from balancerd.core.moving.topology import Topology
from balancerd.core.observation import JobReport
from balancerd.core.policies.choices import Mode
from balancerd.core.units import MIB
from balancerd.simulation import simulate
from tests.sites import policy

# What nobody tells balancerd: the hosts' own cap, what starting takes, how VMs reuse their memory.
HIDDEN = {"bandwidth": "60 MiB/s", "setup": "2s", "switch_over": "80ms"}
SITE = {
    "name": "predictions",
    "start": "2026-03-02T00:00:00+00:00",
    "duration": "10d",
    "hosts": [{"name": "h%d", "count": 6, "cores": 32, "memory": "256 GiB"}],
    "network": {"host": "1 Gbit/s", "rack": "1 Gbit/s", "racks": 2, "rack_name": "r%d"},
    "vms": {"name": "v%02d", "count": 24},
    "load": {"step": "60s", "level": 0.5},
    "flavours": [
        {"cpu": 2, "memory": "2 GiB", "dirty_rate": "20 MB/s", "working_set": 0.05},
        {"cpu": 4, "memory": "8 GiB", "dirty_rate": "60 MB/s", "working_set": 0.3},
        {"cpu": 1, "memory": "4 GiB", "dirty_rate": "0 MB/s"},
    ],
    "migration": HIDDEN,
}
RULES = policy(limits={"bandwidth": 100 * MIB}, methods={"auto_converge": True})


class Trial:
    """Migrations one after another, now and then two at once: predicted, carried out, learned."""

    def __init__(self, seed: int) -> None:
        scenario = {**SITE, "load": {"step": "60s", "level": 0.5, "seed": seed + 1}}
        self.world = World(build(Scenario.model_validate(scenario)))
        self.random = np.random.default_rng(seed)
        self.lessons = Lessons()
        self.errors: list[float] = []
        self.held: list[bool] = []
        cluster = self.world.cluster()
        self.topology = Topology.of(cluster.hosts, cluster.links)

    def run(self, rounds: int) -> None:
        """So many rounds, an hour apart."""
        for _ in range(rounds):
            self.world.advance(self.world.now() + 3600.0)
            names = self.random.choice(24, size=1 + int(self.random.random() < 0.3), replace=False)
            ordered = dict(self._order(f"v{int(number):02d}") for number in names)
            for end in self._ends(len(ordered)):
                assert not end.error
                self._learn(end, ordered[end.vm])

    def _order(self, vm: str) -> tuple[str, Cost]:
        cluster = self.world.cluster()
        source = cluster.placement[vm]
        others = [host for host in sorted(cluster.hosts) if host != source]
        target = others[int(self.random.integers(len(others)))]
        path = self.topology.path(self.topology.row[source], self.topology.row[target])
        link = self.topology.bottleneck(path, self.topology.bandwidth)
        rate = min(100.0 * MIB, *(float(self.topology.bandwidth[step]) for step in path))
        cost = migration_cost(vm, self._snapshot(), RULES, rate, link, self.lessons)
        self.world.migrate(vm, source, target, cost.method, 100 * MIB, RULES.limits.downtime)
        return vm, cost

    def _snapshot(self) -> Snapshot:
        """The site with what its hosts tell of their VMs' memory."""
        loads = {
            reading.vm.name: Load(
                0.0,
                0.0,
                reading.counters.memory_used or 0,
                dirty_rate=reading.counters.dirty_rate,
            )
            for host in self.world.observe().readings
            for reading in host.vms
            if reading.counters is not None
        }
        return Snapshot(self.world.now(), self.world.cluster(), loads, {}, {})

    def _ends(self, count: int) -> list[JobReport]:
        found: list[JobReport] = []
        while len(found) < count:
            self.world.advance(self.world.next_event())
            found += [report for report in self.world.reports() if report.ended]
        return found

    def _learn(self, end: JobReport, cost: Cost) -> None:
        assert end.seconds is not None
        assert end.bytes is not None
        assert end.downtime is not None
        error = abs(log(end.seconds / cost.seconds))
        self.errors.append(error)
        self.held.append(error <= log(cost.basis.seconds_factor))
        basis = cost.basis
        figures = {
            "seconds": (basis.model_seconds, end.seconds),
            "bytes": (basis.model_bytes, float(end.bytes)),
            "downtime": (basis.model_downtime, end.downtime),
        }
        lesson = Lesson(end.vm, cost.method, basis.link, figures)
        self.lessons = self.lessons.after(lesson)


@pytest.mark.parametrize("seed", range(2))
def test_the_median_error_falls_as_history_grows_and_nine_intervals_in_ten_hold(seed: int) -> None:
    """Dies if history does not reach the prediction, or if an interval is only said."""
    trial = Trial(seed)
    trial.run(150)
    first, last = median(trial.errors[:20]), median(trial.errors[-60:])
    assert last < 0.7 * first
    assert exp(last) < 1.1
    assert np.mean(trial.held) == pytest.approx(NOMINAL, abs=0.06)


SERVICE = SITE | {
    "duration": "2d",
    "cycle": "5m",
    "hosts": [
        {"name": "h%d", "count": 9, "cores": 24, "memory": "256 GiB"}
        | {"power_curve": [100.0, 200.0]}
    ],
    "network": {"host": "1 Gbit/s", "rack": "2 Gbit/s", "racks": 3, "rack_name": "r%d"},
    "vms": {"name": "v%02d", "count": 60},
    "placement": {"rule": "random", "seed": 1},
    "load": {"step": "5m", "level": 0.4, "seed": 1},
}
RESTLESS = policy(
    "spread",
    thresholds={"imbalance": 0.02},
    limits={"gain": 0.0, "benefit": 0.0, "cooldown": 3600.0, "cooldown_max": 7200.0},
).model_copy(update={"mode": Mode.ACT})


def test_predictions_get_better_in_the_record_of_a_service_with_many_vms_and_links(
    tmp_path: Path,
) -> None:
    """As `report` tells it. Dies if what was learned does not reach the planner's costs, or if what
    is recorded is not what was predicted."""
    with (
        Ledger(tmp_path / "ledger.db", durable=False) as ledger,
        SamplesStore(tmp_path / "samples.db", durable=False) as samples,
    ):
        simulate(build(Scenario.model_validate(SERVICE)), RESTLESS, ledger, samples)
        reader = Reader(ledger.database)
        rows, ends = reader.migrations(), reader.ends()
    done = [row for row in rows if row["outcome"] == "done"]
    ways = {row["link"] for row in done}
    assert (len(done) >= 100, len({row["vm"] for row in done}) >= 40, len(ways) >= 6) == (True,) * 3
    (found,) = compared(ends)
    assert found["seconds_error_p50_newest"] < 0.6 * found["seconds_error_p50_oldest"]
    assert found["seconds_error_p50_newest"] < 0.05
    assert found["downtime_error_p50_newest"] < found["downtime_error_p50_oldest"]
    assert found["seconds_as_foreseen_share"] > NOMINAL - 0.05
