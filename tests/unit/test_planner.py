"""What is planned, and what is not, on small sites."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.core.model import (
    Forecast,
    Gap,
    GapKind,
    Load,
    PowerState,
    Snapshot,
    SplitBrain,
    VMState,
)
from balancerd.core.moving.copying import SWITCH_OVER
from balancerd.core.outcome import Against, Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.placing.survey import lay_out
from balancerd.core.policies.rule import ConstraintRule
from balancerd.core.units import GIB
from tests.sites import NOW, changed, done, planned, policy, rule, site, told, under_way

PACKING = {"sleep_idle": True, "idle_for": 600.0, "reserve": 0, "keep_on": 1, "min_on": 0.0}
SLEPT = History(put_to_sleep=dict.fromkeys(("h2", "h3", "h5"), NOW - 3600))
EARLY = {"cpu": {"overload": 0.6, "release": 0.5, "landing": 0.5}}
HOT = "h1 10c 64G: a 4c 8G, b 3c 2G, c 2c 4G | h2 10c 64G: d 1c 4G | h3 10c 64G:"


def gap(host: str) -> Gap:
    return Gap("host", host, GapKind.UNREACHABLE, "no answer", NOW - 60)


def off(snapshot: Snapshot, *hosts: str) -> Snapshot:
    for host in hosts:
        snapshot = changed(snapshot, host=host, power=PowerState.OFF)
    return snapshot


def test_an_overloaded_host_gives_the_cheapest_set_that_brings_it_under_release() -> None:
    made = planned(site(HOT), policy())
    assert told(made) == ["b h1>h3"]  # 3 of 9 cores; c alone would do as well, but holds more
    assert made.moves[0].reason == "h1: CPU 90%, mean 90% > 80%, unload to 70%"
    assert made.score_after < made.score_before


def test_several_vms_are_moved_where_one_is_not_enough() -> None:
    made = planned(
        site("h1 10c 64G: a 3c 8G, b 3c 8G, c 3.5c 8G | h2 5c 64G: | h3 5c 64G:"), policy()
    )
    assert sorted(told(made)) == ["a h1>h2"]
    hotter = site("h1 20c 64G: a 5c 8G, b 5c 8G, c 5c 8G, d 5c 8G | h2 9c 64G: | h3 9c 64G:")
    assert sorted(told(planned(hotter, policy()))) == ["a h1>h2", "b h1>h3"]


def test_a_host_hot_for_a_moment_only_is_left_alone() -> None:
    snapshot = site(HOT)
    loads = {**snapshot.host_loads, "h1": Load(9.5, 6.0, 0)}
    made = planned(replace(snapshot, host_loads=loads), policy())
    assert told(made) == []
    assert made.reason.startswith("nothing to do: 0 hosts overloaded, busiest CPU 95%")


def test_memory_overload_is_relieved_by_memory() -> None:
    made = planned(site("h1 10c 100G: a 1c 40G, b 1c 8G, c 1c 43G | h2 10c 100G:"), policy())
    assert told(made) == ["b h1>h2"]
    assert made.moves[0].reason == "h1 memory 96% > 92%: unload to 88%"


def test_a_full_site_is_not_made_worse_and_the_plan_says_what_was_in_the_way() -> None:
    made = planned(site("h1 10c 64G: a 9c 8G | h2 10c 64G: b 6c 8G"), policy())
    assert told(made) == []
    assert made.reason.startswith("nothing would help: 1 host overloaded, busiest CPU 90%")
    assert made.refusal_counts == {"CPU": 1}
    assert made.refusals[0].detail == "15.00 of at most 6.50 cores expected"


def test_a_sleeping_host_is_woken_for_an_overload_and_the_move_waits_for_it() -> None:
    snapshot = off(site("h1 10c 64G: a 5c 8G, b 4c 2G | h2 10c 64G:"), "h2")
    made = planned(
        snapshot, policy(power={"min_off": 600.0}), replace(SLEPT, slept={"h2": NOW - 10})
    )
    assert told(made) == ["wake h2", "b h1>h2"]
    assert made.moves[0].after == (1,)


def test_only_hosts_that_are_off_and_may_sleep_are_woken() -> None:
    snapshot = off(site("h1 10c 64G: a 5c 8G, b 4c 2G | h2 10c 64G: | h3 10c 64G:"), "h2", "h3")
    snapshot = changed(snapshot, host="h2", can_sleep=False)
    snapshot = changed(snapshot, host="h3", power=PowerState.WAKING)
    assert told(planned(snapshot, policy(), SLEPT)) == []


def test_a_host_that_something_else_switched_off_stays_off_unless_the_policy_says_otherwise() -> (
    None
):
    """Dies when any host that is off may be woken: somebody may be at work on it."""
    snapshot = off(site("h1 10c 64G: a 5c 8G, b 4c 2G | h2 10c 64G:"), "h2")
    assert told(planned(snapshot, policy(), History(slept={"h2": NOW - 3600}))) == []
    assert told(planned(snapshot, policy(power={"wake_any": True}))) == ["wake h2", "b h1>h2"]


def test_a_draining_host_is_emptied_and_takes_nothing() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: | h3 10c 64G: c 0.5c 4G")
    made = planned(replace(snapshot, draining=frozenset({"h1"})), policy())
    assert sorted(told(made)) == ["a h1>h2", "b h1>h3"]
    assert {move.reason for move in made.moves} == {"h1 is draining"}


def test_draining_only_leaves_overloads_and_broken_rules_as_they_are() -> None:
    """Dies where the objective "drain" also repairs rules, or goes on to relieve."""
    text = "h1 10c 64G: a 1c 8G | h2 10c 64G: b 5c 2G, c 4c 2G | h3 10c 64G: d 1c 4G | h4 10c 64G:"
    snapshot = replace(site(text), draining=frozenset({"h1"}))
    assert told(planned(snapshot, policy("drain", rule("avoid", "d", "h3")))) == ["a h1>h4"]
    assert len(planned(snapshot, policy("quiet", rule("avoid", "d", "h3"))).moves) == 3


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (rule("apart", "a b"), ["b h1>h2"]),
        (rule("pin", "b", "h2"), ["b h1>h2"]),
        (rule("avoid", "b", "h1"), ["b h1>h2"]),
        (rule("together", "b c"), ["b h1>h3"]),
    ],
)
def test_a_broken_rule_is_mended_whatever_the_objective(
    rules: ConstraintRule, expected: list[str]
) -> None:
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 4G | h2 10c 64G: | h3 10c 64G: c 2c 8G")
    made = planned(snapshot, policy("quiet", rules))
    assert told(made) == expected


def test_vms_in_each_others_way_swap_through_a_parking_host() -> None:
    """Dies if the parked VM's cool-down or the wait for the first leg is forgotten."""
    rules = policy("quiet", rule("avoid", "a", "h1"), rule("avoid", "b", "h2"))
    snapshot = site("h1 10c 64G: a 4c 30G | h2 10c 64G: b 4c 30G | h3 10c 64G: c 2c 8G")
    made = planned(snapshot, rules)
    assert told(made) == ["a h1>h3", "b h2>h1", "a h3>h2"]
    assert [move.after for move in made.moves] == [(), (1,), (2,)]
    assert [move.parked for move in made.moves] == [False, False, True]
    assert [move.wave for move in made.moves] == [1, 2, 3]


def test_a_swap_without_a_parking_host_is_refused() -> None:
    rules = policy("quiet", rule("pin", "a", "h2"), rule("pin", "b", "h1"))
    made = planned(site("h1 10c 64G: a 4c 30G | h2 10c 64G: b 4c 30G"), rules)
    assert told(made) == []
    assert made.refusal_counts["memory"] == 2


def test_a_group_moves_as_one() -> None:
    rules = policy("quiet", rule("together", "a b"))
    snapshot = site(
        "h1 10c 64G: a 3c 8G, b 1c 8G | h2 5c 64G: c 1c 8G | h3 10c 64G:",
        draining=frozenset({"h1"}),
    )
    assert told(planned(snapshot, rules)) == ["a h1>h3", "b h1>h3"]


def test_packing_empties_the_host_that_saves_most_for_least() -> None:
    snapshot = site("h1 10c 64G: a 2c 8G | h2 10c 64G: b 2c 24G | h3 10c 64G:")
    made = planned(snapshot, policy("pack", power=PACKING))
    assert told(made) == ["a h1>h2"]
    assert made.moves[0].reason == "empty h1 (CPU 20%, 1 VM)"


def test_packing_moves_all_of_a_host_or_nothing() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G, b 3c 8G | h2 10c 64G: c 5c 8G")
    assert told(planned(snapshot, policy("pack", power=PACKING))) == []


def test_packing_leaves_a_host_alone_from_which_something_cannot_be_moved() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: c 1c 32G")
    snapshot = changed(snapshot, vm="b", host_devices=("gpu",))
    assert told(planned(snapshot, policy("pack", power=PACKING))) == ["c h2>h1"]


def test_a_host_sleeps_only_after_it_was_seen_empty_for_long_enough() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G:")
    rules = policy("pack", power=PACKING)
    assert told(planned(snapshot, rules)) == []
    fresh, long_ = (History(idle_since={"h2": NOW - ago}) for ago in (599, 600))
    assert told(planned(snapshot, rules, fresh)) == []
    assert told(planned(snapshot, rules, long_)) == ["sleep h2"]


@pytest.mark.parametrize("why", [{"can_sleep": False}, {"driver_doubted": True}], ids=str)
def test_a_host_stays_on_that_nobody_could_wake_or_tell_to_be_off(why: dict[str, Any]) -> None:
    """Dies when it is planned all the same: each such plan fails as the host is to go to sleep."""
    snapshot = changed(site("h1 10c 64G: a 1c 8G | h2 10c 64G:"), host="h2", **why)
    history = History(idle_since={"h2": NOW - 600})
    assert told(planned(snapshot, policy("pack", power=PACKING), history)) == []


def test_a_host_emptied_by_a_plan_does_not_sleep_in_the_same_plan() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G: b 1c 8G")
    history = History(idle_since={"h1": 0.0, "h2": 0.0})
    assert told(planned(snapshot, policy("pack", power=PACKING), history)) == ["a h1>h2"]


@pytest.mark.parametrize(
    "power",
    [
        {"sleep_idle": False},
        {"keep_on": 2},
        {"reserve": 1},
        {"min_on": 3600.0},
    ],
)
def test_a_host_stays_on_where_the_policy_wants_it(power: dict[str, object]) -> None:
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G:")
    history = History(idle_since={"h2": 0.0}, woken={"h2": NOW - 1800})
    assert told(planned(snapshot, policy("pack", power=PACKING | power), history)) == []


def test_shut_off_vms_do_not_keep_a_host_awake_but_are_named() -> None:
    snapshot = changed(
        site("h1 10c 64G: a 1c 8G | h2 10c 64G: b 0c 8G"), vm="b", state=VMState.SHUTOFF
    )
    made = planned(snapshot, policy("pack", power=PACKING), History(idle_since={"h2": NOW - 3600}))
    assert told(made) == ["sleep h2"]
    assert made.actions[0].reason == "empty for 1h, 1 VM shut off on it"


def test_a_host_on_the_way_to_which_something_is_does_not_sleep() -> None:
    snapshot = under_way(site("h1 10c 64G: a 1c 8G | h2 10c 64G:"), a="h2")
    made = planned(snapshot, policy("pack", power=PACKING), History(idle_since={"h2": 0.0}))
    assert told(made) == []


def test_hosts_are_woken_when_the_reserve_is_short() -> None:
    snapshot = off(site("h1 10c 64G: a 5c 8G | h2 10c 64G:"), "h2")
    assert told(planned(snapshot, policy(power={"reserve": 0}), SLEPT)) == []
    made = planned(snapshot, policy(power={"reserve": 1}), SLEPT)
    assert told(made) == ["wake h2"]
    assert made.actions[0].reason == "5.0 cores expected, room for 0.0, 1 host in reserve"


def test_spreading_levels_the_busiest_host_first() -> None:
    snapshot = site("h1 10c 64G: a 3c 8G, b 3c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G")
    assert told(planned(snapshot, policy("spread"))) == ["a h1>h2"]


def test_spreading_waits_until_hosts_are_unequal_enough() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: c 1c 8G")
    assert told(planned(snapshot, policy("spread"))) == []


def test_a_plan_that_gains_too_little_is_declined_with_its_numbers() -> None:
    snapshot = site("h1 10c 64G: a 3c 8G, b 3c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G")
    made = planned(snapshot, policy("spread", limits={"gain": 0.99}))
    assert told(made) == []
    assert "less than the 99% that limits.gain asks for" in made.reason


def test_no_vm_leaves_or_enters_a_host_that_is_not_known() -> None:
    snapshot = replace(site(HOT + " | h4 10c 64G:"), gaps=(gap("h3"),))
    made = planned(snapshot, policy())
    assert told(made) == ["b h1>h4"]
    blind = replace(site(HOT + " | h4 10c 64G:"), gaps=(gap("h1"),))
    assert told(planned(blind, policy())) == []


def test_nothing_is_planned_while_too_many_hosts_are_unknown() -> None:
    made = planned(replace(site(HOT), gaps=(gap("h2"),)), policy())
    assert made.actions == ()
    assert made.reason == "1 of 3 hosts are not known: h2: nothing is planned"


def test_sleeping_hosts_do_not_water_down_the_share_of_unknown_ones() -> None:
    snapshot = off(site(HOT + " | h4 10c 64G: | h5 10c 64G:"), "h4", "h5")
    made = planned(replace(snapshot, gaps=(gap("h2"),)), policy())
    assert made.reason == "1 of 3 hosts are not known: h2: nothing is planned"


def test_nothing_is_planned_while_a_vm_runs_twice() -> None:
    split = SplitBrain("a", "uuid-a", ("h1", "h2"))
    made = planned(replace(site(HOT), split_brains=(split,)), policy())
    assert made.actions == ()
    assert made.reason == "a (uuid-a) runs on h1 and h2 at once: nothing is planned"


def test_one_vm_that_cannot_be_moved_does_not_void_the_plan() -> None:
    snapshot = changed(site(HOT), vm="b", host_devices=("gpu",))
    made = planned(snapshot, policy())
    assert told(made) == ["c h1>h3"]
    assert [(r.vm, r.constraint) for r in made.refusals] == [("b", "host device")]


def test_a_contradiction_is_named_and_the_rest_is_planned() -> None:
    made = planned(site(HOT), policy("quiet", rule("pin", "d", "h9")))
    assert told(made) == ["b h1>h3"]
    assert made.refusal_counts["contradiction"] == 2


@pytest.mark.parametrize("objective", ["spread", "pack", "quiet"])
@pytest.mark.parametrize(
    "snapshot",
    [
        site("h1 0c 0G:"),
        site("h1 10c 64G: a 1000c 9999G | h2 10c 64G:"),
        site("h1 10c 64G: a 9c 0G | h2 0c 64G: | h3 10c 0G:"),
        Snapshot(0.0, site("h1 10c 1G:").cluster, {}, {}, {}),
        replace(site("h1 10c 64G: a 1c 8G"), loads={}, forecasts={}),
        changed(site("h1 10c 64G: a 1c 8G | h2 10c 64G:"), vm="a", memory=0, vcpus=0),
        changed(site("h1 10c 64G: a 1c 8G | h2 10c 64G:"), vm="a", memory=-GIB),
    ],
)
def test_absurd_sites_are_planned_without_an_exception(objective: str, snapshot: Snapshot) -> None:
    planned(snapshot, policy(objective, rule("apart", "*"), rule("pin", "x*", "nowhere")))


def test_an_empty_site_has_an_empty_plan() -> None:
    empty = Snapshot(0.0, replace(site("h1 1c 1G:").cluster, hosts={}), {}, {}, {})
    assert planned(empty, policy()).reason == "the site has no hosts"


def test_a_vm_placed_on_a_host_that_does_not_exist_is_left_out() -> None:
    snapshot = site(HOT)
    placement = {**snapshot.cluster.placement, "d": "h9"}
    lost = replace(snapshot, cluster=replace(snapshot.cluster, placement=placement))
    assert told(planned(lost, policy())) == ["b h1>h2"]


def test_after_its_moves_a_plan_has_nothing_to_add() -> None:
    for objective in ("spread", "pack", "quiet"):
        snapshot = site(HOT)
        made = planned(snapshot, policy(objective, power=PACKING))
        moves = tuple(PastMove(m.vm, m.source, m.target, NOW, Outcome.DONE) for m in made.moves)
        after = done(snapshot, *made.moves)
        assert planned(after, policy(objective, power=PACKING), History(moves=moves)).moves == ()


def test_a_plan_carries_figures_scores_and_predictions() -> None:
    made = planned(site(HOT), policy())
    assert [(f.host, round(f.cpu, 2), f.vms) for f in made.before] == [
        ("h1", 0.9, 3),
        ("h2", 0.1, 1),
        ("h3", 0.0, 0),
    ]
    assert [(f.host, round(f.cpu, 2), f.vms) for f in made.after] == [
        ("h1", 0.6, 2),
        ("h2", 0.1, 1),
        ("h3", 0.3, 1),
    ]
    move = made.moves[0]
    assert move.score_after == made.score_after
    assert move.bytes == round(2 * GIB * 1.11)  # two rounds, and a hundredth in the pause
    assert move.seconds == pytest.approx(move.bytes / (100 * 2**20) + SWITCH_OVER)


def test_a_fuller_host_that_is_less_efficient_is_emptied_before_an_efficient_one() -> None:
    """Dies if only the watts saved for the memory moved decide."""
    snapshot = site("h1 10c 64G: a 2c 16G | h2 10c 64G: b 1c 8G")
    thirsty, frugal = (100.0, 300.0), (100.0, 200.0)
    snapshot = changed(snapshot, host="h1", power_curve=thirsty)
    snapshot = changed(snapshot, host="h2", power_curve=frugal)
    assert told(planned(snapshot, policy("pack", power=PACKING))) == ["a h1>h2"]


def test_a_vm_packed_twice_in_the_search_moves_once() -> None:
    snapshot = site("h1 10c 64G: a 1c 4G | h2 10c 64G: b 1c 8G | h3 10c 64G: c 1c 16G")
    made = planned(snapshot, policy("pack", power=PACKING))
    assert told(made) == ["a h1>h3", "b h2>h3"]


def test_a_host_of_more_vms_than_a_plan_may_move_keeps_no_other_from_being_emptied() -> None:
    found = site("h1 8c 64G: a 1c 4G, b 1c 4G, c 1c 4G | h2 16c 64G: d 1c 4G | h3 16c 64G: e 4c 4G")
    made = planned(found, policy("pack", power={"reserve": 0}, limits={"per_plan": 2}))
    assert told(made) == ["d h2>h3"]
    assert made.refusal_counts["moves per plan"] == 1


def test_emptying_a_host_leaves_more_room_the_more_moves_it_takes() -> None:
    snapshot = site("h1 10c 64G: a 1c 4G, b 1c 4G | h2 10c 64G: c 4c 8G")
    roomy = policy("pack", limits={"moves_per_host": 2}, thresholds={"margin": 0.5}, power=PACKING)
    assert told(planned(snapshot, roomy)) == []
    assert len(planned(snapshot, policy("pack", power=PACKING)).moves) == 1
    few = policy("pack", limits={"moves_per_host": 1}, power=PACKING)
    snapshot = site("h1 10c 64G: a 1c 4G, b 1c 4G | h2 10c 64G: c 1c 8G, d 1c 8G")
    assert told(planned(snapshot, few)) == []


def test_no_host_is_woken_while_smaller_vms_can_relieve_an_overloaded_one() -> None:
    """Dies if the first VM that finds no room wakes a host."""
    snapshot = site("h1 10c 64G: a 5c 4G, b 2c 8G, c 2c 9G | h2 10c 64G: d 4c 8G | h3 10c 64G:")
    made = planned(off(snapshot, "h3"), policy(power={"reserve": 0}))
    assert told(made) == ["b h1>h2"]


def test_relief_goes_by_what_a_vm_asks_for_now_not_by_what_is_expected_of_it() -> None:
    """Dies if expected use decides which VM brings the host under release."""
    snapshot = site("h1 10c 64G: a 1c 4G, b 3c 8G, c 5c 16G | h2 10c 64G:")
    expected = snapshot.forecasts
    swapped = {**expected, "a": expected["b"], "b": expected["a"]}
    made = planned(replace(snapshot, forecasts=swapped), policy())
    assert told(made) == ["b h1>h2"]


def expecting(snapshot: Snapshot, **cpu: float) -> Snapshot:
    """The snapshot with other expectations of some VMs, in cores."""
    forecasts = {**snapshot.forecasts, **{vm: Forecast(cores, 0.0) for vm, cores in cpu.items()}}
    return replace(snapshot, forecasts=forecasts)


def test_a_peak_is_ended_by_moving_who_has_it() -> None:
    """Dies if bytes alone decide: a has a little less to send than b, but stays as busy."""
    snapshot = site("h1 10c 64G: a 3c 7G, b 3c 8G, c 3c 32G | h2 10c 64G:")
    assert told(planned(expecting(snapshot, b=0.5, c=2.0), policy())) == ["b h1>h2"]


def test_who_leaves_a_host_that_stays_busy_is_the_cheapest() -> None:
    """Dies if who is at a peak leaves a host that is too busy without it."""
    snapshot = site("h1 10c 64G: a 3c 7G, b 2c 8G, c 4c 32G | h2 10c 64G:")
    assert told(planned(expecting(snapshot, b=0.5), policy())) == ["a h1>h2"]


def test_where_none_is_enough_the_biggest_leave_so_that_few_do() -> None:
    """Dies if those that send least for what they bring leave first: c, d and one of the others."""
    text = "h1 20c 96G: a 5c 20G, b 5c 20G, c 2c 1G, d 2c 1G, e 4c 30G | h2 12c 64G: | h3 12c 64G:"
    made = planned(site(text), policy(thresholds=EARLY))
    assert sorted(told(made)) == ["a h1>h2", "b h1>h3"]


def test_a_peak_that_only_many_moves_would_end_is_sat_out() -> None:
    """Dies if what was decided for its host is not taken back, or is for hosts that stay busy."""
    text = "h1 20c 64G: a 5c 8G, b 5c 8G, c 5c 8G, d 5c 8G | h2 9c 64G: | h3 9c 64G:"
    once = policy(limits={"moves_per_peak": 1})
    assert len(planned(site(text), once).moves) == 2
    made = planned(expecting(site(text), a=1.0, b=1.0), once)
    assert told(made) == []
    assert made.refusals[0].detail == "ending its peak takes 2 moves, at most 1 may"
    assert len(planned(expecting(site(text), a=1.0, b=1.0), policy()).moves) == 2


def test_what_a_vm_waits_for_counts_as_asked_for() -> None:
    """Dies if only what a VM was given counts: c would seem enough."""
    snapshot = site("h1 10c 64G: a 5c 16G, b 2c 8G, c 2c 2G | h2 10c 64G:")
    waiting = {**snapshot.loads, "b": replace(snapshot.loads["b"], steal=0.25)}
    snapshot = changed(replace(snapshot, loads=waiting), vm="b", cpu=8.0)
    assert told(planned(snapshot, policy())) == ["b h1>h2"]


@pytest.mark.parametrize("objective", ["quiet", "spread", "pack"])
def test_a_vm_that_waits_alone_on_its_host_does_not_go_to_an_equal_one(objective: str) -> None:
    """It waits for its own quota, or for what is below the host: so it would elsewhere, and would
    go round the site. Dies if its waiting is taken for its host's fault."""
    snapshot = site("h1 10c 64G: a 5c 8G | h2 10c 64G: | h3 10c 64G:")
    waiting = {"a": replace(snapshot.loads["a"], steal=0.3)}
    made = planned(replace(snapshot, loads=waiting), policy(objective))
    assert told(made) == []
    assert "1 host overloaded" in made.reason
    beside = site("h1 10c 64G: a 4c 8G, b 1c 8G | h2 10c 64G: | h3 10c 64G:")
    waiting = {**beside.loads, "a": replace(beside.loads["a"], steal=0.3)}
    assert told(planned(replace(beside, loads=waiting), policy(objective)))


def test_what_is_tried_on_a_layout_does_not_show_on_the_next_one_of_the_snapshot() -> None:
    """Dies if the layout that is drawn up once is handed out itself instead of a copy."""
    snapshot = site("h1 10c 64G: a 4c 16G, b 2c 8G | h2 10c 64G: c 1c 4G")
    rules = policy()
    drawn = lay_out(snapshot, rules, History(), NOW)
    drawn.move(drawn.block_of["a"], drawn.host_row["h2"])
    again = lay_out(snapshot, rules, History(), NOW)
    anew = lay_out(replace(snapshot), rules, History(), NOW)
    for field in ("place", "used_now", "used_cpu", "used_variance", "used_memory", "used_count"):
        assert getattr(again, field).tolist() == getattr(anew, field).tolist(), field
    assert not again.moved


def test_a_vm_smaller_than_a_core_waits_for_a_share_of_the_core() -> None:
    """a wants 0.5 of a core worth 2 and gets half of that, so it waits an eighth of the time. Dies
    if the share is taken of its size: overloads would be thought smaller than they are."""
    snapshot = changed(site("h1 8c 64G: a 0.25c 4G"), vm="a", cpu=0.5)
    host = replace(snapshot.cluster.hosts["h1"], cores=4)
    cluster = replace(snapshot.cluster, hosts={"h1": host})
    loads = {"a": replace(snapshot.loads["a"], steal=0.125)}
    layout = lay_out(replace(snapshot, cluster=cluster, loads=loads), policy(), History(), NOW)
    assert layout.now.tolist() == [0.5]


SPARE = (
    "h1 10c 64G: a 2c 30G | h2 10c 64G: b 2c 30G | h3 10c 64G: c 2c 30G | "
    "h4 10c 64G: d 1c 4G | h5 10c 64G:"
)


def test_no_host_goes_to_sleep_that_another_ones_vms_would_need_should_it_fail() -> None:
    """Together the others have room enough, but none of them for the large VM. Dies if only sums
    are compared."""
    rules, idle = {**PACKING, "reserve": 1}, History(idle_since={"h5": 0.0})
    assert told(planned(site(SPARE), policy(power=rules), idle)) == ["sleep h5"]
    needed = site(SPARE.replace("d 1c 4G", "d 1c 24G"))
    made = planned(needed, policy(power=rules), idle)
    assert told(made) == []
    assert [(r.host, r.constraint, r.detail) for r in made.refusals] == [
        ("h5", "reserve", "should h1 fail, the others that are on have no room for its VMs")
    ]
    assert told(planned(needed, policy(power=PACKING), idle)) == ["sleep h5"]


def test_a_host_is_woken_for_vms_that_would_have_no_room_should_theirs_fail() -> None:
    """But for none that no host could take."""
    dark = off(site(SPARE.replace("d 1c 4G", "d 1c 24G")), "h5")
    made = planned(dark, policy(power={"reserve": 1}), SLEPT)
    assert told(made) == ["wake h5"]
    assert made.actions[0].reason.startswith("should h1 fail, the others that are on have no room")
    assert told(planned(dark, policy(power={"reserve": 0}), SLEPT)) == []
    small = SPARE.replace("d 1c 4G", "d 1c 24G").replace("h5 10c 64G", "h5 10c 8G")
    assert told(planned(off(site(small), "h5"), policy(power={"reserve": 1}), SLEPT)) == []


def test_a_plan_that_packs_says_why_hosts_stay_on_and_counts_who_turned_their_vms_down() -> None:
    """Dies when a host that could not be emptied leaves no refusal behind, or its VMs no count."""
    snapshot = site("h1 10c 64G: a 1c 8G, b 3c 8G | h2 10c 64G: c 5c 8G | h3 10c 64G: d 5c 4G")
    made = planned(snapshot, policy("pack", power=PACKING))
    assert told(made) == []
    hosts = {refusal.host: refusal for refusal in made.refusals if not refusal.vm}
    assert set(hosts) == {"h1", "h2", "h3"}
    assert made.refusal_counts["no room"] == 3
    detail = "its VMs expect 5.00 cores, the others have 3.96 to fill"
    assert (hosts["h2"].detail, hosts["h2"].remedy) == (detail, "free 1.04 cores on other hosts")
    assert "refused" in made.reason


def test_rules_that_keep_a_host_from_being_emptied_are_told_with_its_vm() -> None:
    """Dies when what a search asks about and is forbidden is forgotten."""
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G: c 2c 8G")
    made = planned(snapshot, policy("pack", rule("apart", "a c"), power=PACKING))
    assert told(made) == []
    assert ("a", "h2", "apart") in {(r.vm, r.host, r.constraint) for r in made.refusals}
    assert made.refusal_counts == {"apart": 2, "no room": 2}


def test_hosts_that_a_vm_cannot_reach_are_counted_when_packing_fails_for_it() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G: c 2c 8G | h3 10c 64G: d 2c 8G")
    pins = rule("pin", "a", "h1"), rule("pin", "c", "h2"), rule("pin", "d", "h3")
    made = planned(snapshot, policy("pack", *pins, power=PACKING))
    assert made.refusal_counts == {"not reachable": 6, "no room": 3}


def just_moved(vm: str) -> PastMove:
    return PastMove(vm, "h2", "h1", NOW - 60, Outcome.DONE)


def test_a_plan_tells_of_vms_that_never_move_whatever_its_objective() -> None:
    """Dies when packing passes over them in silence."""
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G: c 2c 8G")
    history = History((just_moved("a"),))
    made = planned(snapshot, policy("pack", power=PACKING), history)
    assert ("a", "cool-down") in {(r.vm, r.constraint) for r in made.refusals}


def test_the_refusals_kept_are_not_all_of_one_kind() -> None:
    """Dies when the first twenty are kept, whatever they say."""
    resting = ", ".join(f"r{number} 0.1c 1G" for number in range(30))
    snapshot = site(f"h1 10c 64G: {resting} | h2 10c 64G: c 5c 8G | h3 10c 64G: d 5c 8G")
    history = History(tuple(just_moved(f"r{number}") for number in range(30)))
    made = planned(snapshot, policy("pack", power=PACKING), history)
    assert made.refusal_counts["cool-down"] == 30
    assert {refusal.constraint for refusal in made.refusals} == {"cool-down", "no room"}


def test_what_finds_no_place_does_not_use_up_the_moves_of_a_plan() -> None:
    """Dies if moves are shared out before it is known who can go anywhere."""
    rules = policy("quiet", rule("avoid", "a b c", "h1"), limits={"per_plan": 2})
    snapshot = site("h1 10c 64G: a 1c 16G, b 1c 16G, c 1c 1G | h2 10c 24G: d 1c 8G")
    made = planned(snapshot, rules)
    assert told(made) == ["c h1>h2"]
    assert made.refusal_counts["memory"] == 2


@pytest.mark.parametrize("objective", ["quiet", "pack", "spread", "defragment"])
def test_a_vm_that_comes_from_a_host_that_does_not_exist_counts_where_it_goes(
    objective: str,
) -> None:
    """Dies if it counts nowhere: the checker then refuses whatever goes there, too."""
    snapshot = under_way(site("h1 10c 64G: a 1c 8G | h2 10c 64G: b 6c 8G | h3 10c 64G:"), b="h3")
    hosts = {name: host for name, host in snapshot.cluster.hosts.items() if name != "h2"}
    lost = replace(snapshot, cluster=replace(snapshot.cluster, hosts=hosts))
    layout = lay_out(lost, policy(objective), History(), NOW)
    assert layout.used_memory[layout.host_row["h3"]] == 8 * GIB
    assert layout.fixed[layout.block_of["b"]].constraint == "under way"
    assert told(planned(lost, policy(objective, rule("avoid", "a", "h1")))) == []
    said = PastMove("a", "h1", "h3", NOW - 60, Outcome.OBJECTED, against=Against.TARGET)
    assert told(planned(lost, policy(objective), History((said,)))) == []


@pytest.mark.parametrize("cpu", [0.0, -4.0, 1e300, float("nan")])
def test_a_host_whose_capacity_cannot_be_believed_is_left_out_and_freezes_nothing(
    cpu: float,
) -> None:
    """Dies if such hosts count as hosts that are not seen: the plan is void then."""
    snapshot = site("h1 10c 64G: a 3c 8G, b 6c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G")
    made = planned(changed(snapshot, host="h3", cpu=cpu), policy())
    assert told(made) == ["a h1>h2"]
    assert [(r.host, r.constraint) for r in made.refusals if not r.vm] == [("h3", "capacity")]


def test_of_two_to_be_apart_the_one_leaves_whose_host_is_better_without_it() -> None:
    """Dies if the smaller one leaves though that leaves the host as crowded as before."""
    snapshot = site("h1 10c 64G: a 4c 8G, b 1c 4G, c 1c 4G | h2 10c 64G: | h3 10c 64G:")
    apart = rule("apart", "a b")
    assert told(planned(snapshot, policy("quiet", apart))) == ["b h1>h2"]
    costs = {"crowding": 10.0, "crowded": 0.2, "move": 1.0}
    assert told(planned(snapshot, policy("quiet", apart, costs=costs)))[0] == "a h1>h2"
    idle = site("h1 10c 64G: a 0c 8G, b 0c 4G | h2 10c 64G: | h3 10c 64G:")
    assert told(planned(idle, policy("quiet", apart, costs=costs))) == ["b h1>h2"]


def test_a_vm_on_its_way_from_nobody_knows_where_is_left_out() -> None:
    """Dies with a traceback if it is looked up where it is."""
    snapshot = under_way(site("h1 10c 64G: a 1c 8G | h2 10c 64G: b 6c 8G | h3 10c 64G:"), b="h3")
    placement = {"a": "h1"}
    lost = replace(snapshot, cluster=replace(snapshot.cluster, placement=placement))
    past = PastMove("b", "h1", "h2", NOW - 60, Outcome.DONE)
    assert told(planned(lost, policy(), History((past,)))) == []
