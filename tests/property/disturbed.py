"""Sites of which parts are missing, absurd or contradict each other."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from random import Random
from typing import Any

from hypothesis import strategies as st

from balancerd.core.model import (
    VM,
    Cluster,
    Disk,
    Exclusion,
    ExclusionKind,
    Forecast,
    Gap,
    GapKind,
    Host,
    Load,
    PowerState,
    Snapshot,
    SplitBrain,
    VMState,
)
from tests.property.drawn import HOSTS, SEEDS, VMS, snapshot
from tests.sites import NOW

NUMBERS = (0.0, -1.0, 1e-300, 1e300, nan, inf, -inf)
SIZES = (0, -1, 1, 2**62)
TAGS = ("apart", "pin", "avoid", "together", "exclude", "move-cost", "typing-error", "!")
WORDS = ("", " ", "h1", "h[", "db", "yes", "nan", "*", "-1")


def disturbed() -> st.SearchStrategy[Snapshot]:
    """A drawn site with up to six things wrong."""
    return SEEDS.map(lambda seed: disturb(Random(seed)))


def disturb(random: Random) -> Snapshot:
    """One such site."""
    found = snapshot(random)
    for _ in range(random.randint(0, 6)):
        found = random.choice(WAYS)(found, random)
    return found


def _host(seen: Snapshot, random: Random) -> Snapshot:
    if not seen.cluster.hosts:
        return seen
    name = random.choice(sorted(seen.cluster.hosts))
    wrong: dict[str, Any] = {
        "cpu": random.choice(NUMBERS),
        "memory": random.choice(SIZES),
        "cores": random.choice((-1, 2**40)),
        "power": random.choice(list(PowerState)),
        "power_curve": (nan, 0.0),
        "cpu_model": "odd",
        "machines": ("odd",),
    }
    key, value = random.choice(list(wrong.items()))
    host = replace(seen.cluster.hosts[name], **{key: value})
    return _changed(seen, hosts={**seen.cluster.hosts, name: host})


def _vm(seen: Snapshot, random: Random) -> Snapshot:
    if not seen.cluster.vms:
        return seen
    name = random.choice(sorted(seen.cluster.vms))
    wrong: dict[str, Any] = {
        "memory": random.choice(SIZES),
        "vcpus": random.choice((0, -1, 10**6)),
        "cpu": random.choice(NUMBERS),
        "state": random.choice(list(VMState)),
        "cpu_model": "host-passthrough",
        "disks": (Disk("", shared=random.random() < 0.5, storage=("rbd",)),),
        "tags": {random.choice(TAGS): random.choice(WORDS) for _ in range(2)},
    }
    key, value = random.choice(list(wrong.items()))
    vm = replace(seen.cluster.vms[name], **{key: value})
    return _changed(seen, vms={**seen.cluster.vms, name: vm})


def _nameless(seen: Snapshot, _random: Random) -> Snapshot:
    """A VM of which nothing is known, and one that is placed but not there."""
    vms = {**seen.cluster.vms, "bare": VM("bare", 0, 0)}
    return _changed(seen, vms=vms, placement={**seen.cluster.placement, "ghost": "h1"})


def _figures(seen: Snapshot, random: Random) -> Snapshot:
    number = random.choice(NUMBERS)
    match random.randint(0, 4):
        case 0:
            return replace(seen, loads=dict(seen.loads, a=Load(number, number, -1)))
        case 1:
            return replace(seen, host_loads=dict(seen.host_loads, h1=Load(number, number, 0)))
        case 2:
            return replace(seen, forecasts=dict(seen.forecasts, a=Forecast(number, number)))
        case 3:
            return replace(seen, overhead={"h1": (number, random.choice(SIZES))})
        case _:
            return replace(seen, forecasts={}, loads={}, host_loads={})


def _place(seen: Snapshot, random: Random) -> Snapshot:
    vm, host = random.choice(VMS), random.choice((*HOSTS, "nowhere"))
    cluster = seen.cluster
    if random.random() < 0.5:
        return _changed(seen, placement={**cluster.placement, vm: host})
    if random.random() < 0.5:
        return _changed(seen, flights={**cluster.flights, vm: host})
    return _changed(seen, placement={v: h for v, h in cluster.placement.items() if v != vm})


def _gone(seen: Snapshot, random: Random) -> Snapshot:
    """A host that VMs are on is no part of the site; or nothing is."""
    hosts = dict(seen.cluster.hosts)
    hosts.pop(random.choice(HOSTS), None)
    return _changed(seen, hosts={} if random.random() < 0.1 else hosts)


def _doubts(seen: Snapshot, random: Random) -> Snapshot:
    match random.randint(0, 3):
        case 0:
            return replace(seen, draining=frozenset({"h1", "nowhere"}))
        case 1:
            return replace(seen, gaps=(*seen.gaps, Gap("vm", "a", GapKind.NO_STATS, "", NOW)))
        case 2:
            veto = Exclusion(random.choice(("b", "nobody")), ExclusionKind.VETO, "")
            return replace(seen, exclusions=(veto,))
        case _:
            return replace(seen, split_brains=(SplitBrain("a", "", ("h1", "h2")),))


def _same_name(seen: Snapshot, _random: Random) -> Snapshot:
    hosts = {**seen.cluster.hosts, "h7": Host("h7", 8.0, 2**35, uuid="one")}
    return _changed(seen, hosts=hosts)


def _changed(seen: Snapshot, **fields: Any) -> Snapshot:
    cluster: Cluster = replace(seen.cluster, **fields)
    return replace(seen, cluster=cluster)


WAYS: tuple[Callable[[Snapshot, Random], Snapshot], ...] = (
    _host,
    _host,
    _vm,
    _vm,
    _nameless,
    _figures,
    _figures,
    _place,
    _gone,
    _doubts,
    _same_name,
)
