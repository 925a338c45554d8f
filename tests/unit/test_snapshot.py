"""One picture out of single readings, with everything unknown named."""

from dataclasses import replace

import pytest

from balancerd.core.model import (
    VM,
    Disk,
    ExclusionKind,
    GapKind,
    Host,
    PowerState,
    Snapshot,
    VMState,
)
from balancerd.core.observation import HostReading, Observation
from balancerd.core.policies.tables import Detection
from balancerd.core.sensing.measurement import Known
from balancerd.core.sensing.snapshot import assemble, freeze_reason
from balancerd.core.units import GIB
from tests.readings import JOB, host_reading, observed, silent, vm_reading

DETECTION = Detection()


def snapshot_of(*readings: HostReading, at: float = 1000.0) -> Snapshot:
    return assemble(observed(at, *readings), Known(), {}, DETECTION)[0]


def kinds(snapshot: Snapshot) -> dict[str, GapKind]:
    return {gap.name: gap.kind for gap in snapshot.gaps if gap.subject == "host"}


def exclusion(snapshot: Snapshot, vm: str) -> ExclusionKind | None:
    return next((e.kind for e in snapshot.exclusions if e.vm == vm), None)


def test_a_vm_is_where_it_runs() -> None:
    snapshot = snapshot_of(host_reading("h1", 1000, vm_reading("a")), host_reading("h2", 1000))
    assert dict(snapshot.cluster.placement) == {"a": "h1"}
    assert not snapshot.cluster.flights


def test_a_vm_under_way_is_on_its_source_and_flies_to_its_target() -> None:
    """Dies when both halves are counted as VMs, or the incoming half is taken for the VM."""
    snapshot = snapshot_of(
        host_reading("h1", 1000, vm_reading("a", state=VMState.INCOMING)),
        host_reading("h2", 1000, vm_reading("a", job=JOB)),
    )
    assert dict(snapshot.cluster.placement) == {"a": "h2"}
    assert dict(snapshot.cluster.flights) == {"a": "h1"}
    assert not snapshot.split_brains
    assert exclusion(snapshot, "a") is ExclusionKind.FOREIGN_JOB


@pytest.mark.parametrize("half", [VMState.OUTGOING, VMState.POSTCOPY_FAILED])
def test_a_vm_in_post_copy_still_goes_from_its_source_to_its_target(half: VMState) -> None:
    """Dies when it is said to go back: people are told so, and the throttle counts its bytes on
    the wrong side of each link."""
    snapshot = snapshot_of(
        host_reading("h1", 1000, vm_reading("a", state=half)),
        host_reading("h2", 1000, vm_reading("a")),
    )
    assert snapshot.cluster.placement["a"] == "h1"
    assert snapshot.cluster.flights["a"] == "h2"
    assert snapshot.cluster.vms["a"].state is VMState.RUNNING
    assert not snapshot.split_brains


def test_a_vm_in_post_copy_is_measured_where_it_runs() -> None:
    """Dies when what it uses counts as its source's: the target's would be its own overhead."""

    def seen(at: float) -> Observation:
        sent = vm_reading("a", state=VMState.OUTGOING)
        runs = vm_reading("a", cpu_seconds=at - 1000)
        busy = host_reading("h2", at, runs, cpu_busy=at - 1000)
        return observed(at, host_reading("h1", at, sent), busy)

    _, known = assemble(seen(1000), Known(), {}, DETECTION)
    snapshot, _ = assemble(seen(1010), known, {}, DETECTION)
    assert snapshot.loads["a"].cpu == 1.0
    assert snapshot.overhead["h2"][0] == 0.0


def test_a_definition_left_behind_is_not_a_second_vm() -> None:
    snapshot = snapshot_of(
        host_reading("h1", 1000, vm_reading("a", state=VMState.MIGRATED)),
        host_reading("h2", 1000, vm_reading("a")),
    )
    assert dict(snapshot.cluster.placement) == {"a": "h2"}
    assert not snapshot.cluster.flights
    assert exclusion(snapshot, "a") is None


def test_one_uuid_running_on_two_hosts_is_a_split_brain_under_whatever_name() -> None:
    snapshot = snapshot_of(
        host_reading("h1", 1000, vm_reading("a", uuid="u")),
        host_reading("h2", 1000, vm_reading("renamed", uuid="u")),
    )
    (split,) = snapshot.split_brains
    assert split.hosts == ("h1", "h2")
    assert "u" in freeze_reason(snapshot, DETECTION)


def test_one_name_for_two_vms_is_told_apart_and_neither_moves() -> None:
    snapshot = snapshot_of(
        host_reading("h1", 1000, vm_reading("a", uuid="1")),
        host_reading("h2", 1000, vm_reading("a", uuid="2")),
    )
    assert dict(snapshot.cluster.placement) == {"a@h1": "h1", "a@h2": "h2"}
    assert exclusion(snapshot, "a@h1") is ExclusionKind.AMBIGUOUS_NAME
    assert exclusion(snapshot, "a@h2") is ExclusionKind.AMBIGUOUS_NAME
    assert not snapshot.split_brains


def test_what_is_shut_off_may_be_the_leftover_of_one_on_a_host_that_is_off() -> None:
    """Dies when a sleeping or crashed host is forgotten: its VM's left-over definition elsewhere
    would be taken for the VM, and carried off cold."""
    left = vm_reading("a", state=VMState.SHUTOFF)
    first = observed(1000, host_reading("h1", 1000, vm_reading("a")), host_reading("h2", 1000))
    _, known = assemble(first, Known(), {}, DETECTION)
    second = observed(1030, silent("h1", 1030), host_reading("h2", 1030, left))
    snapshot, _ = assemble(second, known, {"h1": PowerState.OFF}, DETECTION)
    assert snapshot.cluster.placement["a"] == "h2"
    assert exclusion(snapshot, "a") is ExclusionKind.DEFINED_TWICE


def test_a_host_that_was_never_read_may_have_what_is_shut_off_elsewhere() -> None:
    """As after balancerd was started again. What runs runs there, whatever else is defined."""
    off, runs = vm_reading("a", state=VMState.SHUTOFF), vm_reading("b")
    seen = observed(1000, silent("h1", 1000), host_reading("h2", 1000, off, runs))
    snapshot, _ = assemble(seen, Known(), {"h1": PowerState.OFF}, DETECTION)
    assert exclusion(snapshot, "a") is ExclusionKind.HOST_GAP
    assert "wake that to have it asked" in snapshot.exclusions[0].detail
    assert exclusion(snapshot, "b") is None


def test_a_host_that_is_off_and_had_nothing_of_a_vm_keeps_it_from_nothing() -> None:
    """Dies when every host that is off is in the way of cold moves."""
    off = vm_reading("a", state=VMState.SHUTOFF)
    first = observed(1000, host_reading("h1", 1000), host_reading("h2", 1000, off))
    _, known = assemble(first, Known(), {}, DETECTION)
    second = observed(1030, silent("h1", 1030), host_reading("h2", 1030, off))
    snapshot, _ = assemble(second, known, {"h1": PowerState.OFF}, DETECTION)
    assert exclusion(snapshot, "a") in (None, ExclusionKind.NOT_RUNNING)


def test_two_hosts_with_one_uuid_are_both_gaps() -> None:
    twin = Host("h2", 16.0, 64 * GIB, cores=16, uuid="uuid-h1")
    snapshot = snapshot_of(host_reading("h1", 1000), host_reading("h2", 1000, facts=twin))
    assert kinds(snapshot) == {"h1": GapKind.DUPLICATE_UUID, "h2": GapKind.DUPLICATE_UUID}


def test_one_machine_configured_twice_is_no_split_brain() -> None:
    twin = Host("h2", 16.0, 64 * GIB, cores=16, uuid="uuid-h1")
    snapshot = snapshot_of(
        host_reading("h1", 1000, vm_reading("a")),
        host_reading("h2", 1000, vm_reading("a"), facts=twin),
    )
    assert not snapshot.split_brains
    assert set(kinds(snapshot)) == {"h1", "h2"}


def test_a_host_that_does_not_answer_is_a_gap_and_keeps_its_vms() -> None:
    """Dies when the last good reading is forgotten: its VMs would seem to have vanished."""
    first = observed(1000, host_reading("h1", 1000, vm_reading("a")), host_reading("h2", 1000))
    _, known = assemble(first, Known(), {}, DETECTION)
    second = observed(1030, silent("h1", 1030, "keepalive timeout"), host_reading("h2", 1030))
    snapshot, _ = assemble(second, known, {}, DETECTION)
    assert kinds(snapshot) == {"h1": GapKind.UNREACHABLE}
    assert snapshot.cluster.placement["a"] == "h1"
    assert exclusion(snapshot, "a") is ExclusionKind.HOST_GAP
    assert "h1" not in snapshot.host_loads


def test_a_vm_that_left_a_host_since_it_fell_silent_does_not_run_twice() -> None:
    """Dies when split brains are sought in old readings too, or an old copy goes first."""
    first = observed(1000, host_reading("h1", 1000, vm_reading("a")), host_reading("h2", 1000))
    _, known = assemble(first, Known(), {}, DETECTION)
    second = observed(1030, silent("h1", 1030), host_reading("h2", 1030, vm_reading("a")))
    snapshot, _ = assemble(second, known, {}, DETECTION)
    assert not snapshot.split_brains
    assert snapshot.cluster.placement["a"] == "h2"


def test_a_host_that_is_off_is_no_gap_and_carries_nothing() -> None:
    first = observed(1000, host_reading("h1", 1000, vm_reading("a", state=VMState.SHUTOFF)))
    _, known = assemble(first, Known(), {}, DETECTION)
    off = {"h1": PowerState.OFF}
    snapshot, _ = assemble(observed(1030, silent("h1", 1030)), known, off, DETECTION)
    assert not snapshot.gaps
    assert snapshot.cluster.hosts["h1"].power is PowerState.OFF
    assert snapshot.cluster.hosts["h1"].cpu == 16.0, "its facts are remembered"
    assert not snapshot.cluster.vms


def test_an_old_reading_is_a_gap() -> None:
    snapshot = snapshot_of(host_reading("h1", 1000 - DETECTION.stale_after - 1))
    assert kinds(snapshot) == {"h1": GapKind.STALE}


def test_a_host_with_no_capacity_is_absurd() -> None:
    facts = Host("h1", 0.0, 64 * GIB, uuid="u")
    assert kinds(snapshot_of(host_reading("h1", 1000, facts=facts))) == {"h1": GapKind.ABSURD}


def test_memory_that_cannot_be_makes_a_gap() -> None:
    reading = host_reading("h1", 1000, available=65 * GIB)
    assert kinds(snapshot_of(reading)) == {"h1": GapKind.ABSURD}


def test_a_vm_without_cpu_time_stays_where_it_is() -> None:
    snapshot = snapshot_of(host_reading("h1", 1000, vm_reading("a", cpu_seconds=None)))
    assert [gap.kind for gap in snapshot.gaps] == [GapKind.NO_STATS]
    assert exclusion(snapshot, "a") is ExclusionKind.NO_STATS


def test_a_vm_seen_for_a_short_time_is_warming_up() -> None:
    snapshot = snapshot_of(host_reading("h1", 1000, vm_reading("a")))
    assert [gap.kind for gap in snapshot.gaps] == [GapKind.WARMING_UP]


def test_what_ties_a_vm_to_its_host_is_named() -> None:
    base = VM("a", GIB, uuid="u")
    ties = {
        ExclusionKind.HOST_DEVICE: replace(base, host_devices=("pci_0000_03_00_0",)),
        ExclusionKind.UNSAFE_CACHE: replace(
            base, disks=(Disk("a", shared=True, safe_cache=False),)
        ),
        ExclusionKind.OTHER_OWNER: replace(base, owner="nova"),
        ExclusionKind.SNAPSHOTS: replace(base, snapshots=True),
    }
    for kind, vm in ties.items():
        snapshot = snapshot_of(host_reading("h1", 1000, vm_reading("a", vm=vm)))
        assert exclusion(snapshot, "a") is kind


def test_what_a_host_uses_beyond_its_vms_is_its_overhead() -> None:
    def at(now: float, busy: float, cpu: float) -> HostReading:
        return host_reading("h1", now, vm_reading("a", cpu_seconds=cpu), cpu_busy=busy)

    _, known = assemble(observed(1000, at(1000, 0, 0)), Known(), {}, DETECTION)
    snapshot, _ = assemble(observed(1010, at(1010, 30, 10)), known, {}, DETECTION)
    cpu, memory = snapshot.overhead["h1"]
    assert abs(cpu - 2.0) < 1e-9
    assert memory == 30 * GIB  # 32 GiB in use, 2 GiB of them the VM's


def test_a_host_that_a_vm_left_is_not_charged_with_its_past() -> None:
    """Dies when the host's own counters go on being believed: half of the last interval is the
    load of the VM that left, and the host would be relieved twice."""

    def at(now: float, busy: float, *vms: str) -> HostReading:
        return host_reading(
            "h1", now, *(vm_reading(vm, cpu_seconds=2 * (now - 1000)) for vm in vms), cpu_busy=busy
        )

    known, here, gone = Known(), ("a", "b"), ("a",)
    for now, busy, vms in ((1000, 0, here), (1010, 40, here), (1020, 70, gone)):
        elsewhere = [vm_reading("b", cpu_seconds=0.0)] if vms == gone else []
        readings = at(now, busy, *vms), host_reading("h2", now, *elsewhere)
        snapshot, known = assemble(observed(now, *readings), known, {}, DETECTION)
    assert snapshot.host_loads["h1"].cpu == 2.0
    assert snapshot.host_loads["h1"].cpu_mean == 2.0
    readings = at(1030, 90, "a"), host_reading("h2", 1030, vm_reading("b", cpu_seconds=20.0))
    snapshot, _ = assemble(observed(1030, *readings), known, {}, DETECTION)
    assert snapshot.host_loads["h1"].cpu_mean == 2.0, "measured again, since the change"


def test_too_many_unknown_hosts_freeze_everything() -> None:
    readings = [host_reading(f"h{n}", 1000) for n in range(6)]
    few = snapshot_of(*readings, silent("x", 1000))
    many = snapshot_of(*readings, *(silent(f"x{n}", 1000) for n in range(3)))
    assert not freeze_reason(few, DETECTION)
    assert "3 of 9 hosts" in freeze_reason(many, DETECTION)


def test_vms_that_did_not_change_stay_the_same_object() -> None:
    """What is worked out from them is kept by that. Dies if a change of any VM goes unseen."""
    readings = [vm_reading("a"), vm_reading("b")]
    first, known = assemble(
        observed(1000, host_reading("h1", 1000, *readings)), Known(), {}, DETECTION
    )
    same, known = assemble(
        observed(1030, host_reading("h1", 1030, *readings)), known, {}, DETECTION
    )
    assert same.cluster.vms is first.cluster.vms
    assert same.cluster.placement is first.cluster.placement
    assert same.cluster.hosts is first.cluster.hosts
    larger = replace(readings[1], vm=replace(readings[1].vm, memory=8 * GIB))
    other, known = assemble(
        observed(1060, host_reading("h1", 1060, readings[0], larger)), known, {}, DETECTION
    )
    assert other.cluster.vms["b"].memory == 8 * GIB
    gone, _ = assemble(observed(1090, host_reading("h1", 1090, larger)), known, {}, DETECTION)
    assert set(gone.cluster.vms) == {"b"}


def test_a_vm_that_is_defined_as_before_is_the_same_object_whatever_others_do() -> None:
    """Dies when only the very same object counts: a host that is read anew gives others."""
    first, known = assemble(
        observed(1000, host_reading("h1", 1000, vm_reading("a"), vm_reading("b"))),
        Known(),
        {},
        DETECTION,
    )
    paused = vm_reading("b", state=VMState.PAUSED)
    then, _ = assemble(
        observed(1030, host_reading("h1", 1030, vm_reading("a"), paused)), known, {}, DETECTION
    )
    assert then.cluster.vms["a"] is first.cluster.vms["a"]
    assert then.cluster.vms["b"].state is VMState.PAUSED
    assert then.cluster.hosts is first.cluster.hosts


def test_where_vms_are_is_found_anew_as_soon_as_a_host_shows_something_else() -> None:
    """Dies when a host that fell silent, or a migration that begins, is taken for nothing new."""
    here, there = vm_reading("a"), vm_reading("b")
    both = host_reading("h1", 1000, here), host_reading("h2", 1000, there)
    _, known = assemble(observed(1000, *both), Known(), {}, DETECTION)
    begun = replace(here, job=JOB)
    half = replace(here, state=VMState.INCOMING, counters=None)
    moving = host_reading("h1", 1030, begun), host_reading("h2", 1030, there, half)
    on_its_way, _ = assemble(observed(1030, *moving), known, {}, DETECTION)
    assert on_its_way.cluster.flights == {"a": "h2"}
    quiet = host_reading("h1", 1030, here), silent("h2", 1030)
    unknown, _ = assemble(observed(1030, *quiet), known, {}, DETECTION)
    assert unknown.cluster.placement == {"a": "h1", "b": "h2"}
    assert [exclusion.vm for exclusion in unknown.exclusions] == ["b"]
