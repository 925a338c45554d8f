"""How hosts are evened out: which VMs leave, where they go, and what is exchanged for nothing."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from balancerd.core.model import Forecast, Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.constraints import refuses
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.planner.exchange import NOTHING, Exchange
from balancerd.core.planner.levels import Levels
from balancerd.core.policies.policy import Policy
from tests.sites import NOW, changed, planned, policy, rule, site, told

EVEN = {"thresholds": {"imbalance": 0.02}, "limits": {"gain": 0.0, "benefit": 0.0}}


def exchange(snapshot: Snapshot, rules: Policy, **moved: str) -> Exchange:
    """The search on a snapshot, with some VMs already moved to other hosts."""
    layout = lay_out(snapshot, rules, History(), NOW)
    for vm, target in moved.items():
        layout.move(layout.block_of[vm], layout.host_row[target])
    everywhere = np.ones(len(layout.hosts), dtype=np.bool_)
    free = np.ones(len(layout.blocks), dtype=np.bool_)
    return Exchange.of(layout, Levels.of(layout, everywhere), free)


def places(layout: Layout) -> dict[str, str]:
    return {
        block[0]: layout.hosts[host]
        for block, host in zip(layout.blocks, layout.place, strict=True)
    }


def test_the_fewest_vms_leave_that_bring_a_host_to_the_mean() -> None:
    """Dies if the smallest leave first, or the largest whatever comes of it."""
    snapshot = site(
        "h1 10c 100G: a 0c 4G, b 0c 4G, c 0c 4G, d 0c 4G, e 0c 16G, f 0c 20G | h2 10c 100G: "
    )
    assert told(planned(snapshot, policy("spread", **EVEN))) == ["a h1>h2", "f h1>h2"]


def test_what_the_spread_of_a_load_explains_is_no_imbalance() -> None:
    """Dies if the imbalance is taken as it seems: load that only wavers would move VMs."""
    snapshot = site("h1 10c 64G: a 3c 8G, b 3c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G")
    wavering = {name: Forecast(value.cpu, 1.8) for name, value in snapshot.forecasts.items()}
    rules = policy("spread", capacity={"spread_factor": 0.0})
    assert told(planned(snapshot, rules)) == ["a h1>h2"]
    assert told(planned(replace(snapshot, forecasts=wavering), rules)) == []


def test_hosts_of_different_size_level_out_at_the_same_use() -> None:
    """Dies if uses are squared without the hosts' size: the large host would get too little."""
    guests = ", ".join(f"v{n:02d} 1c 1G" for n in range(30))
    snapshot = site(f"h1 10c 64G: {guests} | h2 20c 64G: | h3 30c 64G:")
    rules = policy("spread", capacity={"enforce_memory": False}, **EVEN)
    made = planned(snapshot, rules)
    assert [round(figures.cpu, 2) for figures in made.after] == [0.5, 0.5, 0.5]
    assert len(made.moves) == 25


def test_a_vm_that_moves_may_go_elsewhere_for_nothing() -> None:
    snapshot = site("h1 10c 64G: a 4c 1G, b 5c 1G | h2 10c 64G: c 2c 1G | h3 10c 64G: d 3c 1G")
    search = exchange(snapshot, policy("spread"), a="h3")
    search.run(0.05)
    assert places(search.layout) == {"a": "h2", "b": "h1", "c": "h2", "d": "h3"}


def test_another_vm_of_the_same_host_may_go_instead() -> None:
    """Dies if an exchange that sends a block home counts as one more move."""
    snapshot = site("h1 10c 64G: a 5c 1G, b 3c 1G | h2 10c 64G: c 2c 1G")
    search = exchange(snapshot, policy("spread"), a="h2")
    search.run(0.05)
    assert places(search.layout) == {"a": "h1", "b": "h2", "c": "h2"}


def test_an_exchange_never_makes_the_plan_longer() -> None:
    """Dies without `_longer`: a and b would change places, two moves instead of none."""
    snapshot = site("h1 10c 64G: a 6c 1G | h2 10c 64G: b 2c 1G, c 2c 1G, d 1c 1G")
    search = exchange(snapshot, policy("spread"))
    search.run(0.0)
    assert places(search.layout) == {"a": "h1", "b": "h2", "c": "h2", "d": "h2"}


def test_an_exchange_that_a_rule_refuses_leaves_everything_as_it_was() -> None:
    """Dies without `_undo`, and if only the block that comes back is asked about."""
    snapshot = site("h1 10c 64G: a 2c 1G, b 4c 1G | h2 10c 64G: c 1c 1G | h3 10c 64G: x 1c 1G")
    rules = policy("spread", rule("apart", "b x"), rule("avoid", "c", "h3"))
    search = exchange(snapshot, rules, b="h2")
    layout = search.layout
    before = (layout.used_cpu.copy(), [dict(counts) for counts in layout.present])
    b, c = layout.block_of["b"], layout.block_of["c"]
    assert not search._swap(b, 1, NOTHING, 2)
    assert not search._swap(NOTHING, 2, c, 1)
    assert np.array_equal(layout.used_cpu, before[0])
    assert [dict(counts) for counts in layout.present] == before[1]
    assert places(layout) == {"a": "h1", "b": "h2", "c": "h2", "x": "h3"}


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_site_is_evened_out_with_few_moves(seed: int) -> None:
    """Within a tenth of the fewest possible; dies without the exchanges, or if they cost moves."""
    snapshot = _crowded(Random(seed))
    made = planned(snapshot, policy("spread", **EVEN))
    use = np.array([figures.memory for figures in made.after])
    assert use.std() < 0.006
    assert len(made.moves) <= 1.1 * _fewest(snapshot, 0.01) + 2


def _crowded(random: Random) -> Snapshot:
    """Twenty hosts of which a fifth has half of the VMs."""
    guests: dict[int, list[str]] = {host: [] for host in range(20)}
    for number in range(200):
        size = random.choice([2, 4, 8, 16]) * random.uniform(0.4, 1.0)
        host = random.randrange(4 if random.random() < 0.4 else 20)
        guests[host].append(f"v{number:03d} 0c {size:.3f}G")
    return site(" | ".join(f"h{host:02d} 100c 256G: {', '.join(guests[host])}" for host in guests))


def _fewest(snapshot: Snapshot, tolerance: float) -> int:
    """The fewest VMs that have to leave hosts above the mean, each by its largest."""
    cluster = snapshot.cluster
    sizes = {
        host: sorted((cluster.vms[vm].memory for vm in cluster.on(host)), reverse=True)
        for host in cluster.hosts
    }
    capacity = 0.95 * next(iter(cluster.hosts.values())).memory
    mean = sum(map(sum, sizes.values())) / len(sizes)
    fewest = 0
    for given in sizes.values():
        excess = sum(given) - mean - tolerance * capacity
        while excess > 0:
            excess -= given.pop(0)
            fewest += 1
    return fewest


def test_what_may_not_move_is_left_where_it_is_and_the_next_best_goes() -> None:
    snapshot = changed(
        site("h1 10c 64G: a 3c 8G, b 3c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G"),
        vm="a",
        host_devices=("gpu",),
    )
    made = planned(snapshot, policy("spread"))
    assert told(made) == ["b h1>h2"]
    layout = lay_out(snapshot, policy("spread"), History(), NOW)
    assert refuses(layout, layout.block_of["b"], 1) is None
