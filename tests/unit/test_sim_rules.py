"""Constraints held against the truth of a simulated site."""

from typing import Any

import pytest

from balancerd.adapters.sim.rules import RuleWatch
from balancerd.core.policies.policy import Policy
from tests.worlds import a_world, live, send


def watch(**rule: Any) -> RuleWatch:
    return RuleWatch(Policy.model_validate({"summary": "test", "constraint": [rule]}))


def test_a_rule_broken_from_the_start_is_not_counted_until_it_was_kept() -> None:
    rules, world = watch(kind="apart", vms=("v0", "v1")), a_world()
    rules.check(world)
    assert rules.broken == 0
    for source, target in (("a1", "a2"), ("a2", "a1")):
        send(world, "v0", source, target)
        live(world, 60)
        rules.check(world)
        rules.check(world)
    assert rules.broken == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "pin", "vms": ("v0",), "hosts": ("a1",)},
        {"kind": "avoid", "vms": ("v0",), "hosts": ("a2",)},
    ],
)
def test_a_vm_under_way_already_counts_where_it_goes(rule: dict[str, Any]) -> None:
    rules, world = watch(**rule), a_world()
    rules.check(world)
    send(world, "v0", "a1", "a2")
    live(world, 1)
    rules.check(world)
    assert rules.broken == 1


def test_without_constraints_nothing_is_looked_at() -> None:
    rules = RuleWatch(Policy.model_validate({"summary": "test"}))
    rules.check(a_world())
    assert rules.broken == 0


def test_the_cluster_is_where_vms_are_and_where_they_go() -> None:
    world = a_world()
    send(world, "v0", "a1", "a2")
    live(world, 1)
    found = world.cluster()
    assert (dict(found.placement), dict(found.flights)) == ({"v0": "a1", "v1": "a1"}, {"v0": "a2"})
    live(world, 60)
    assert (world.cluster().placement["v0"], dict(world.cluster().flights)) == ("a2", {})
