"""Room for big VMs under a budget of moves, through the production planner and its checker.

    python benchmarks/rescheduling.py FILE... [BUDGET...]

Each FILE is a mapping as ByteDance published them with their VM-rescheduling work: hosts with NUMA
nodes and VMs on them. Prints one JSON object: for every budget of moves (10, 25, 50 and 100 by
default) the fragment rate that the plan ends with, which is the share of free CPU that VMs of 16
cores cannot use, node by node; where the mapping is the "medium" one, the proven optimum beside it.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from balancerd.core.model import VM, Cluster, Forecast, Host, Load, NumaNode, Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Plan
from balancerd.core.planner import plan
from balancerd.core.policies.policy import Policy
from balancerd.core.units import MIB

BIG = 16  # cores
BUDGETS = (10, 25, 50, 100)
# By number of hosts and VMs: the optima of the "medium" mapping, proven by a MIP.
OPTIMA = {(279, 2089): {10: 0.8508, 25: 0.7245, 50: 0.5753, 100: 0.2884}}
FULL = {"overload": 1.0, "release": 0.9999, "landing": 0.9999, "idle": 0.5}


def snapshot(mapping: Mapping[str, Any]) -> Snapshot:
    """The mapping as a site. It knows no load: every VM is taken to use half of its cores."""
    hosts = {
        host["node_id"]: _host(host)
        for cluster in mapping["cluster_list"]
        for host in cluster["host_info"]
    }
    vms, placement = {}, {}
    for cluster in mapping["cluster_list"]:
        for vm in cluster["vm_instance"]:
            vms[vm["instance_id"]] = _vm(vm)
            placement[vm["instance_id"]] = vm["host_id"]
    used = dict.fromkeys(hosts, 0.0)
    for name, host in placement.items():
        used[host] += vms[name].vcpus / 2
    return Snapshot(
        at=0.0,
        cluster=Cluster(hosts, vms, placement),
        loads={name: Load(vm.vcpus / 2, vm.vcpus / 2, vm.memory) for name, vm in vms.items()},
        host_loads={name: Load(cpu, cpu, 0) for name, cpu in used.items()},
        forecasts={name: Forecast(vm.vcpus / 2, 0.0) for name, vm in vms.items()},
    )


def _host(host: Mapping[str, Any]) -> Host:
    """A host; its memory a little larger, as a landing may not fill it to the brim."""
    nodes = [
        NumaNode(float(node["total_cpu"]), round(node["memory_huge_total_mb"] * MIB / 0.9999) + 1)
        for node in host["numa"]
    ]
    cores = sum(round(node.cpu) for node in nodes)
    memory = sum(node.memory for node in nodes)
    return Host(host["node_id"], float(cores), memory, cores=cores, numa=tuple(nodes))


def _vm(vm: Mapping[str, Any]) -> VM:
    return VM(
        name=vm["instance_id"],
        memory=round(sum(node["mem_mb"] for node in vm["numa"]) * MIB),
        vcpus=round(sum(node["cpu"] for node in vm["numa"])),
        numa=tuple(sorted(node["node"] for node in vm["numa"])),
    )


def policy(budget: int) -> Policy:
    """Cores are not shared, and a budget is there to be used."""
    return Policy.model_validate(
        {
            "summary": "benchmark",
            "objective": "defragment",
            "thresholds": {"cpu": FULL, "memory": FULL},
            "capacity": {"cpu_overcommit": 1.0, "memory_reserve_share": 0.0, "spread_factor": 0.0},
            "limits": {"per_plan": budget, "gain": 0.0},
            "defragment": {"vcpus": BIG, "worth": 0.0},
        }
    )


def fragment_rate(seen: Snapshot, made: Plan | None = None) -> float:
    """Recounted from the VMs alone: free cores that are no whole 16 on their node, of all free."""
    cluster = seen.cluster
    for move in made.moves if made else ():
        cluster = cluster.begin(move.vm, move.target, move.numa).finish(move.vm, move.target)
    free = {
        (name, number): node.cpu
        for name, host in cluster.hosts.items()
        for number, node in enumerate(host.numa)
    }
    for name, vm in cluster.vms.items():
        for node in vm.numa:
            free[cluster.placement[name], node] -= vm.vcpus / len(vm.numa)
    assert min(free.values()) >= 0
    return sum(cores % BIG for cores in free.values()) / sum(free.values())


def run(seen: Snapshot, budget: int) -> dict[str, Any]:
    """One plan, the CPU seconds that it took, and what it came to."""
    rules = policy(budget)
    begun = time.process_time()
    made = plan(seen, rules, History(), 0.0)
    seconds = time.process_time() - begun
    assert made.certificate is not None
    assert made.certificate.violations == ()
    assert len(made.moves) <= budget
    result = {
        "fragment_rate": round(fragment_rate(seen, made), 4),
        "moves": len(made.moves),
        "cpu_seconds": round(seconds, 3),
    }
    optimum = OPTIMA.get((len(seen.cluster.hosts), len(seen.cluster.vms)), {}).get(budget)
    return result if optimum is None else result | {"optimum": optimum}


def main(arguments: Sequence[str]) -> None:
    budgets = [int(word) for word in arguments if word.isdigit()] or BUDGETS
    results = {}
    for path in (Path(word) for word in arguments if not word.isdigit()):
        seen = snapshot(json.loads(path.read_text(encoding="utf-8")))
        before = {"fragment_rate_before": round(fragment_rate(seen), 4)}
        results[path.stem] = before | {str(budget): run(seen, budget) for budget in budgets}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
