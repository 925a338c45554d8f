"""Rules one by one: what breaks them, what is refused, and rules that contradict each other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from balancerd.core.check import check
from balancerd.core.model import Disk, Method, PowerState, Snapshot, VMState
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.placing.constraints import (
    Failover,
    Gate,
    accepts,
    contradictions,
    refuses,
    refuses_move,
    soft_breaks,
    violations,
)
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Move, Plan, Refusal
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.units import DAY
from tests.sites import NOW, changed, policy, rule, site, under_way


def apart_at_most(most: int, vms: str, scope: str = "host") -> ConstraintRule:
    return rule("apart", vms, scope=scope).model_copy(update={"at_most": most})


def headroom(share: float, hosts: str) -> ConstraintRule:
    return ConstraintRule(kind="headroom", hosts=(hosts,), share=share, name="headroom")


SITE = "r1/h1 10c 64G: a 2c 8G, b 1c 8G | r1/h2 10c 64G: c 1c 8G | r2/h3 10c 64G:"


def refusal(
    snapshot: Snapshot, rules: Policy, vm: str, target: str, *past: PastMove, parked: bool = False
) -> Refusal | None:
    source = snapshot.cluster.placement[vm]
    move = Move(1, vm, source, target, Method.PRE_COPY, "", parked=parked)
    return refuses_move(snapshot, rules, History(moves=past), NOW, move)


def refused(snapshot: Snapshot, rules: Policy, vm: str, target: str, *past: PastMove) -> str:
    """The constraint that refuses, or ""."""
    found = refusal(snapshot, rules, vm, target, *past)
    return found.constraint if found else ""


def broken(snapshot: Snapshot, rules: Policy) -> list[str]:
    return [found.constraint for found in violations(snapshot, rules)]


def test_nothing_refuses_a_move_to_an_idle_host() -> None:
    assert refused(site(SITE), policy(), "a", "h3") == ""


def test_memory_lands_below_its_threshold_of_what_the_reserve_leaves() -> None:
    snapshot = site("h1 10c 64G: a 1c 24G | h2 10c 64G: b 1c 30G")
    found = refusal(snapshot, policy(), "a", "h2")
    assert found == Refusal(
        "a", "h2", "memory", "54.0 GiB of at most 51.7 GiB", "free 2.3 GiB of memory on h2"
    )
    assert refused(snapshot, policy(capacity={"enforce_memory": False}), "a", "h2") == ""


def test_cpu_lands_below_its_threshold_with_the_spread_of_all_forecasts() -> None:
    snapshot = site("h1 10c 64G: a 3c 8G | h2 10c 64G: b 3c 8G")
    assert refused(snapshot, policy(), "a", "h2") == ""
    shaky = {vm: replace(seen, spread=0.25) for vm, seen in snapshot.forecasts.items()}
    assert refused(replace(snapshot, forecasts=shaky), policy(), "a", "h2") == "CPU"


def test_a_vm_under_way_to_the_target_is_charged_there() -> None:
    snapshot = site("h1 10c 64G: a 4c 8G | h2 10c 64G: | h3 10c 64G: b 4c 8G")
    assert refused(snapshot, policy(), "a", "h2") == ""
    assert refused(under_way(snapshot, b="h2"), policy(), "a", "h2") == "CPU"


def test_a_vm_without_a_forecast_counts_at_half_its_size_and_more() -> None:
    snapshot = changed(site("h1 10c 64G: a 0c 8G | h2 10c 64G:"), vm="a", cpu=7.0)
    assert refused(snapshot, policy(), "a", "h2") == ""
    assert refused(replace(snapshot, forecasts={}), policy(), "a", "h2") == "CPU"


def test_vcpus_are_limited_by_the_overcommit() -> None:
    snapshot = changed(site(SITE), vm="a", vcpus=11)
    assert refused(snapshot, policy(capacity={"cpu_overcommit": 1.0}), "a", "h3") == "vCPUs"


@pytest.mark.parametrize(
    ("rules", "target", "constraint"),
    [
        (rule("pin", "a", "h1 h2"), "h3", "not reachable"),
        (rule("pin", "a", "h1 h2"), "h2", ""),
        (rule("avoid", "a", "h2"), "h2", "not reachable"),
        (rule("avoid", "a", "h2"), "h3", ""),
        (rule("exclude", "a"), "h3", "exclude"),
        (rule("exclude", hosts="h2"), "h2", "host closed"),
        (rule("exclude", hosts="h1"), "h3", "exclude"),
        (rule("exclude", "a", "h2"), "h2", "not reachable"),
        (rule("exclude", "a", "h1"), "h3", "exclude"),
        (rule("apart", "a c"), "h2", "apart"),
        (rule("apart", "a c"), "h3", ""),
        (rule("apart", "a c", scope="rack"), "h2", "apart"),
        (rule("apart", "a b", scope="rack"), "h3", ""),
        (rule("apart", "a", scope="rack"), "h2", ""),
        (rule("together", "a c", scope="rack"), "h3", "together"),
        (rule("together", "a c", scope="rack"), "h2", ""),
        (rule("together", "a c"), "h2", ""),
    ],
)
def test_a_rule_says_where_a_vm_may_go(rules: ConstraintRule, target: str, constraint: str) -> None:
    assert refused(site(SITE), policy("quiet", rules), "a", target) == constraint


def test_a_group_is_moved_whole_or_not_at_all() -> None:
    rules = policy("quiet", rule("together", "a b"))
    snapshot = site("h1 10c 64G: a 4c 8G, b 4c 8G | h2 10c 64G: | h3 20c 64G:")
    assert refused(snapshot, rules, "a", "h2") == "CPU"  # a alone would fit
    assert refused(snapshot, rules, "a", "h3") == ""


def test_the_second_of_a_group_may_follow_the_first() -> None:
    rules = policy("quiet", rule("together", "a b"))
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: | h3 10c 64G:")
    on_the_way = under_way(snapshot, a="h2")
    assert refused(on_the_way, rules, "b", "h2") == ""
    assert refused(on_the_way, rules, "b", "h3") == "together"


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"state": VMState.PAUSED}, "not running"),
        ({"host_devices": ("0000:01:00.0",)}, "host device"),
        ({"owner": "nova"}, "other owner"),
        ({"disks": (Disk("/var/a.img", shared=False),)}, "local storage"),
        ({"disks": (Disk("a", shared=True, safe_cache=False),)}, "unsafe cache mode"),
        ({"disks": (Disk("a", shared=True),)}, ""),
        ({"cpu_model": "host-passthrough"}, "not reachable"),
    ],
)
def test_what_a_vm_is_may_keep_it_where_it_is(fields: dict[str, Any], constraint: str) -> None:
    snapshot = changed(site(SITE), vm="a", **fields)
    assert refused(snapshot, policy(), "a", "h3") == constraint


def test_host_passthrough_goes_to_an_equal_cpu() -> None:
    snapshot = changed(site(SITE), vm="a", cpu_model="host-passthrough")
    for host, model in (("h1", "Skylake"), ("h2", "Rome"), ("h3", "Skylake")):
        snapshot = changed(snapshot, host=host, cpu_model=model)
    assert refused(snapshot, policy(), "a", "h2") == "not reachable"
    assert refused(snapshot, policy(), "a", "h3") == ""


@pytest.mark.parametrize(
    ("here", "there", "vm", "missing"),
    [
        ({"machines": ("q35", "old")}, {"machines": ("q35",)}, {"machine": "old"}, "old"),
        ({"machines": ("q35", "old")}, {"machines": ("q35",)}, {"machine": "q35"}, ""),
        ({"machines": ("q35", "old")}, {}, {"machine": "old"}, ""),
        ({"machines": ("q35",)}, {"machines": ("q35",)}, {"machine": "unlisted"}, ""),
        ({}, {"storage": ("/srv", "rbd")}, {"on": "/srv/vms"}, ""),
        ({}, {"storage": ("/srv", "rbd")}, {"on": "/srv2"}, "/srv2"),
        ({}, {"storage": ("/srv", "rbd")}, {"on": "rbd"}, ""),
        ({}, {"storage": ("rb",)}, {"on": "rbd"}, "rbd"),
        ({}, {}, {"on": "rbd"}, "rbd"),
    ],
)
def test_a_vm_goes_only_where_its_machine_type_and_its_storage_are(
    here: dict[str, Any], there: dict[str, Any], vm: dict[str, Any], missing: str
) -> None:
    on = vm.pop("on", "")
    disk = Disk("a", shared=True, storage=(str(on),) if on else ())
    snapshot = changed(site(SITE), vm="a", disks=(disk,), **vm)
    snapshot = changed(changed(snapshot, host="h1", **here), host="h3", **there)
    found = refusal(snapshot, policy(), "a", "h3")
    assert (found.detail if found else "") == (missing and f"h3 does not have {missing}")
    move = Move(1, "a", "h1", "h3", Method.PRE_COPY, "")
    faults = check(snapshot, policy(), Plan(NOW, "", "", (move,), "", 0.0, 0.0)).violations
    assert bool(faults) == bool(missing)


def test_tags_are_rules_that_say_where_they_are_from() -> None:
    snapshot = site(SITE)
    for vm, tags in (("a", {"apart": "db x", "pin": "h2 h1"}), ("c", {"apart": "db"})):
        snapshot = changed(snapshot, vm=vm, tags=tags)
    assert [rule.name for rule in rules_in_force(snapshot.cluster, policy())] == [
        'tag apart="db"',
        'tag apart="x"',
        'tag pin="h1 h2"',
    ]
    found = refusal(snapshot, policy(), "a", "h2")
    assert found is not None
    assert found.detail == 'tag apart="db": another member is in that host'
    assert refusal(snapshot, policy(), "a", "h3") == Refusal(
        "a", "h3", "not reachable", 'tag pin="h1 h2" keeps it off h3', "change the rule"
    )


def test_tags_and_the_policys_rules_hold_together() -> None:
    snapshot = changed(site(SITE), vm="a", tags={"avoid": "h3"})
    rules = policy("quiet", rule("avoid", "a", "h2"))
    assert refused(snapshot, rules, "a", "h3") == "not reachable"
    assert refused(snapshot, rules, "a", "h2") == "not reachable"


def test_a_vm_with_an_unreadable_tag_stays_but_what_can_be_read_holds() -> None:
    snapshot = changed(site(SITE), vm="a", tags={"apart": "db", "aparrt": "x"})
    snapshot = changed(snapshot, vm="c", tags={"apart": "db"})
    found = refusal(snapshot, policy(), "a", "h3")
    assert found is not None
    assert (found.constraint, found.remedy) == ("unreadable tag", "mend the VM's metadata")
    assert refused(snapshot, policy(), "c", "h1") == "apart"


def test_a_name_that_looks_like_a_glob_is_meant_as_it_is() -> None:
    odd = site("h1 10c 64G: a[1] 1c 8G, a1 1c 8G | h2 10c 64G:")
    odd = changed(odd, vm="a[1]", tags={"avoid": "h2"})
    assert refused(odd, policy(), "a[1]", "h2") == "not reachable"
    assert refused(odd, policy(), "a1", "h2") == ""


@pytest.mark.parametrize(
    ("rules", "target", "constraint"),
    [
        (rule("one-of", "a b", "h[12] h3"), "h2", ""),
        (rule("one-of", "a b", "h[12] h3"), "h3", "together"),
        (rule("one-of", "a", "h[12]"), "h3", "not reachable"),
        (apart_at_most(2, "a b c", "rack"), "h3", ""),
        (apart_at_most(2, "a c"), "h2", ""),
        (apart_at_most(2, "a c d"), "h2", "apart"),
        (headroom(0.3, "h2"), "h2", ""),
        (headroom(0.5, "h2"), "h2", "CPU"),
        (headroom(0.9, "h2"), "h2", "memory"),
        (headroom(0.9, "h3"), "h2", ""),
    ],
)
def test_rules_for_groups_of_hosts_numbers_and_headroom(
    rules: ConstraintRule, target: str, constraint: str
) -> None:
    crowded = site(SITE.replace("c 1c 8G", "c 1c 8G, d 1c 8G"))
    assert refused(crowded, policy("quiet", rules), "a", target) == constraint


def test_a_host_takes_so_many_vms() -> None:
    rules = policy(capacity={"vms_per_host": 1})
    assert refused(site(SITE), rules, "a", "h2") == "VMs"
    assert refused(site(SITE), rules, "a", "h3") == ""
    assert broken(site(SITE), rules) == ["VMs"]


def test_a_soft_rule_refuses_nothing_and_breaks_nothing() -> None:
    rules = [rule("pin", "a", "h1"), rule("apart", "a b c"), rule("together", "a c")]
    soft = policy("quiet", *[one.model_copy(update={"weight": 0.5}) for one in rules])
    assert refused(site(SITE), soft, "a", "h3") == ""
    assert broken(site(SITE), soft) == []
    assert [(found.constraint, found.cost) for found in soft_breaks(site(SITE), soft)] == [
        ("apart", 0.5),
        ("together", 0.5),
    ]


@pytest.mark.parametrize("power", [PowerState.OFF, PowerState.WAKING, PowerState.UNKNOWN])
def test_only_a_host_that_is_on_takes_vms(power: PowerState) -> None:
    assert refused(changed(site(SITE), host="h3", power=power), policy(), "a", "h3") == (
        "host closed"
    )


def test_a_draining_host_takes_no_vms() -> None:
    snapshot = site(SITE, draining=frozenset({"h3"}))
    assert refusal(snapshot, policy(), "a", "h3") == Refusal(
        "a", "h3", "host closed", "h3 is draining", "undrain h3"
    )


def test_a_host_that_is_busy_now_takes_no_vms_whatever_is_expected_of_it() -> None:
    snapshot = site("h1 10c 64G: a 1c 8G | h2 10c 64G: b 8c 8G")
    calm = {**snapshot.forecasts, "b": snapshot.forecasts["a"]}
    assert refused(replace(snapshot, forecasts=calm), policy(), "a", "h2") == "busy"


def past(vm: str, source: str, target: str, ago: float, outcome: Outcome) -> PastMove:
    return PastMove(vm, source, target, NOW - ago, outcome)


def test_a_vm_that_just_moved_rests() -> None:
    recent = past("a", "h2", "h1", 600, Outcome.DONE)
    assert refused(site(SITE), policy(), "a", "h3", recent) == "cool-down"
    assert refusal(site(SITE), policy(), "a", "h3", recent, parked=True) is None


def test_a_vm_does_not_go_back_where_it_came_from_for_twice_its_rest() -> None:
    recent = past("a", "h2", "h1", 2400, Outcome.DONE)
    assert refused(site(SITE), policy(), "a", "h3", recent) == ""
    assert refused(site(SITE), policy(), "a", "h2", recent) == "return"
    long_ago = past("a", "h2", "h1", 3601, Outcome.DONE)
    assert refused(site(SITE), policy(), "a", "h2", long_ago) == ""


def test_a_drain_does_not_wait_for_cool_downs() -> None:
    recent = past("a", "h2", "h1", 600, Outcome.DONE)
    snapshot = site(SITE, draining=frozenset({"h1"}))
    assert refused(snapshot, policy(), "a", "h2", recent) == ""


def test_a_pair_of_hosts_rests_after_a_failure() -> None:
    failed = past("b", "h1", "h3", 60, Outcome.FAILED)
    assert refused(site(SITE), policy(), "a", "h3", failed) == "back-off"
    assert refused(site(SITE), policy(), "a", "h2", failed) == ""


def test_a_vm_at_the_end_of_its_daily_budget_stays() -> None:
    limits = {"per_vm_per_day": 1, "cooldown": 60.0}
    recent = past("a", "h2", "h1", 7200, Outcome.DONE)
    assert refused(site(SITE), policy(limits=limits), "a", "h3", recent) == "budget"


@pytest.mark.parametrize("a_day", [1, 6])
def test_a_vm_at_the_end_of_its_weekly_budget_stays(a_day: int) -> None:
    """Dies when moves of days ago are only looked at where the day's budget is spent, too."""
    limits = {"per_vm_per_day": a_day, "per_vm_per_week": 2, "cooldown": 60.0}
    moves = [past("a", "h2", "h1", days * DAY, Outcome.DONE) for days in (5, 3)]
    assert refused(site(SITE), policy(limits=limits), "a", "h3", *moves) == "budget"
    assert refused(site(SITE), policy(limits=limits), "a", "h3", moves[0]) == ""


def test_a_vm_that_is_gone_or_elsewhere_is_not_moved() -> None:
    gone = Move(1, "z", "h1", "h3", Method.PRE_COPY, "")
    elsewhere = Move(1, "a", "h2", "h3", Method.PRE_COPY, "")
    for move in (gone, elsewhere):
        found = refuses_move(site(SITE), policy(), History(), NOW, move)
        assert found is not None
        assert found.constraint == "gone"


def test_a_gate_remembers_what_it_let_through() -> None:
    snapshot = site("h1 10c 64G: a 4c 8G, b 4c 8G | h2 10c 64G:")
    gate = Gate.of(snapshot, policy(), History(), NOW)
    first, second = (Move(n, vm, "h1", "h2", Method.PRE_COPY, "") for n, vm in ((1, "a"), (2, "b")))
    assert gate.refuses(second) is None
    gate.admit(first)
    assert gate.refuses(second) is not None


def test_the_form_for_many_hosts_says_the_same_as_the_form_for_one() -> None:
    layout = lay_out(site(SITE), policy("quiet", rule("apart", "a c")), History(), NOW)
    block = layout.block_of["a"]
    singly = [refuses(layout, block, row) is None for row in range(3)]
    assert np.array_equal(accepts(layout, block), singly)
    assert singly == [False, False, True]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (rule("apart", "a b"), ["apart"]),
        (rule("apart", "a c"), []),
        (rule("apart", "a c", scope="rack"), ["apart"]),
        (rule("together", "a b"), []),
        (rule("together", "a c"), ["together"]),
        (rule("pin", "a", "h2"), ["pin"]),
        (rule("avoid", "a b", "h1"), ["avoid", "avoid"]),
        (rule("exclude", "a b"), []),
    ],
)
def test_what_breaks_a_rule(rules: ConstraintRule, expected: list[str]) -> None:
    assert broken(site(SITE), policy("quiet", rules)) == expected


def test_more_memory_than_there_is_breaks_a_rule_and_flights_count_on_both_ends() -> None:
    snapshot = site("h1 10c 64G: a 1c 40G | h2 10c 64G: b 1c 40G")
    assert broken(snapshot, policy()) == []
    assert broken(under_way(snapshot, a="h2"), policy()) == ["memory"]


def test_rules_that_cannot_be_kept_are_found_and_named() -> None:
    rules = policy(
        "quiet",
        rule("pin", "a", "h9"),
        rule("together", "b c"),
        rule("apart", "b c"),
        rule("apart", "*", scope="rack"),
        rule("pin", "b", "h1"),
        rule("avoid", "b", "h1"),
    )
    assert [(found.vm, found.detail) for found in contradictions(site(SITE).cluster, rules)] == [
        ("", "pin a: no host is called h9"),
        ("a", "pin a: together they leave a no host"),
        ("b", "pin b, avoid b: together they leave b no host"),
        ("", "apart *: 3 VMs to keep apart, 2 racks"),
        ("b", "together b c and apart b c: b, c both together and apart"),
        ("c", "together b c and apart b c: b, c both together and apart"),
        ("b", "together b c and apart *: b, c both together and apart"),
        ("c", "together b c and apart *: b, c both together and apart"),
    ]


def clashes(snapshot: Snapshot, *rules: ConstraintRule, **tables: dict[str, Any]) -> list[str]:
    found = contradictions(snapshot.cluster, policy("quiet", *rules, **tables))
    return [refusal.detail for refusal in found]


def test_a_host_that_is_not_there_is_named_though_others_are() -> None:
    assert clashes(site(SITE), rule("avoid", "a", "h2 h9 x*")) == [
        "avoid a: no host is called h9",
        "avoid a: no host matches x*",
    ]


def test_a_pin_to_hosts_that_are_too_small_is_named() -> None:
    small = site("h1 10c 64G: a 1c 40G | h2 10c 32G:")
    assert clashes(small, rule("pin", "a", "h2")) == [
        "pin a: a needs 40.0 GiB, the largest host left to it has room for 30.4 GiB"
    ]
    assert clashes(small, rule("pin", "a", "h2"), capacity={"enforce_memory": False}) == []
    assert clashes(small, rule("pin", "a", "h1 h2")) == []


def test_a_group_kept_apart_in_too_few_hosts_by_pins_is_named() -> None:
    """Hall's condition: dies if only the number of hosts is counted."""
    crowd = site("h1 10c 64G: a 1c 4G, b 1c 4G, c 1c 4G | h2 10c 64G: | h3 10c 64G: | h4 10c 64G:")
    pins = [rule("pin", "a b", "h1 h2"), rule("pin", "c", "h[12]")]
    assert clashes(crowd, *pins, rule("apart", "a b c")) == [
        "apart a b c: a, b, c may only be on h1, h2, 2 hosts"
    ]
    assert clashes(crowd, *pins, apart_at_most(2, "a b c")) == []
    assert clashes(crowd, *pins[:1], rule("apart", "a b c")) == []


def test_a_group_that_fits_in_no_place_together_is_named() -> None:
    pair = site("h1 10c 64G: a 1c 40G | h2 10c 64G: b 1c 40G | h3 10c 64G:")
    needs = "its VMs need 80.0 GiB, the largest"
    assert clashes(pair, rule("together", "a b")) == [
        f"together a b: {needs} host open to them has room for 60.8 GiB"
    ]
    assert clashes(pair, rule("one-of", "a b", "h[12] h3")) == []
    assert clashes(pair, rule("one-of", "a b", "h[12] h3"), rule("pin", "a", "h3")) == [
        f"one-of a b: {needs} group of hosts open to them has room for 60.8 GiB"
    ]
    assert clashes(
        pair, rule("together", "*"), rule("pin", "a", "h1"), rule("avoid", "b", "h1")
    ) == ["together *: no host is open to all of its VMs"]


def test_what_a_policy_asks_of_the_number_of_hosts_is_named() -> None:
    power = {"sleep_idle": True, "reserve": 3, "keep_on": 4}
    assert clashes(site(SITE), power=power, capacity={"vms_per_host": 1}) == [
        "power.reserve: 3 hosts in reserve, of 3 hosts",
        "power.keep_on: 4 hosts to keep on, of 3 hosts",
    ]
    assert clashes(
        site(SITE.replace("c 1c 8G", "c 1c 8G, d 1c 8G")), capacity={"vms_per_host": 1}
    ) == ["capacity.vms_per_host: 4 VMs, 3 hosts take 3"]


def test_soft_rules_contradict_nothing() -> None:
    rules = [rule("together", "a c"), rule("apart", "a c"), rule("pin", "a", "h2")]
    soft = [one.model_copy(update={"weight": 1.0}) for one in rules]
    assert clashes(site(SITE), *rules) != []
    assert clashes(site(SITE), *soft) == []


def test_many_small_rooms_are_no_room_for_a_large_vm_of_a_failed_host() -> None:
    rest = " | ".join(f"h{n} 10c 64G: f{n} 1c 48G" for n in range(2, 10))
    layout = lay_out(site(f"h1 10c 64G: a 1c 20G | {rest}"), policy(), History(), NOW)
    on = np.ones(9, dtype=np.bool_)
    assert Failover.of(layout).homeless(on, 1.0, 1.0) == list(range(9))
