"""How one cycle grows with the site: observing, deciding and recording at 1,000 to 100,000 VMs.

    python benchmarks/scale.py

Sites of 10 VMs to a host, each somewhat out of balance, without rules. Per size the CPU seconds of
the parts of a cycle of the unattended service, its durable record included, and the memory of the
process at its peak; `growth` is the exponent of the decision's time between the smallest and the
largest size. Each size has a process of its own. QUICK=1 leaves the largest out. Prints one JSON
object.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from math import log
from pathlib import Path
from typing import Any, TypeVar

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.config import load_policy
from balancerd.core.model import VM, Host, Snapshot, VMState
from balancerd.core.observation import (
    HostCounters,
    HostReading,
    Observation,
    VMCounters,
    VMReading,
    VMReadings,
)
from balancerd.core.past.history import History
from balancerd.core.past.record import PlanState
from balancerd.core.planner import plan
from balancerd.core.policies.policy import Policy
from balancerd.core.sensing.measurement import Known
from balancerd.core.sensing.snapshot import assemble
from balancerd.core.units import GIB
from balancerd.places import SHIPPED_POLICIES

SIZES = (1_000, 10_000, 100_000)  # VMs
PER_HOST = 10
SEED = 7
CYCLES = 4  # of which the last one counts
START, CYCLE = 1_700_000_000.0, 300.0
POLICIES = ("spread", "consolidate")

T = TypeVar("T")


class Site:
    """Hosts of 16 cores and 64 GiB, VMs of different demand, unevenly placed."""

    def __init__(self, vms: int) -> None:
        rng = random.Random(SEED)
        self.hosts = [
            Host(f"h{n:05}", 16.0, 64 * GIB, cores=16, uuid=f"host-{n}", power_curve=(100.0, 250.0))
            for n in range(vms // PER_HOST)
        ]
        self.vms = [
            VM(f"v{n:06}", rng.choice((1, 2, 4)) * GIB, vcpus=2, uuid=f"vm-{n}") for n in range(vms)
        ]
        self.demand = [rng.uniform(0.05, 1.2) for _ in range(vms)]
        self.place = [
            min(rng.randrange(len(self.hosts)), rng.randrange(len(self.hosts)))
            if n % 5 == 0
            else n // PER_HOST
            for n in range(vms)
        ]

    def read(self, at: float, span: float) -> Observation:
        """What all hosts show `span` seconds after they were started."""
        on: list[list[VMReading]] = [[] for _ in self.hosts]
        busy, memory = [0.0] * len(self.hosts), [0] * len(self.hosts)
        for vm, demand, place in zip(self.vms, self.demand, self.place, strict=True):
            counters = VMCounters(demand * span, 0.0, vm.memory, 0, 0)
            on[place].append(VMReading(vm, VMState.RUNNING, counters))
            busy[place] += demand * span
            memory[place] += vm.memory
        return Observation(
            at,
            tuple(
                HostReading(
                    host.name,
                    at,
                    host,
                    HostCounters(
                        min(busy[row], host.cpu * span),
                        host.memory,
                        max(host.memory - memory[row], 0),
                    ),
                    VMReadings.of(on[row]),
                )
                for row, host in enumerate(self.hosts)
            ),
        )


def timed(parts: dict[str, float], name: str, act: Callable[[], T]) -> T:
    """Do it, and note the CPU seconds that it took."""
    begun = time.process_time()
    result = act()
    parts[name] = time.process_time() - begun
    return result


def measure(vms: int, policy_name: str) -> dict[str, Any]:
    """The parts of one cycle at one size, in CPU seconds."""
    site = Site(vms)
    policy = load_policy(str(SHIPPED_POLICIES / f"{policy_name}.toml"))
    parts: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as place,
        Ledger(Path(place) / "ledger.db") as ledger,
        SamplesStore(Path(place) / "samples.db") as samples,
    ):
        snapshot, history = _observed(site, policy, ledger, samples, parts)
        made = timed(parts, "plan", lambda: plan(snapshot, policy, history, snapshot.at))
        state = PlanState.PROPOSED
        timed(parts, "record_plan", lambda: ledger.record_plan(made, snapshot, state))
    return {
        "vms": vms,
        "hosts": len(site.hosts),
        "moves": len(made.moves),
        "violations": len(made.certificate.violations) if made.certificate else 0,
        "cpu_seconds": {name: round(value, 4) for name, value in parts.items()},
        "decision_cpu_seconds": round(parts["assemble"] + parts["plan"], 4),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _observed(
    site: Site, policy: Policy, ledger: Ledger, samples: SamplesStore, parts: dict[str, float]
) -> tuple[Snapshot, History]:
    """The site after a few cycles, of which the last one's parts stay in `parts`."""
    known = Known()
    for number in range(CYCLES):
        now = START + CYCLE * number
        seen = site.read(now, 1000.0 + CYCLE * number)
        snapshot, known = timed(
            parts, "assemble", partial(assemble, seen, known, {}, policy.detection)
        )
        timed(parts, "record_inventory", partial(ledger.record_inventory, snapshot))
        history = timed(parts, "history", partial(ledger.history, now))
        reading = (now, snapshot.host_loads, snapshot.loads)
        timed(parts, "record_samples", partial(samples.append, *reading))
    return snapshot, history


def measured_alone(vms: int, policy: str) -> dict[str, Any]:
    """The same in a process of its own, so that its peak of memory is its own too."""
    command = [sys.executable, __file__, str(vms), policy]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(arguments: list[str]) -> None:
    if arguments:
        print(json.dumps(measure(int(arguments[0]), arguments[1])))
        return
    sizes = SIZES[:-1] if os.environ.get("QUICK") else SIZES
    results: dict[str, Any] = {}
    for policy in POLICIES:
        found = [measured_alone(vms, policy) for vms in sizes]
        first, last = found[0], found[-1]
        ratio = last["decision_cpu_seconds"] / first["decision_cpu_seconds"]
        growth = log(ratio) / log(last["vms"] / first["vms"])
        results[policy] = {"growth": round(growth, 3), "sizes": found}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
