"""Whether balancerd leaves a site in peace once it is as it should be.

    python benchmarks/stability.py [PART...]

Prints one JSON object with three parts (all, or those named), and each policy's own on stderr as
soon as it is there:

again   sites that grew without a plan, planned; then a part of each plan is done, and planning is
        asked again: what is left of the plan, or something else, and is that better?
noise   a site whose load only wavers around a level (first-order autoregression, half an hour's
        memory), under shipped policies: moves in 24 hours after 6 in which it may settle
month   30 days of people, jobs, bursts and weekends under the policies that act: VMs that went
        back where they came from within their cool-down

QUICK=1 takes fewer seeds and days.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from balancerd.adapters.sim.load import Table
from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.config import load_policy
from balancerd.core.model import Cluster, Forecast, Load, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove, rests_until
from balancerd.core.plan import Move, Plan
from balancerd.core.planner import plan
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.policy import Policy
from balancerd.core.units import DAY, HOUR, parse_time
from balancerd.places import SHIPPED_POLICIES
from balancerd.simulation import simulate

QUICK = bool(os.environ.get("QUICK"))
STEP = 300.0
SETTLING = 6 * HOUR
NIGHT = "power-saving, always night"
ACTING = ("spread", "consolidate", "power-saving")
WAVERS = 0.25  # standard deviation of a VM's use, as a share of its level
MEMORY = 1800.0  # seconds after which a deviation is 1/e of what it was


def scenario(duration: float, cycle: float, seed: int) -> Scenario:
    """Twenty hosts of two kinds with 200 VMs that were put wherever there was room."""
    return Scenario.model_validate(
        {
            "name": "stability",
            "start": "2026-03-02T00:00:00+00:00",
            "duration": f"{duration:.0f}s",
            "cycle": f"{cycle:.0f}s",
            "placement": {"rule": "random", "memory_limit": 0.8, "seed": seed},
            "load": {"kind": "generated", "step": f"{STEP:.0f}s", "seed": seed, "level": 0.45},
            "network": {"host": "10 Gbit/s"},
            "power": {"boot": "150s", "shutdown": "60s"},
            "hosts": [
                _hosts("a%02d", 16, "192 GiB", [58, 96, 117, 139, 164, 192]),
                _hosts("b%02d", 20, "256 GiB", [48, 85, 109, 136, 165, 198]),
            ],
            "flavours": [
                {"name": "large", "count": 30, "vcpus": 8, "cpu": 8, "memory": "24 GiB"},
                {"name": "medium", "count": 70, "vcpus": 4, "cpu": 4, "memory": "8 GiB"},
                {"name": "small", "count": 100, "vcpus": 2, "cpu": 2, "memory": "4 GiB"},
            ],
        }
    )


def _hosts(name: str, cores: int, memory: str, curve: list[int]) -> dict[str, Any]:
    return {
        "name": name,
        "count": 10,
        "cores": cores,
        "memory": memory,
        "power_curve": [float(watts) for watts in curve],
    }


def wavering(duration: float, seed: int) -> Site:
    """A site without any trend."""
    site, random = build(scenario(duration, STEP, seed)), np.random.default_rng(seed)
    sizes = np.array([vm.size for vm in site.vms])
    levels = sizes * random.uniform(0.05, 0.45, len(sizes))
    keeps = np.exp(-STEP / MEMORY)
    noise = random.normal(0.0, 1.0, (round(duration / STEP) + 1, len(sizes)))
    for row in range(1, len(noise)):
        noise[row] = keeps * noise[row - 1] + np.sqrt(1.0 - keeps**2) * noise[row]
    demand = np.clip(levels * (1.0 + WAVERS * noise), 0.0, sizes)
    return replace(site, load=Table(STEP, demand))


@dataclass(frozen=True, slots=True)
class Lived:
    """Moves of a run that were done, and the score's figures."""

    moves: tuple[PastMove, ...]
    figures: dict[str, Any]


def lived(site: Site, policy: Policy) -> Lived:
    """What came of a scenario under a policy that may act."""
    with (
        tempfile.TemporaryDirectory(prefix="balancerd-") as record,
        Ledger(Path(record) / "ledger.db", durable=False) as ledger,
        SamplesStore(Path(record) / "samples.db", durable=False) as samples,
    ):
        acting = policy.model_copy(update={"mode": Mode.ACT})
        figures = simulate(site, acting, ledger, samples).as_json()
        rows = ledger.database.rows(_DONE)
        moves = tuple(
            PastMove(vm, source, target, at, Outcome.DONE) for vm, source, target, at in rows
        )
    return Lived(moves, figures)


_DONE = "SELECT vm, source, target, ended_at FROM migrations WHERE outcome = 'done' ORDER BY 4"


def shipped(name: str) -> Policy:
    """A policy of the project; "always night" is without its days, whose change moves VMs too."""
    policy = load_policy(SHIPPED_POLICIES / f"{name.partition(',')[0]}.toml")
    if name != NIGHT:
        return policy
    return policy.at(parse_time("2026-03-02T00:00:00+00:00"))


# --- noise


def noise() -> Iterator[tuple[str, Any]]:
    """Moves in 24 hours without a trend, by policy: of each seed."""
    seeds = range(1) if QUICK else range(3)
    for name in ("advise", "spread", NIGHT, "consolidate"):
        counts, settling = [], []
        for seed in seeds:
            site = wavering(SETTLING + DAY, seed)
            begin = site.scenario.start + SETTLING
            moves = lived(site, shipped(name)).moves
            counts.append(sum(move.at >= begin for move in moves))
            settling.append(len(moves) - counts[-1])
        yield name, {"moves": counts, "while_settling": settling}


# --- month


def month() -> Iterator[tuple[str, Any]]:
    """Moves of 30 days, by policy, and those that led a VM back within its cool-down."""
    days = 7 if QUICK else 30
    for name in ACTING:
        site, policy = build(scenario(days * DAY, 1800.0, 1)), shipped(name)
        run = lived(site, policy)
        yield (
            name,
            {
                "days": days,
                "moves": len(run.moves),
                "moves_per_vm_and_day": round(len(run.moves) / len(site.vms) / days, 3),
                "back_within_cooldown": _returns(run.moves, policy),
                "overload_share": round(run.figures["overload_share"], 5),
                "energy_kwh": round(run.figures["energy_kwh"], 1),
                "cpu_seconds": round(run.figures["cpu_seconds"], 1),
            },
        )


def _returns(moves: tuple[PastMove, ...], policy: Policy) -> int:
    """How often a VM went back where it had come from before its rest was over."""
    returns, past = 0, dict[str, list[PastMove]]()
    for move in moves:
        own = past.setdefault(move.vm, [])
        if own and move.target == own[-1].source:
            returns += move.at < rests_until(own, policy.limits)
        own.append(move)
    return returns


# --- again


def again() -> Iterator[tuple[str, Any]]:
    """What planning says after a part of a plan, by policy: shares of all cases."""
    seeds = range(5) if QUICK else range(40)
    for name in ("spread", NIGHT, "consolidate"):
        cases: list[dict[str, float]] = []
        for seed in seeds:
            cases += cases_of(grown(seed), shipped(name), np.random.default_rng(seed))
        yield (
            name,
            {
                "cases": len(cases),
                "another_plan": _mean(cases, "other"),
                "another_and_better": _mean(cases, "better"),
                "better_by_at_most": round(max((case["by"] for case in cases), default=0.0), 4),
                "moves_in_all_to_planned": _mean(cases, "moves"),
                "moved_twice": sum(case["twice"] for case in cases),
                "after_all_of_it": _mean([case for case in cases if case["whole"]], "more"),
            },
        )


def _mean(cases: list[dict[str, float]], key: str) -> float:
    return round(float(np.mean([case[key] for case in cases])), 4) if cases else 0.0


def grown(seed: int) -> Snapshot:
    """A site as it was found: everything is known, loads are those of a Monday's noon."""
    site = build(scenario(DAY, STEP, seed))
    hosts = {host.name: host for host in site.hosts}
    vms = {vm.name: vm for vm in site.vms}
    names = [host.name for host in site.hosts]
    placement = {vm.name: names[host] for vm, host in zip(site.vms, site.placement, strict=True)}
    demand = dict(zip(vms, site.load.demand(12 * HOUR).tolist(), strict=True))
    loads = {name: Load(cpu, cpu, vms[name].memory) for name, cpu in demand.items()}
    forecasts = {name: Forecast(cpu, WAVERS * cpu) for name, cpu in demand.items()}
    found = Snapshot(0.0, Cluster(hosts, vms, placement), loads, {}, forecasts)
    return replace(found, host_loads=_totals(found))


def _totals(snapshot: Snapshot) -> dict[str, Load]:
    totals = dict.fromkeys(snapshot.cluster.hosts, 0.0)
    for vm, host in snapshot.cluster.placement.items():
        totals[host] += snapshot.loads[vm].cpu
    return {name: Load(cpu, cpu, 0) for name, cpu in totals.items()}


def cases_of(
    found: Snapshot, policy: Policy, random: np.random.Generator
) -> list[dict[str, float]]:
    """Three parts of a plan, and all of it."""
    made = plan(found, policy, History(), 0.0)
    if not made.moves:
        return []
    counts = {*random.integers(1, len(made.moves) + 1, 3).tolist(), len(made.moves)}
    return [_case(found, policy, made, count) for count in sorted(counts)]


def _case(found: Snapshot, policy: Policy, made: Plan, count: int) -> dict[str, float]:
    first, rest = made.moves[:count], made.moves[count:]
    past = tuple(PastMove(m.vm, m.source, m.target, 0.0, Outcome.DONE) for m in first)
    anew = plan(_after(found, first), policy, History(moves=past), 0.0)
    other = not {(m.vm, m.target) for m in anew.moves} <= {(m.vm, m.target) for m in rest}
    gain = max(made.score_before - made.score_after, 1e-9)
    by = max(0.0, made.score_after - anew.score_after) / gain if other else 0.0
    return {
        "other": other,
        "better": by > 1e-6,
        "by": by,
        "moves": (count + len(anew.moves)) / len(made.moves),
        "twice": len({m.vm for m in anew.moves if not m.parked} & {m.vm for m in first}),
        "whole": count == len(made.moves),
        "more": len(anew.moves),
    }


def _after(snapshot: Snapshot, moves: tuple[Move, ...]) -> Snapshot:
    cluster = snapshot.cluster
    for move in moves:
        cluster = cluster.finish(move.vm, move.target)
    done = replace(snapshot, cluster=cluster)
    return replace(done, host_loads=_totals(done))


PARTS = {"again": again, "noise": noise, "month": month}


def main(names: list[str]) -> None:
    logging.disable(logging.WARNING)  # what came of every move is in the figures
    unknown = set(names) - PARTS.keys()
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}")
    results: dict[str, dict[str, Any]] = {}
    for name, part in PARTS.items():
        if names and name not in names:
            continue
        results[name] = {}
        for policy, found in part():
            print(f"{name}: {policy}: {json.dumps(found)}", file=sys.stderr, flush=True)
            results[name][policy] = found
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
