"""What a layout keeps from one snapshot to the next: never anything that is not so any more."""

from dataclasses import fields, replace
from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings

from balancerd.core.model import PowerState, Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing import groups, inventory, reach, survey
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.policies.policy import Policy
from tests.property import drawn
from tests.sites import NOW

KEPT = (
    survey._with_past,
    survey._drawn_up,
    inventory.hosts_of,
    inventory.guests_of,
    groups._alone,
    groups.groups_of,
    reach._reach,
)
FACTS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("power", (PowerState.ON, PowerState.OFF)),
    ("cpu", (8.0, 12.0)),
    ("cpu_model", ("old", "new")),
    ("machines", ((), ("q35",), ("pc", "q35"))),
    ("rack", ("r1", "r2")),
)
DEFINITIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("machine", ("", "q35", "pc")),
    ("cpu_model", ("", "host-passthrough")),
    ("memory", (2**30, 2**33)),
    ("vcpus", (1, 4)),
    ("numa", ((), (0,))),
)


def drawn_anew(*about: Any) -> Layout:
    """The layout as it is where nothing is kept."""
    for kept in KEPT:
        kept.cache_clear()
    return lay_out(*about)


def changed(seen: Snapshot, random: Random) -> Snapshot:
    """The site a moment later: one host, VM or place is another, and maybe the loads."""
    cluster = seen.cluster
    if random.random() < 0.4:
        key, values = random.choice(FACTS)
        host = replace(random.choice(list(cluster.hosts.values())), **{key: random.choice(values)})
        cluster = replace(cluster, hosts={**cluster.hosts, host.name: host})
    if random.random() < 0.4:
        key, values = random.choice(DEFINITIONS)
        vm = replace(random.choice(list(cluster.vms.values())), **{key: random.choice(values)})
        cluster = replace(cluster, vms={**cluster.vms, vm.name: vm})
    if random.random() < 0.6:
        place = {random.choice(list(cluster.vms)): random.choice(list(cluster.hosts))}
        cluster = replace(cluster, placement={**cluster.placement, **place})
    loads = {n: replace(load, cpu=load.cpu * 0.9) for n, load in seen.loads.items()}
    return replace(seen, cluster=cluster, loads=random.choice((seen.loads, loads)))


def likened(one: Any, other: Any, about: str) -> None:
    if isinstance(one, np.ndarray):
        assert np.array_equal(one, other, equal_nan=True), about
    elif isinstance(one, tuple | list) and one and isinstance(one[0], tuple | np.ndarray):
        for a, b in zip(one, other, strict=True):
            likened(a, b, about)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), about
        for key in one:
            likened(one[key], other[key], about)
    elif hasattr(one, "__dataclass_fields__") and about in ("nodes", "pools"):
        for field in fields(one):
            likened(getattr(one, field.name), getattr(other, field.name), about)
    else:
        assert one == other, about


@settings(max_examples=150)
@given(drawn.SEEDS)
def test_a_layout_is_what_it_would_be_with_nothing_kept_of_the_last_one(seed: int) -> None:
    """Dies if tuples of one length count as alike, and if a host's make is not part of its reach's
    key."""
    random = Random(seed)
    seen, rules = drawn.snapshot(random), drawn.policy(random)
    for _ in range(4):
        now = NOW + random.choice((0.0, 60.0))
        about: tuple[Snapshot, Policy, History, float] = (seen, rules, drawn.history(random), now)
        with_kept, anew = lay_out(*about), drawn_anew(*about)
        for field in fields(Layout):
            likened(getattr(with_kept, field.name), getattr(anew, field.name), field.name)
        seen = changed(seen, random)
        rules = random.choice((rules, drawn.policy(random)))
