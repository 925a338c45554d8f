"""Evening out a site's memory, through the production planner and its checker.

    python benchmarks/balance.py [--seeds N] FILE...

Each FILE is an instance of kind "balance": equal hosts, VMs of given memory, no limit of CPU. With
`--seeds`, N more sites of each file's size are drawn in the same shape, and medians are reported:
a fifth of the hosts has about half of the VMs. Prints one JSON object.

`moves_at_least` is a proof: no plan whose deviation is as small has fewer moves. A host above the
mean has to give away its excess, but for a residue, and its largest VMs are the fewest that do;
the squares of the residues are bounded by the deviation, which a Lagrange multiplier prices.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from balancerd.core.model import VM, Cluster, Forecast, Host, Load, Snapshot
from balancerd.core.past.history import History
from balancerd.core.planner import plan
from balancerd.core.policies.policy import Policy

UNIT = 2**20  # bytes for one unit of memory
CORES = 1e5  # of each host: more than its VMs can ever ask for, and yet to be believed
FULL = {"overload": 1.0, "release": 0.9999, "landing": 0.9999, "idle": 0.5}
IMBALANCE = 0.005  # plan until no host is further than half of it above the mean

Numbers = np.ndarray[Any, np.dtype[Any]]


def drawn(hosts: int, seed: int) -> dict[str, Any]:
    """Another site of the same shape: ten VMs for each host, of four sizes."""
    random, count = np.random.default_rng(seed), 10 * hosts
    memory = random.choice([2, 4, 8, 16], count) * random.uniform(0.4, 1.0, count)
    cpu = random.choice([1, 2, 4], count) * random.uniform(0.0, 0.6, count)
    crowded = random.random(count) < 0.4
    place = np.where(
        crowded, random.integers(0, hosts // 5, count), random.integers(0, hosts, count)
    )
    vms = zip(place.tolist(), cpu.tolist(), memory.tolist(), strict=True)
    return {
        "hosts": hosts,
        "memory_capacity": 256,
        "vms": [{"host": host, "cpu": cpu, "memory": memory} for host, cpu, memory in vms],
    }


def snapshot(instance: dict[str, Any]) -> Snapshot:
    """The instance as a site on which everything is known."""
    capacity = round(instance["memory_capacity"] * UNIT)
    hosts = {f"h{n:05d}": Host(f"h{n:05d}", CORES, capacity) for n in range(instance["hosts"])}
    vms, placement, loads, forecasts = {}, {}, {}, {}
    used = dict.fromkeys(hosts, 0.0)
    for number, vm in enumerate(instance["vms"]):
        name, memory = f"v{number:06d}", round(vm["memory"] * UNIT)
        vms[name] = VM(name, memory, cpu=max(vm["cpu"], 1.0))
        placement[name] = f"h{vm['host']:05d}"
        loads[name] = Load(vm["cpu"], vm["cpu"], memory)
        forecasts[name] = Forecast(vm["cpu"], 0.0)
        used[placement[name]] += vm["cpu"]
    totals = {name: Load(value, value, 0) for name, value in used.items()}
    return Snapshot(0.0, Cluster(hosts, vms, placement), loads, totals, forecasts)


def policy() -> Policy:
    return Policy.model_validate(
        {
            "summary": "benchmark",
            "objective": "spread",
            "thresholds": {"cpu": FULL, "memory": FULL, "imbalance": IMBALANCE},
            "capacity": {
                "spread_factor": 0.0,
                "memory_reserve_share": 0.0,
                "cpu_overcommit": 1e6,
            },
            "limits": {"gain": 0.0, "benefit": 0.0, "per_plan": 10**6},
            "power": {"reserve": 0},
        }
    )


def moves_at_least(instance: dict[str, Any], deviation: float) -> int:
    """The fewest moves with which hosts' use can deviate so little, in percent."""
    hosts, capacity = instance["hosts"], instance["memory_capacity"]
    place = np.array([vm["host"] for vm in instance["vms"]])
    share = np.array([100 * vm["memory"] / capacity for vm in instance["vms"]])
    use = np.bincount(place, share, hosts)
    residues = []
    for host in np.flatnonzero(use > use.mean()):
        given = np.concatenate([[0.0], np.cumsum(np.sort(share[place == host])[::-1])])
        residue = np.maximum(0.0, use[host] - use.mean() - given)
        residues.append(residue[: int(np.argmin(residue)) + 1] ** 2)
    budget = hosts * deviation**2
    bounds = [
        sum(float((np.arange(len(r)) + price * r).min()) for r in residues) - price * budget
        for price in np.geomspace(1e-3, 1e3, 200)
    ]
    return int(np.ceil(max(bounds) - 1e-6))


def balance(instance: dict[str, Any]) -> dict[str, float]:
    """Standard deviation of the hosts' memory in percent, before and after."""
    seen, rules = snapshot(instance), policy()
    gc.collect()
    gc.freeze()  # the instance itself is not to be looked through for garbage
    begun = time.process_time()
    made = plan(seen, rules, History(), 0.0)
    seconds = time.process_time() - begun
    assert made.certificate is not None
    assert made.certificate.violations == ()
    before, after = (
        100 * float(np.std([figures.memory for figures in table]))
        for table in (made.before, made.after)
    )
    assert before > 0, "the site is not seen as it is"
    return {
        "sd_before": round(before, 3),
        "sd_after": round(after, 3),
        "moves": len(made.moves),
        "moves_at_least": moves_at_least(instance, after),
        "cpu_seconds": round(seconds, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Even out the memory of drawn or given sites")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=0, help="draw as many sites like each file")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for path in arguments.files:
        instance = json.loads(path.read_text(encoding="utf-8"))
        results[path.stem] = balance(instance)
        others = [balance(drawn(instance["hosts"], seed)) for seed in range(arguments.seeds)]
        if others:
            medians = {key: median(other[key] for other in others) for key in others[0]}
            results[f"{path.stem}, median of {len(others)} others"] = medians
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
