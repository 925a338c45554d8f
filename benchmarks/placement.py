"""Placement instances with known optima, through the production planner and its checker.

    python benchmarks/placement.py FILE...

Each FILE is an instance of kind "pack" (integers without units; every VM may only go to one of its
candidates, which becomes a pin). Prints one JSON object.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from balancerd.core.history import History
from balancerd.core.model import VM, Cluster, Forecast, Host, Load, Snapshot
from balancerd.core.plan import Plan
from balancerd.core.planner import plan
from balancerd.core.policy import Policy

UNIT = 2**20  # bytes for one unit of memory
FULL = {"overload": 1.0, "release": 0.9999, "landing": 0.9999, "idle": 0.5}


def host_name(number: int) -> str:
    return f"h{number:05d}"


def snapshot(instance: dict[str, Any], cpu: float, memory: float) -> Snapshot:
    """The instance as a site on which everything is known; hosts hold exactly what they may."""
    hosts = {
        host_name(n): Host(host_name(n), cpu / FULL["landing"], round(memory * UNIT / 0.9999) + 1)
        for n in range(instance["hosts"])
    }
    vms, placement, loads, forecasts = {}, {}, {}, {}
    used = dict.fromkeys(hosts, 0.0)
    for number, vm in enumerate(instance["vms"]):
        name = f"v{number:06d}"
        tags = {"move-cost": str(vm["move_cost"])} if "move_cost" in vm else {}
        size = round(vm["memory"] * UNIT)
        vms[name] = VM(name, size, cpu=max(vm["cpu"], 1.0), tags=tags)
        placement[name] = host_name(vm["host"])
        loads[name] = Load(vm["cpu"], vm["cpu"], round(vm["memory"] * UNIT))
        forecasts[name] = Forecast(vm["cpu"], 0.0)
        used[placement[name]] += vm["cpu"]
    totals = {name: Load(value, value, 0) for name, value in used.items()}
    return Snapshot(0.0, Cluster(hosts, vms, placement), loads, totals, forecasts)


def policy(objective: str, instance: dict[str, Any], **thresholds: Any) -> Policy:
    pins = [
        {
            "kind": "pin",
            "vms": (f"v{number:06d}",),
            "hosts": tuple(host_name(n) for n in vm["candidates"]),
        }
        for number, vm in enumerate(instance["vms"])
        if "candidates" in vm
    ]
    return Policy.model_validate(
        {
            "summary": "benchmark",
            "objective": objective,
            "constraint": pins,
            "thresholds": {"cpu": FULL, "memory": FULL} | thresholds,
            "capacity": {
                "spread_factor": 0.0,
                "memory_reserve_share": 0.0,
                "cpu_overcommit": 1e6,
            },
            "limits": {"gain": 0.0, "per_plan": 10**6, "moves_per_host": 10**6},
            "costs": {"host": instance.get("host_cost", 0.0), "watt": 0.0},
            "power": {"reserve": 0, "min_on": 0.0},
        }
    )


def solve(seen: Snapshot, rules: Policy) -> tuple[Plan, float]:
    """The plan, and the CPU seconds it took."""
    begun = time.process_time()
    made = plan(seen, rules, History(), 0.0)
    seconds = time.process_time() - begun
    assert made.certificate is not None
    assert made.certificate.violations == ()
    return made, seconds


def pack(instance: dict[str, Any]) -> dict[str, Any]:
    """Hosts with a VM at `host_cost` each, and the cost of every VM moved."""
    seen = snapshot(instance, instance["cpu_cap"], instance["memory_cap"])
    made, seconds = solve(seen, policy("pack", instance))
    on = sum(figures.vms > 0 for figures in made.after)
    moved = {int(move.vm[1:]) for move in made.moves}
    moving = sum(instance["vms"][number]["move_cost"] for number in moved)
    return {
        "hosts_on": on,
        "objective": on * instance["host_cost"] + moving,
        "optimum": instance["highs"]["objective"],
        "bound": instance["highs"]["bound"],
        "moves": len(made.moves),
        "cpu_seconds": round(seconds, 3),
    }


KINDS = {"pack": pack}


def main(paths: list[str]) -> None:
    results = {}
    for path in map(Path, paths):
        instance = json.loads(path.read_text(encoding="utf-8"))
        results[path.stem] = KINDS[instance["kind"]](instance)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
