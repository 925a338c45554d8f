"""Placement instances like those with known optima, drawn from a seed.

    python benchmarks/instances.py KIND SEED [HOSTS VMS] > FILE

"pack": VMs lie anywhere; those of one half of the hosts may stay, or go to some hosts of the other
half, and all of that half would be four fifths full. "repair": the first hosts are as full as they
may be, the last ones empty. Other kinds and the fields' meaning: `placement.py`.
"""

import json
import sys
from random import Random
from typing import Any

Instance = dict[str, Any]

CPUS, CPU_WEIGHTS = (1, 2, 4, 8), (0.2, 0.4, 0.2, 0.2)
MEMORIES, MEMORY_WEIGHTS = (2, 4, 8, 16), (0.2, 0.4, 0.2, 0.2)
MOVE = 5  # what a move costs, beside its memory


def _vms(random: Random, count: int) -> list[Instance]:
    cpus = random.choices(CPUS, CPU_WEIGHTS, k=count)
    memories = random.choices(MEMORIES, MEMORY_WEIGHTS, k=count)
    return [
        {"cpu": cpu, "memory": memory, "move_cost": MOVE + memory}
        for cpu, memory in zip(cpus, memories, strict=True)
    ]


def _sum(vms: list[Instance], what: str) -> int:
    return sum(vm[what] for vm in vms)


def pack(seed: int, hosts: int = 100, count: int = 1000) -> Instance:
    """VMs to pack onto half of the hosts, each with eight or nine candidates."""
    random = Random(seed)
    vms, core = _vms(random, count), hosts // 2
    for vm in vms:
        vm["host"] = random.randrange(hosts)
        vm["candidates"] = sorted({vm["host"], *random.sample(range(core), min(8, core))})
    caps = {what: round(1.21 * _sum(vms, what) / core) for what in ("cpu", "memory")}
    return {
        "kind": "pack",
        "hosts": hosts,
        "cpu_cap": caps["cpu"],
        "memory_cap": caps["memory"],
        "host_cost": 400,
        "volume_bound_hosts": max(-(-_sum(vms, what) // cap) for what, cap in caps.items()),
        "vms": vms,
    }


def repair(seed: int, hosts: int = 100, count: int = 1000) -> Instance:
    """Crowded hosts, each VM with a dozen candidates; groups of three to be kept apart."""
    random = Random(seed)
    vms = _vms(random, count)
    cpu, memory = (round(_sum(vms, what) / hosts / 0.65) for what in ("cpu", "memory"))
    hard = {"cpu": int(0.95 * cpu), "memory": int(0.95 * memory)}
    used = [{"cpu": 0, "memory": 0} for _ in range(hosts)]
    for vm in vms:
        order = sorted(range(hosts), key=lambda host: host**2 * random.random())
        vm["host"] = next(
            host for host in order if all(used[host][w] + vm[w] <= hard[w] for w in hard)
        )
        for what in hard:
            used[vm["host"]][what] += vm[what]
        vm["candidates"] = sorted({vm["host"], *random.sample(range(hosts), min(12, hosts))})
    shuffled = random.sample(range(count), count)
    return {
        "kind": "repair",
        "hosts": hosts,
        "cpu_capacity": cpu,
        "memory_capacity": memory,
        "cpu_soft": int(0.8 * cpu),
        "cpu_hard": hard["cpu"],
        "memory_hard": hard["memory"],
        "overload_penalty": 20,
        "apart": [shuffled[3 * group : 3 * group + 3] for group in range(count // 20)],
        "vms": vms,
    }


KINDS = {"pack": pack, "repair": repair}


def main(arguments: list[str]) -> None:
    kind, *numbers = arguments
    print(json.dumps(KINDS[kind](*map(int, numbers))))


if __name__ == "__main__":
    main(sys.argv[1:])
