"""Of targets that are as good as each other the one by the better way is taken."""

from dataclasses import replace

from balancerd.core.model import Link, Snapshot
from tests.sites import planned, policy, rule, site, told

LINKS = (
    *(Link(host, rack, 1e9) for host, rack in (("h1", "r1"), ("h3", "r1"), ("h4", "r1"))),
    Link("h2", "r2", 1e9),
    Link("r1", "core", 5e8),
    Link("r2", "core", 5e8),
)
HOT = (
    "r1/h1 10c 64G: a 6c 30G, b 3c 4G | r2/h2 10c 64G: "
    "| r1/h3 10c 64G: c 0.1c 1G | r1/h4 10c 64G: d 0.05c 1G"
)


def linked(text: str) -> Snapshot:
    snapshot = site(text)
    return replace(snapshot, cluster=replace(snapshot.cluster, links=LINKS))


def test_a_host_in_the_same_rack_is_preferred_to_one_behind_a_narrow_link() -> None:
    """h3 and h4 are used a little more than h2. Dies if the way there does not count."""
    assert told(planned(linked(HOT), policy())) == ["b h1>h4"]
    assert told(planned(site(HOT), policy())) == ["b h1>h2"]


def test_a_way_does_not_make_up_for_a_host_that_is_used_noticeably_more() -> None:
    """Dies if the way goes before the use."""
    busier = HOT.replace("c 0.1c", "c 1c").replace("d 0.05c", "d 1c")
    assert told(planned(linked(busier), policy())) == ["b h1>h2"]


def test_a_way_full_of_the_vms_own_traffic_is_avoided() -> None:
    """Dies if links count as idle whatever passes them."""
    snapshot = linked(HOT)
    loads = {**snapshot.loads, "d": replace(snapshot.loads["d"], network=8e8)}
    assert told(planned(replace(snapshot, loads=loads), policy())) == ["b h1>h3"]


def test_packing_prefers_the_better_way_to_a_host_that_is_a_little_fuller() -> None:
    """Dies if a block goes to the fullest by a hair."""
    text = "r1/h1 10c 64G: a 1c 4G | r2/h2 10c 64G: c 3.1c 4G | r1/h3 10c 64G: d 3c 4G"
    rules = policy("pack", rule("pin", "c", "h2"), rule("pin", "d", "h3"), power={"reserve": 0})
    assert [move.target for move in planned(linked(text), rules).moves] == ["h3"]
    assert [move.target for move in planned(site(text), rules).moves] == ["h2"]


def test_spreading_prefers_the_better_way_where_a_vm_helps_nearly_as_much() -> None:
    """Dies if a block goes to the emptiest host by a hair."""
    text = (
        "r1/h1 10c 64G: a 5.4c 3G, b 0.8c 1G | r2/h2 10c 64G: c 4.55c 4G"
        "| r1/h3 10c 64G: d 4.6c 4G | r1/h4 10c 64G: e 4.65c 4G"
    )
    rules = policy("spread", thresholds={"imbalance": 0.1})
    assert told(planned(linked(text), rules)) == ["b h1>h3"]
    assert told(planned(site(text), rules)) == ["b h1>h2"]


def test_predicted_times_are_those_of_the_narrowest_link() -> None:
    (move,) = planned(linked(HOT), policy()).moves
    assert move.basis.link == "h1 > r1"
    narrow = tuple(replace(link, bandwidth=5e7) for link in LINKS)
    snapshot = linked(HOT)
    snapshot = replace(snapshot, cluster=replace(snapshot.cluster, links=narrow))
    (slower,) = planned(snapshot, policy()).moves
    assert slower.seconds > 1.5 * move.seconds
