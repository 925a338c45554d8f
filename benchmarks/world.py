"""Days of the classic scenario, lived through by the production loop with any planner.

Shared by `classic.py` and `baselines.py`; measures nothing by itself.
"""

import logging
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.policies.policy import Policy
from balancerd.core.units import HOUR
from balancerd.documents import load
from balancerd.loop import Planner
from balancerd.simulation import simulate

TRACES = "BALANCERD_BENCH_TRACES"
QUICK = bool(os.environ.get("QUICK"))
# What is told of each day.
FIGURES = (
    "energy_kwh",
    "energy_bound_kwh",
    "energy_to_bound",
    "energy_to_floor",
    "migrations",
    "moves_per_vm",
    "overload_share",
    "mean_active_hosts",
    "slatah",
    "pdm",
    "slav",
    "esv",
    "power_offs",
    "plan_seconds_p99",
    "violations",
    "cpu_seconds",
)


@contextmanager
def days(arguments: Sequence[str]) -> Iterator[Mapping[str, Path]]:
    """The days of a directory of traces, by name: folders, or archives that are unpacked.

    The directory is the first argument, or what the environment says. With QUICK only one day.
    """
    place = arguments[0] if arguments else os.environ.get(TRACES, "")
    if not place:
        sys.exit(f"give a directory with traces of days, or set {TRACES}")
    with tempfile.TemporaryDirectory(prefix="balancerd-traces-") as unpacked:
        for archive in sorted(Path(place).glob("*.tar.gz")):
            with tarfile.open(archive) as content:
                content.extractall(unpacked, filter="data")
        folders = [path for root in (place, unpacked) for path in Path(root).iterdir()]
        found = {path.name: path for path in sorted(folders) if path.is_dir()}
        if not found:
            sys.exit(f"{place}: neither folders nor archives of days")
        yield dict(list(found.items())[:1]) if QUICK else found


def live(scenario: Path, trace: Path, policy: Policy, planner: Planner) -> dict[str, Any]:
    """One day's figures."""
    logging.disable(logging.WARNING)  # what a move came to is in the figures
    site = build(load(scenario, Scenario), trace, None)
    with (
        tempfile.TemporaryDirectory(prefix="balancerd-") as record,
        Ledger(Path(record) / "ledger.db", durable=False) as ledger,
        SamplesStore(Path(record) / "samples.db", durable=False) as samples,
    ):
        result = simulate(site, policy, ledger, samples, planner=planner, batch=ledger.batch)
    found = result.as_json()
    found["energy_to_bound"] = found["energy_kwh"] / found["energy_bound_kwh"]
    if site.scenario.memory == "enforced":
        floor = memory_floor(site, found["energy_bound_kwh"])
        found["energy_to_floor"] = found["energy_kwh"] / floor
    return {name: round(found[name], 6) for name in FIGURES if name in found}


def memory_floor(site: Site, bound: float) -> float:
    """The kWh of a day on as few hosts as hold all VMs' memory, each of the kind that does most
    work per watt at full load, the demand spread evenly over them. `bound`: `energy_bound_kwh`."""
    best = max(site.hosts, key=lambda host: host.cpu / max(host.watts(1.0), 1e-9))
    hosts = ceil(sum(vm.memory for vm in site.vms) / best.memory)
    hours = site.scenario.duration / HOUR
    full = bound * 1000 / hours / max(best.watts(1.0), 1e-9)  # hosts that the demand would fill
    return hosts * best.watts(full / hosts) * hours / 1000


def medians(lived: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the days."""
    told = next(iter(lived.values()))
    return {name: round(median(day[name] for day in lived.values()), 6) for name in told}
