"""Placement instances with known optima, through the production planner and its checker.

    python benchmarks/placement.py FILE...

Each FILE is an instance of kind "pack" or "repair" (integers without units; every VM may only go to
one of its candidates, which becomes a pin, and costs its tag `move-cost`). Prints one JSON object.
"""

import gc
import json
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from balancerd.core.model import VM, Cluster, Forecast, Host, Load, Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Plan
from balancerd.core.planner import plan
from balancerd.core.policies.policy import Policy

SECONDS = 60.0  # that HiGHS has at most
UNIT = 2**20  # bytes for one unit of memory
FULL = {"overload": 1.0, "release": 0.9999, "landing": 0.9999, "idle": 0.5}


def vm_name(number: int) -> str:
    return f"v{number:06d}"


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
        name = vm_name(number)
        tags = {"move-cost": str(vm["move_cost"])} if "move_cost" in vm else {}
        size = round(vm["memory"] * UNIT)
        vms[name] = VM(name, size, cpu=max(vm["cpu"], 1.0), tags=tags)
        placement[name] = host_name(vm["host"])
        loads[name] = Load(vm["cpu"], vm["cpu"], round(vm["memory"] * UNIT))
        forecasts[name] = Forecast(vm["cpu"], 0.0)
        used[placement[name]] += vm["cpu"]
    totals = {name: Load(value, value, 0) for name, value in used.items()}
    return Snapshot(0.0, Cluster(hosts, vms, placement), loads, totals, forecasts)


def policy(
    objective: str, instance: dict[str, Any], costs: dict[str, Any] | None = None, **thresholds: Any
) -> Policy:
    pins = [
        {
            "kind": "pin",
            "vms": (vm_name(number),),
            "hosts": tuple(host_name(n) for n in vm["candidates"]),
        }
        for number, vm in enumerate(instance["vms"])
        if "candidates" in vm
    ]
    apart = [
        {"kind": "apart", "vms": tuple(vm_name(number) for number in group)}
        for group in instance.get("apart", ())
    ]
    return Policy.model_validate(
        {
            "summary": "benchmark",
            "objective": objective,
            "constraint": pins + apart,
            "thresholds": {"cpu": FULL, "memory": FULL} | thresholds,
            "capacity": {
                "spread_factor": 0.0,
                "memory_reserve_share": 0.0,
                "cpu_overcommit": 1e6,
            },
            "limits": {"gain": 0.0, "per_plan": 10**6, "moves_per_host": 10**6},
            "costs": costs or {},
            "detection": {"warm_up": 0.0},  # else no host is overloaded that starts above a limit
            "power": {"reserve": 0, "min_on": 0.0},
        }
    )


def solve(seen: Snapshot, rules: Policy) -> tuple[Plan, float]:
    """The plan, and the CPU seconds it took, but for looking through the instance for garbage."""
    gc.collect()
    gc.freeze()
    begun = time.process_time()
    made = plan(seen, rules, History(), 0.0)
    seconds = time.process_time() - begun
    assert made.certificate is not None
    assert made.certificate.violations == ()
    return made, seconds


def pack(instance: dict[str, Any]) -> dict[str, Any]:
    """Hosts with a VM at `host_cost` each, and the cost of every VM moved."""
    seen = snapshot(instance, instance["cpu_cap"], instance["memory_cap"])
    costs = {"host": instance["host_cost"], "watt": 0.0}
    made, seconds = solve(seen, policy("pack", instance, costs, margin=0.0))
    on = sum(figures.vms > 0 for figures in made.after)
    assert max(figures.cpu for figures in made.after) <= FULL["landing"] + 1e-9
    assert max(figures.memory for figures in made.after) <= FULL["landing"] + 1e-9
    return {
        "hosts_on": on,
        "objective": on * instance["host_cost"] + _moving(instance, made),
        "optimum": instance.get("highs", {}).get("objective"),
        "bound": instance.get("highs", {}).get("bound"),
        "moves": len(made.moves),
        "cpu_seconds": round(seconds, 4),
    }


def repair(instance: dict[str, Any]) -> dict[str, Any]:
    """What crowded hosts cost in the end, and every VM moved."""
    seen = snapshot(instance, instance["cpu_hard"], instance["memory_hard"])
    crowded = instance["cpu_soft"] / instance["cpu_hard"] * FULL["landing"]
    costs = {"crowding": instance["overload_penalty"], "crowded": crowded}
    made, seconds = solve(seen, policy("quiet", instance, costs))
    where = dict(seen.cluster.placement) | {move.vm: move.target for move in made.moves}
    used = Counter[str]()
    for vm, host in where.items():
        used[host] += instance["vms"][int(vm[1:])]["cpu"]
    over = sum(max(0, cpu - instance["cpu_soft"]) for cpu in used.values())
    for group in instance["apart"]:
        assert len({where[vm_name(number)] for number in group}) == len(group)
    return {
        "objective": over * instance["overload_penalty"] + _moving(instance, made),
        "optimum": instance.get("highs", {}).get("objective"),
        "moves": len(made.moves),
        "cpu_seconds": round(seconds, 4),
        "highs_seconds": instance.get("highs", {}).get("seconds"),
    }


def _beside(instance: dict[str, Any]) -> dict[str, float]:
    """What HiGHS takes for the same, here and now; nothing where it is not installed."""
    if instance["kind"] != "repair" or find_spec("highspy") is None:
        return {}
    from benchmarks.solver import solve as solved

    found = solved(instance, SECONDS)
    return {"highs_here": found["objective"], "highs_here_seconds": found["cpu_seconds"]}


def _moving(instance: dict[str, Any], made: Plan) -> int:
    """What the moves of a plan cost, parking for nothing."""
    return sum(instance["vms"][int(vm[1:])]["move_cost"] for vm in {m.vm for m in made.moves})


KINDS = {"pack": pack, "repair": repair}


def main(paths: list[str]) -> None:
    results = {}
    for path in map(Path, paths):
        instance = json.loads(path.read_text(encoding="utf-8"))
        results[path.stem] = KINDS[instance["kind"]](instance) | _beside(instance)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
