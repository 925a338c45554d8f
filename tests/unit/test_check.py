"""The independent checker: what it lets pass, and one mutant for each thing it must not."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.core.check import check
from balancerd.core.model import (
    Disk,
    Exclusion,
    ExclusionKind,
    Gap,
    GapKind,
    Method,
    PowerState,
    Snapshot,
    VMState,
)
from balancerd.core.plan import Action, Move, Plan, Sleep, Wake
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule
from tests.sites import NOW, changed, policy, rule, site, under_way

SITE = (
    "r1/h1 10c 64G: a 2c 20G, b 2c 20G | r1/h2 10c 64G: c 2c 20G | "
    "r2/h3 10c 64G: d 2c 20G | r3/h4 10c 64G:"
)


def move(number: int, vm: str, way: str, *after: int) -> Move:
    source, target = way.split(">")
    return Move(number, vm, source, target, Method.PRE_COPY, "", after=after)


def faults(
    *actions: Action, snapshot: Snapshot | None = None, rules: Policy | None = None
) -> tuple[str, ...]:
    made = Plan(NOW, "", "", actions, "", 0.0, 0.0)
    return check(snapshot or site(SITE), rules or policy(), made).violations


def test_a_plan_without_actions_is_sound() -> None:
    assert faults() == ()


def test_a_sound_plan_has_its_slack_measured() -> None:
    made = Plan(NOW, "", "", (move(1, "a", "h1>h4"), move(2, "c", "h2>h4")), "", 0.0, 0.0)
    found = check(site(SITE), policy(), made)
    assert (found.steps, found.violations) == (4, ())
    assert found.slack["memory"] == pytest.approx(1 - 40 / (0.85 * 0.95 * 64))
    assert found.slack["CPU"] == pytest.approx(1 - 4 / 6.5)


@pytest.mark.parametrize(
    ("fault", "actions"),
    [
        ("action 2: is number 1 in the plan", [move(2, "a", "h1>h4")]),
        ("action 1: waits for 1, which is not before it", [move(1, "a", "h1>h4", 1)]),
        ("action 1: a is on h1, not h2", [move(1, "a", "h2>h4")]),
        ("action 1: a stays on h1", [move(1, "a", "h1>h1")]),
        ("action 1: z may not be moved", [move(1, "z", "h1>h4")]),
        ("action 1: h9 is not known", [move(1, "a", "h1>h9")]),
        (
            "action 2: does not wait for the earlier move of a",
            [move(1, "a", "h1>h4"), move(2, "a", "h4>h3")],
        ),
        (
            "action 1: memory on h4: 6.44245e+10 of at most 5.5491e+10",
            [move(1, "a", "h1>h4"), move(2, "b", "h1>h4"), move(3, "c", "h2>h4")],
        ),
        (
            "action 2: memory on h2: 6.44245e+10 of at most 5.5491e+10",
            [move(1, "c", "h2>h4"), move(2, "a", "h1>h2"), move(3, "b", "h1>h2")],
        ),
        ("action 1: h1 is not off", [Wake(1, "h1", "")]),
        ("action 1: h4 may not sleep", [Sleep(1, "h4", "")]),
    ],
)
def test_a_mutant_is_found(fault: str, actions: list[Action]) -> None:
    assert faults(*actions)[0] == fault


def test_what_stays_is_charged_with_what_comes() -> None:
    full = site("h1 10c 64G: a 2c 30G | h2 10c 64G: b 2c 30G")
    assert faults(move(1, "a", "h1>h2"), snapshot=full)[0].startswith("action 1: memory on h2")


def test_a_swap_is_sound_only_with_its_waits() -> None:
    """The middle of a plan counts: dies if only the end is looked at."""
    full = site("h1 10c 64G: a 2c 30G | h2 10c 64G: b 2c 30G | h3 10c 64G:")
    waiting = [move(1, "a", "h1>h3"), move(2, "b", "h2>h1", 1), move(3, "a", "h3>h2", 1, 2)]
    assert faults(*waiting, snapshot=full) == ()
    hasty = [waiting[0], replace(waiting[1], after=()), waiting[2]]
    assert faults(*hasty, snapshot=full)[0].startswith("action 2: memory on h1")


def test_what_is_waited_for_through_another_has_been_waited_for() -> None:
    """Dies if only direct waits count."""
    full = site("h1 10c 64G: a 2c 30G | h2 10c 64G: b 2c 30G, c 1c 1G | h3 10c 64G: | h4 10c 64G:")
    chain = [move(1, "a", "h1>h3"), move(2, "c", "h2>h4", 1), move(3, "b", "h2>h1", 2)]
    assert faults(*chain, snapshot=full) == ()
    assert faults(*chain[:2], replace(chain[2], after=()), snapshot=full) != ()


def test_what_is_under_way_is_charged_on_both_ends() -> None:
    snapshot = under_way(site("h1 10c 64G: a 2c 30G | h2 10c 64G: b 2c 30G | h3 10c 64G:"), a="h3")
    assert faults(move(1, "b", "h2>h3"), snapshot=snapshot)[0].startswith("action 1: memory on h3")
    assert faults(move(1, "b", "h2>h1"), snapshot=snapshot)[0].startswith("action 1: memory on h1")


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        (rule("pin", "a", "h1 h2"), "action 1: pin a keeps a off h4"),
        (rule("avoid", "a", "h4"), "action 1: avoid a keeps a off h4"),
        (rule("exclude", "a"), "action 1: a or its hosts are excluded"),
        (rule("exclude", hosts="h4"), "action 1: a or its hosts are excluded"),
        (rule("together", "a b"), "together a b: the group ends in 2 places"),
    ],
)
def test_a_rule_broken_by_a_plan_is_found(rules: ConstraintRule, fault: str) -> None:
    found = faults(move(1, "a", "h1>h4"), rules=policy("quiet", rules))
    assert found == (fault,)


def test_members_of_a_group_may_not_even_pass_each_other() -> None:
    rules = policy("quiet", rule("apart", "a c d", scope="rack"))
    meeting = [move(1, "d", "h3>h4"), move(2, "c", "h2>h3")]
    assert faults(*meeting, rules=rules)[0] == "action 2: apart a c d: c would meet d in rack r2"
    passing = [meeting[0], replace(meeting[1], after=(1,))]
    assert faults(*passing, rules=rules) == ()


def test_members_of_a_group_do_not_meet_in_a_rack() -> None:
    """Dies if only the target host is looked at."""
    snapshot = site("r1/h1 10c 64G: a 1c 4G | r2/h2 10c 64G: b 1c 4G | r2/h3 10c 64G:")
    rules = policy("quiet", rule("apart", "a b", scope="rack"))
    assert faults(move(1, "a", "h1>h3"), snapshot=snapshot, rules=rules) == (
        "action 1: apart a b: a would meet b in rack r2",
    )


def test_a_sleeping_host_takes_part_only_after_its_wake() -> None:
    dark = changed(site(SITE), host="h4", power=PowerState.OFF)
    assert faults(move(1, "a", "h1>h4"), snapshot=dark) == ("action 1: h4 is off",)
    awake = (Wake(1, "h4", ""), move(2, "a", "h1>h4", 1))
    assert faults(*awake, snapshot=dark) == ()
    assert faults(awake[0], replace(awake[1], after=()), snapshot=dark) == ("action 2: h4 is off",)


def test_only_an_empty_host_sleeps_and_enough_stay_on() -> None:
    rules = policy(power={"sleep_idle": True, "keep_on": 4})
    assert faults(Sleep(1, "h1", ""), rules=policy(power={"sleep_idle": True})) == (
        "action 1: h1 is not empty",
    )
    assert faults(Sleep(1, "h4", ""), rules=rules) == ("action 1: fewer than 4 hosts stay on",)
    doubted = changed(site(SITE), host="h4", driver_doubted=True)
    sleeping = policy(power={"sleep_idle": True})
    assert faults(Sleep(1, "h4", ""), snapshot=doubted, rules=sleeping) == (
        "action 1: h4 may not sleep",
    )
    entering = (move(1, "a", "h1>h4"), Sleep(2, "h4", ""))
    assert faults(*entering, rules=policy(power={"sleep_idle": True})) == (
        "action 2: h4 is not empty",
    )


NEEDED = "h1 10c 64G: a 2c 40G | h2 10c 64G: b 2c 40G | h3 10c 64G:"


@pytest.mark.parametrize(
    ("text", "reserve", "rules", "fault"),
    [
        (NEEDED, 1, (), "action 1: should h1 fail, a would find no room on the hosts left on"),
        (NEEDED, 0, (), ""),
        (NEEDED.replace("40G", "20G"), 1, (), ""),
        (NEEDED.replace("a 2c", "a 9c"), 1, (), "action 1: should h1 fail, a would"),
        (
            NEEDED.replace("a 2c 40G", "a 2c 14G, c 2c 14G"),
            1,
            (),
            "action 1: should h1 fail, its VM",
        ),
        (
            NEEDED.replace("40G", "20G"),
            1,
            (rule("avoid", "a", "h2"),),
            "action 1: should h1 fail, a",
        ),
        (NEEDED.replace("h3 10c 64G", "h3 10c 8G"), 1, (), ""),
    ],
)
def test_a_host_that_others_would_need_should_they_fail_does_not_sleep(
    text: str, reserve: int, rules: tuple[ConstraintRule, ...], fault: str
) -> None:
    """The last: what no host could take anyway is not the sleeping one's fault."""
    power = {"sleep_idle": True, "reserve": reserve}
    found = faults(
        Sleep(1, "h3", ""), snapshot=site(text), rules=policy("quiet", *rules, power=power)
    )
    assert bool(found) == bool(fault)
    assert not found or found[0].startswith(fault)


def apart(most: int, vms: str) -> ConstraintRule:
    return rule("apart", vms).model_copy(update={"at_most": most})


HEADROOM = ConstraintRule(kind="headroom", hosts=("h4",), share=0.7, name="free")


THREE = (move(1, "a", "h1>h4"), move(2, "c", "h2>h4"), move(3, "d", "h3>h4"))


@pytest.mark.parametrize(
    ("rules", "tables", "fault"),
    [
        (None, {}, ""),
        (HEADROOM, {}, "action 1: CPU on h4: 6 of at most 1.95"),
        (None, {"capacity": {"vms_per_host": 2}}, "action 1: VMs on h4: 3 of at most 2"),
        (None, {"capacity": {"cpu_overcommit": 0.2}}, "action 1: vCPUs on h4: 3 of at most 2"),
        (rule("one-of", "a", "h[12] h3"), {}, "action 1: one-of a keeps a off h4"),
        (rule("one-of", "a b", "h[12] h[34]"), {}, "one-of a b: the group ends in 2 places"),
        (rule("one-of", "a c", "h[12] h[34]"), {}, ""),
        (apart(1, "a c"), {}, "action 1: apart a c: a would meet c in h4"),
        (apart(2, "a c"), {}, ""),
        (apart(2, "a c d"), {}, "action 1: apart a c d: a would meet c, d in h4"),
    ],
)
def test_rules_that_count_are_found_broken(
    rules: ConstraintRule | None, tables: dict[str, dict[str, object]], fault: str
) -> None:
    given = policy("quiet", *([rules] if rules else []), **tables)
    found = faults(*THREE, snapshot=site(SITE.replace("20G", "4G")), rules=given)
    assert found[:1] == ((fault,) if fault else ())


@pytest.mark.parametrize(
    ("vm", "host", "fault"),
    [
        ({"cpu_model": "host-passthrough"}, {"cpu_model": "Rome"}, "the CPU of h1"),
        ({"machine": "q35"}, {"machines": ("old",)}, "q35"),
        ({"disks": (Disk("a", shared=True, storage=("/srv",)),)}, {"storage": ("/sr",)}, "/srv"),
        ({}, {}, ""),
    ],
)
def test_a_target_that_lacks_what_the_vm_needs_is_found(
    vm: dict[str, Any], host: dict[str, Any], fault: str
) -> None:
    snapshot = changed(site(SITE), host="h1", cpu_model="Milan", machines=("q35",))
    snapshot = changed(changed(snapshot, vm="a", **vm), host="h4", **host)
    found = faults(move(1, "a", "h1>h4"), snapshot=snapshot)
    assert found == ((f"action 1: h4 does not have {fault}, as a needs",) if fault else ())


def test_what_is_excluded_unknown_or_draining_takes_no_part() -> None:
    one = move(1, "a", "h1>h4")
    excluded = site(SITE, exclusions=(Exclusion("a", ExclusionKind.VETO, ""),))
    assert faults(one, snapshot=excluded) == ("action 1: a may not be moved",)
    silent = site(SITE, gaps=(Gap("host", "h4", GapKind.STALE, "", NOW),))
    assert faults(one, snapshot=silent) == ("action 1: h4 is not known",)
    leaving = site(SITE, draining=frozenset({"h4"}))
    assert faults(one, snapshot=leaving) == ("action 1: h4 is draining",)
    stopped = changed(site(SITE), vm="a", state=VMState.SHUTOFF)
    assert faults(one, snapshot=stopped) == ("action 1: a does not run",)


def test_a_tag_is_checked_like_a_rule() -> None:
    tagged = changed(site(SITE), vm="a", tags={"avoid": "h4"})
    assert faults(move(1, "a", "h1>h4"), snapshot=tagged) == (
        'action 1: tag avoid="h4" keeps a off h4',
    )


def test_soft_rules_forbid_nothing_and_are_listed_with_what_they_cost_at_the_end() -> None:
    hard = [rule("apart", "a b"), rule("together", "a c"), rule("avoid", "a b", "h4")]
    soft = [one.model_copy(update={"weight": 0.5}) for one in hard]
    made = Plan(NOW, "", "", (move(1, "a", "h1>h4"),), "", 0.0, 0.0)
    found = check(site(SITE), policy("quiet", *soft), made)
    assert found.violations == ()
    assert found.soft_breaks == (
        "together a c is broken, cost 0.5",
        "avoid a b is broken, cost 0.5",
    )
