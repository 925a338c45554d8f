"""Which method moves a VM, and what it is expected to cost."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.core.check import check
from balancerd.core.lessons import Lesson, Lessons
from balancerd.core.model import VM, Disk, Load, Method, Snapshot
from balancerd.core.moving.cost import migration_cost
from balancerd.core.moving.method import Way, way_of
from balancerd.core.plan import Move, Plan, Refusal
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB, MIB
from tests.sites import NOW, changed, planned, policy, site, told

RATE = 100.0 * MIB
SHARED, LOCAL = Disk("/shared/a", shared=True), Disk("/local/b", shared=False, size=GIB)
BASED = Disk("/local/c", shared=False, size=8 * GIB, allocated=GIB, based=True)


def way(rules: Policy, dirty: float | None, **fields: Any) -> Way | Refusal:
    """The way of a VM of 4 GiB that writes so many MiB per second."""
    vm = replace(VM("v", 4 * GIB), **fields)
    rate = None if dirty is None else dirty * MIB
    return way_of(vm, Load(1.0, 1.0, 4 * GIB, dirty_rate=rate), rules, RATE)


def method(rules: Policy, dirty: float | None, **fields: Any) -> Method | str:
    found = way(rules, dirty, **fields)
    return found.method if isinstance(found, Way) else found.constraint


@pytest.mark.parametrize("dirty", [None, 0.0, 10.0, 50.0])
def test_a_vm_of_moderate_writing_is_moved_by_plain_pre_copy(dirty: float | None) -> None:
    assert method(policy(methods={"post_copy": True}), dirty) is Method.PRE_COPY


def test_one_that_writes_faster_than_it_can_be_copied_is_slowed_down_where_allowed() -> None:
    assert method(policy(), 150.0) is Method.AUTO_CONVERGE
    assert method(policy(methods={"auto_converge": False}), 150.0) == "method"


def test_pre_copy_that_would_send_the_memory_many_times_gives_way() -> None:
    """Dies if only what never ends counts."""
    assert method(policy(), 90.0) is Method.AUTO_CONVERGE
    assert method(policy(methods={"auto_converge": False}), 90.0) is Method.PRE_COPY


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("tag", ["yes", "no", None])
def test_post_copy_needs_both_the_policys_and_the_vms_leave(allowed: bool, tag: str | None) -> None:
    """Dies if either alone is enough."""
    tags = {} if tag is None else {"post-copy": tag}
    found = method(policy(methods={"post_copy": allowed}), 150.0, tags=tags)
    wanted = Method.POST_COPY if allowed and tag == "yes" else Method.AUTO_CONVERGE
    assert found is wanted


def test_local_disks_go_along_and_count() -> None:
    copying = policy(methods={"storage": True})
    with_disk = way(copying, 10.0, disks=(SHARED, LOCAL))
    without = way(policy(), 10.0, disks=(SHARED,))
    assert isinstance(with_disk, Way)
    assert isinstance(without, Way)
    assert (with_disk.method, without.method) == (Method.STORAGE, Method.PRE_COPY)
    assert with_disk.copy.bytes - without.copy.bytes == pytest.approx(GIB)
    assert with_disk.copy.downtime == without.copy.downtime
    assert method(copying, 150.0, disks=(LOCAL,)) == "method"
    assert method(policy(), 10.0, disks=(SHARED, LOCAL)) == "local storage"


def test_neither_a_device_nor_what_is_only_read_is_copied_whatever_the_policy_says() -> None:
    """Dies if either is planned: libvirt refuses the one, and writes over the target's other."""
    copying = policy(methods={"storage": True, "overlay": True})
    device, read = replace(LOCAL, file=False), replace(LOCAL, read_only=True)
    for disks, remedy in (((LOCAL, device), "put it"), ((SHARED, read), "eject it")):
        refusal = way(copying, 10.0, disks=disks)
        assert isinstance(refusal, Refusal)
        assert (refusal.constraint, refusal.remedy[: len(remedy)]) == ("local storage", remedy)
    assert method(copying, 10.0, disks=(LOCAL, read)) is Method.STORAGE


@pytest.mark.parametrize("tag", ["yes", None])
@pytest.mark.parametrize("allowed", [True, False])
def test_an_overlay_goes_without_its_base_only_by_the_policys_and_the_vms_leave(
    allowed: bool, tag: str | None
) -> None:
    """Dies if either alone is enough, or if the base counts as copied along."""
    tags = {} if tag is None else {"overlay": tag}
    rules = policy(methods={"overlay": allowed, "storage": True})
    found = way(rules, 10.0, disks=(SHARED, BASED), tags=tags)
    without = way(rules, 10.0, disks=(SHARED,))
    assert isinstance(found, Way)
    assert isinstance(without, Way)
    alone = allowed and tag == "yes"
    assert found.method is (Method.OVERLAY if alone else Method.STORAGE)
    copied = found.copy.bytes - without.copy.bytes
    assert copied == pytest.approx(GIB if alone else 8 * GIB)


def test_a_vm_that_has_no_base_has_its_disks_copied_in_full_or_not_at_all() -> None:
    tags, leave = {"overlay": "yes"}, {"overlay": True}
    assert method(policy(methods=leave), 10.0, disks=(LOCAL,), tags=tags) == "local storage"
    both = policy(methods=leave | {"storage": True})
    assert method(both, 10.0, disks=(LOCAL,), tags=tags) is Method.STORAGE
    assert method(policy(methods=leave), 10.0, disks=(LOCAL, BASED), tags=tags) is Method.OVERLAY


def test_what_was_never_written_of_a_disk_is_not_expected_to_be_sent() -> None:
    """Dies if a thin disk is taken for full: its migration would be said to take ten times as
    long as it does."""
    thin = replace(LOCAL, size=100 * GIB, allocated=10 * GIB)
    found = way(policy(methods={"storage": True}), 10.0, disks=(thin,))
    without = way(policy(), 10.0)
    assert isinstance(found, Way)
    assert isinstance(without, Way)
    assert found.copy.bytes - without.copy.bytes == pytest.approx(10 * GIB)


def busy(dirty: float) -> Snapshot:
    snapshot = site("h1 8c 64G: v 1c 4G | h2 8c 64G:")
    return replace(snapshot, loads={"v": Load(1.0, 1.0, 4 * GIB, dirty_rate=dirty)})


def test_a_prediction_is_the_models_figure_times_what_was_learned() -> None:
    plain = migration_cost("v", busy(10 * MIB), policy(), RATE, "h1 > r", Lessons())
    lesson = Lesson("w", "pre-copy", "h1 > r", {"seconds": (10.0, 20.0), "bytes": (10.0, 5.0)})
    known = Lessons()
    for _ in range(30):
        known = known.after(lesson)
    found = migration_cost("v", busy(10 * MIB), policy(), RATE, "h1 > r", known)
    assert found.seconds == pytest.approx(2 * plain.seconds, rel=0.1)
    assert found.bytes == pytest.approx(plain.bytes / 2, rel=0.1)
    assert found.downtime == plain.downtime
    assert found.basis.model_seconds == plain.basis.model_seconds
    assert found.basis.link == "h1 > r"


def test_a_way_that_is_too_narrow_just_now_has_the_cost_of_the_policys_bandwidth() -> None:
    """The VM was found to be movable at 100 MiB/s; a busy link must not make it endless."""
    found = migration_cost("v", busy(50 * MIB), policy(), 20.0 * MIB, "", Lessons())
    assert found.seconds < 3600


FULL = "h1 8c 64G: a 2c 4G, b 1c 4G | h2 8c 64G:"


@pytest.mark.parametrize("storage", [True, False])
def test_a_vm_with_a_local_disk_moves_only_where_the_policy_lets_its_disks_be_copied(
    storage: bool,
) -> None:
    """Dies if the planner, or the checker, takes no notice of disks."""
    snapshot = changed(site(FULL, draining=frozenset({"h1"})), vm="b", disks=(LOCAL,))
    made = planned(snapshot, policy(methods={"storage": storage}))
    assert told(made) == (["a h1>h2", "b h1>h2"] if storage else ["a h1>h2"])
    assert {move.vm: move.method for move in made.moves}.get("b") is (
        Method.STORAGE if storage else None
    )
    assert ("local storage" in made.refusal_counts) is not storage


@pytest.mark.parametrize(
    ("method", "fields", "fault"),
    [
        (Method.PRE_COPY, {"disks": (LOCAL,)}, "disks that only h1 has"),
        (Method.STORAGE, {"disks": (LOCAL,)}, "disks may not be copied"),
        (Method.OVERLAY, {"disks": (BASED,)}, "no overlay alone may be copied"),
        (Method.OVERLAY, {"disks": (LOCAL,), "tags": {"overlay": "yes"}}, "no overlay alone"),
        (Method.POST_COPY, {"tags": {"post-copy": "yes"}}, "may not be moved by post-copy"),
        (Method.AUTO_CONVERGE, {}, "may not be slowed down"),
    ],
)
def test_the_checker_refuses_a_method_that_the_policy_does_not_allow(
    method: Method, fields: dict[str, Any], fault: str
) -> None:
    rules = policy(methods={"auto_converge": False})
    snapshot = changed(site("h1 8c 64G: v 1c 4G | h2 8c 64G:"), vm="v", **fields)
    plan = Plan(NOW, "", "", (Move(1, "v", "h1", "h2", method, ""),), "", 0.0, 0.0)
    assert any(fault in violation for violation in check(snapshot, rules, plan).violations)
