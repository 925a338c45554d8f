"""Drawn sites: hosts, VMs, rules, flights, gaps, histories; crowded on purpose.

Drawn from a seed by plain `random`, which is ten times faster than drawing every number through
Hypothesis. A failure names the seed; `snapshots().example` is not needed to see it again.
"""

from dataclasses import replace
from random import Random

from hypothesis import strategies as st

from balancerd.core.model import (
    VM,
    Cluster,
    Forecast,
    Gap,
    GapKind,
    Host,
    HugePages,
    Load,
    NumaNode,
    PowerState,
    Snapshot,
    VMState,
)
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule
from balancerd.core.units import GIB, MIB
from tests.sites import NOW, done

HOSTS = ("h1", "h2", "h3", "h4", "h5", "h6")
VMS = tuple("abcdefghijklmno")
POWERS = (PowerState.ON,) * 20 + (PowerState.OFF,) * 3 + (PowerState.UNKNOWN,)
STATES = (VMState.RUNNING,) * 12 + (VMState.PAUSED, VMState.SHUTOFF)
SEEDS = st.integers(0, 2**32)


def snapshots() -> st.SearchStrategy[Snapshot]:
    """A crowded site, some of it off, unknown, draining or under way."""
    return SEEDS.map(lambda seed: snapshot(Random(seed)))


def policies() -> st.SearchStrategy[Policy]:
    """Any objective with up to three rules; gains count from nothing, hosts may sleep at once."""
    return SEEDS.map(lambda seed: policy(Random(seed)))


def histories() -> st.SearchStrategy[History]:
    """Up to three moves of the last two hours."""
    return SEEDS.map(lambda seed: history(Random(seed)))


def snapshot(random: Random) -> Snapshot:
    """One crowded site."""
    names = HOSTS[: random.randint(2, 6)]
    machines = {name: host(random, name) for name in names}
    vms, loads, forecasts, placement = {}, {}, {}, {}
    layered = random.random() < 0.3  # VMs are bound to NUMA nodes
    for name in VMS[: random.randint(2, 15)]:
        cpu = random.choice([0.0, 0.5, 1.0, 2.0, 3.0])
        size = random.choice([1, 4, 8, 16]) * GIB
        vms[name] = VM(name, size, vcpus=2, state=random.choice(STATES))
        placement[name] = random.choice(names)
        loads[name] = Load(cpu, cpu, size)
        if layered and random.random() < 0.8:
            nodes, kept = random.choice([(0,), (1,), (1,), (0, 1)]), random.random() < 0.3
            vms[name] = replace(vms[name], numa=nodes, numa_kept=kept)
        if random.random() < 0.9:
            forecasts[name] = Forecast(cpu, random.choice([0.0, 0.0, 0.2, 0.5]))
    running = [name for name in vms if vms[name].state is VMState.RUNNING]
    flying = random.sample(running, min(len(running), random.choice([0, 0, 1, 2])))
    flights = {name: random.choice(names) for name in flying}
    unknown = random.choice(names) if random.random() < 0.15 else ""
    totals = dict.fromkeys(names, 0.0)
    for name in vms:
        totals[placement[name]] += loads[name].cpu
    if random.random() < 0.15:
        machines, vms = with_huge_pages(random, machines, vms)
    return Snapshot(
        at=NOW,
        cluster=Cluster(
            machines,
            vms,
            placement,
            {name: to for name, to in flights.items() if to != placement[name]},
        ),
        loads=loads,
        host_loads={
            name: Load(min(cpu, machines[name].cpu), cpu, 0)
            for name, cpu in totals.items()
            if name != unknown
        },
        forecasts=forecasts,
        gaps=(Gap("host", unknown, GapKind.STALE, "", NOW),) if unknown else (),
        draining=frozenset(random.sample(names, random.choice([0, 0, 1]))),
    )


def host(random: Random, name: str) -> Host:
    """A host of 8 or 16 cores and 32 or 64 GiB in one of two racks, or in none.

    Half of them have two NUMA nodes, one of which may be the larger.
    """
    cpu, memory = random.choice([8.0, 16.0]), random.choice([32, 64]) * GIB
    halves = [(cpu / 2, memory // 2), (cpu / 2, memory // 2)]
    thirds = [(cpu / 4, memory // 4), (cpu * 3 / 4, memory * 3 // 4)]
    nodes: list[tuple[float, int]] = random.choice([[], [], halves, thirds])
    return Host(
        name,
        cpu,
        memory,
        rack=random.choice(["", "r1", "r2"]),
        power=random.choice(POWERS),
        numa=tuple(NumaNode(*node) for node in nodes),
        can_sleep=random.random() < 0.7,
    )


def with_huge_pages(
    random: Random, machines: dict[str, Host], vms: dict[str, VM]
) -> tuple[dict[str, Host], dict[str, VM]]:
    """Hosts with pools of huge pages, or without, and VMs that lie in them, wholly or half."""
    sizes, paged = (2 * MIB, GIB), dict(vms)
    for name, vm in vms.items():
        if random.random() < 0.5:
            inside = random.choice([vm.memory, vm.memory // 2])
            pages = HugePages(random.choice([0, *sizes]), inside)
            paged[name] = replace(vm, memory=vm.memory - inside, huge_pages=(pages,))
    pooled = {}
    for name, machine in machines.items():
        pools = [HugePages(size, random.choice([8, 16]) * GIB) for size in sizes]
        pools = random.sample(pools, random.choice([0, 1, 1, 2, 2]))
        aside = sum(pool.memory for pool in pools)
        left = max(GIB, machine.memory - aside)
        pooled[name] = replace(machine, memory=left, huge_pages=tuple(pools))
    return pooled, paged


def policy(random: Random) -> Policy:
    """One policy."""
    return Policy.model_validate(
        {
            "summary": "drawn",
            "objective": random.choice([*Objective, *Objective, Objective.SPREAD, Objective.PACK]),
            "constraint": tuple(rule(random) for _ in range(random.randint(0, 3))),
            "thresholds": {"imbalance": random.choice([0.0, 0.15])},
            "detection": {"unknown_hosts": 0.9},
            "capacity": {
                "spread_factor": random.choice([0.0, 2.0]),
                "enforce_memory": random.random() < 0.8,
                "cpu_overcommit": random.choice([8.0, 1.0]),
                "vms_per_host": random.choice([None, None, None, None, 6]),
            },
            "costs": {"crowding": random.choice([0.0, 5.0]), "crowded": 0.3},
            "limits": {"gain": 0.0, "per_plan": random.choice([3, 1000, 1000])},
            "power": {
                "sleep_idle": random.random() < 0.5,
                "idle_for": 0.0,
                "reserve": random.randint(0, 1),
            },
        }
    )


KINDS = ("together", "apart", "apart", "pin", "avoid", "avoid", "one-of", "headroom", "exclude")


def rule(random: Random) -> ConstraintRule:
    """Any rule that the schema takes, sometimes about a host that is not there."""
    kind = random.choice(KINDS)
    keys: dict[str, object] = {"kind": kind}
    if kind != "headroom":
        keys["vms"] = tuple(sorted(random.sample(VMS[:8], random.randint(1, 4))))
    if kind not in ("together", "apart"):
        keys["hosts"] = tuple(sorted(random.sample((*HOSTS, "h9"), random.randint(1, 3))))
    if kind in ("together", "apart"):
        keys["scope"] = random.choice(["host", "host", "rack"])
    if kind == "one-of":
        keys["hosts"] = random.choice([("h[12]", "h[34]"), ("h[1-3]", "h[3-6]"), ("h1", "h2")])
    if kind == "apart":
        keys["at_most"] = random.choice([1, 1, 2])
    if kind == "headroom":
        keys["share"] = random.choice([0.1, 0.5])
    if kind not in ("headroom", "exclude") and random.random() < 0.25:
        keys["weight"] = random.choice([0.5, 2.0])
    return ConstraintRule.model_validate(keys)


def history(random: Random) -> History:
    """Some moves of the last two hours."""
    ago = sorted((random.randint(0, 7200) for _ in range(random.randint(0, 3))), reverse=True)
    moves = tuple(
        PastMove(
            random.choice(VMS),
            random.choice(HOSTS),
            random.choice(HOSTS),
            NOW - seconds,
            random.choice([Outcome.DONE, Outcome.FAILED]),
        )
        for seconds in ago
    )
    return History(moves=moves, idle_since=dict.fromkeys(HOSTS, 0.0))


def settled(snapshot: Snapshot) -> Snapshot:
    """The snapshot with every host known and on, nothing under way, and everything running."""
    cluster = snapshot.cluster
    machines = {n: replace(h, power=PowerState.ON) for n, h in cluster.hosts.items()}
    vms = {n: replace(v, state=VMState.RUNNING) for n, v in cluster.vms.items()}
    return done(
        replace(snapshot, gaps=(), cluster=replace(cluster, hosts=machines, vms=vms, flights={}))
    )
