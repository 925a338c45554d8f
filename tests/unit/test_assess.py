"""Verdicts under the dual threshold."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.core.model import Forecast, Gap, GapKind, Load, PowerState, Snapshot
from balancerd.core.placing.assess import assess
from balancerd.core.plan import Assessment, Verdict
from balancerd.core.units import GIB
from tests.sites import NOW, changed, planned, policy, site, told


def only(snapshot: Snapshot, **tables: dict[str, Any]) -> Assessment:
    return assess(snapshot, policy("quiet", **tables), NOW)[0]


def loaded(now: float, mean: float, **fields: Any) -> Snapshot:
    """One host of 10 cores with the given use in cores."""
    load = replace(Load(now, mean, 0), **fields)
    return site("h1 10c 64G: a 1c 8G", host_loads={"h1": load})


@pytest.mark.parametrize(
    ("now", "mean", "verdict"),
    [
        (9.0, 9.0, Verdict.OVERLOADED),
        (9.0, 7.0, Verdict.NORMAL),  # dies if only the present counts
        (7.0, 9.0, Verdict.NORMAL),  # dies if only the mean counts
        (8.0, 8.0, Verdict.NORMAL),  # the threshold itself is not above it
        (1.0, 1.0, Verdict.IDLE),
    ],
)
def test_overload_must_hold_now_and_in_the_mean(now: float, mean: float, verdict: Verdict) -> None:
    assert only(loaded(now, mean)).verdict is verdict


def wavering(now: float, level: float, spread: float, usual: float | None) -> Snapshot:
    """One host of 10 cores with one VM on it, and what is known of the VM's use, in cores."""
    snapshot = site(f"h1 10c 64G: a {now}c 8G", host_loads={"h1": Load(now, now, 0)})
    return replace(snapshot, forecasts={"a": Forecast(level, spread, usual)})


@pytest.mark.parametrize(
    ("now", "level", "spread", "usual", "verdict"),
    [
        (8.3, 7.5, 0.6, 6.8, Verdict.NORMAL),
        (8.3, 7.5, 0.6, None, Verdict.OVERLOADED),  # seen for too short
        (8.3, 7.5, 0.6, 7.6, Verdict.OVERLOADED),  # it would be there again
        (8.6, 8.4, 0.6, 6.8, Verdict.OVERLOADED),  # it stays there
        (9.5, 7.9, 0.6, 6.8, Verdict.OVERLOADED),  # a little more, and VMs wait
        (8.3, 7.5, 0.1, 6.8, Verdict.OVERLOADED),  # more than a waver
    ],
)
def test_a_host_whose_load_wavers_over_the_threshold_is_left_in_peace(
    now: float, level: float, spread: float, usual: float | None, verdict: Verdict
) -> None:
    seen = only(wavering(now, level, spread, usual))
    assert seen.verdict is verdict
    if verdict is Verdict.NORMAL:
        assert seen.reason == ("CPU 83%, mean 83% > 80%, which will pass: its VMs usually use 68%")


def test_a_policy_may_have_wavers_relieved_like_anything_else() -> None:
    snapshot = wavering(8.3, 7.5, 0.6, 6.8)
    assert only(snapshot, detection={"wavers": False}).verdict is Verdict.OVERLOADED


def test_waiting_vcpus_are_overload_whatever_the_percentage() -> None:
    seen = only(loaded(5.0, 5.0, steal=0.2))
    assert seen.verdict is Verdict.OVERLOADED
    assert seen.reason == "vCPUs wait 20% > 10%"


def test_vms_that_wait_make_their_host_overloaded_the_larger_the_more() -> None:
    """Dies if only the host's own steal counts, which no backend reads."""
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: c 1c 8G")
    snapshot = changed(changed(snapshot, vm="a", cpu=6.0), vm="b", cpu=2.0)
    waits = {name: replace(load, steal=0.2) for name, load in snapshot.loads.items()}
    one = {**snapshot.loads, "a": waits["a"]}
    first, second = assess(replace(snapshot, loads=one), policy("quiet"), NOW)
    assert (first.verdict, second.verdict) == (Verdict.OVERLOADED, Verdict.IDLE)
    assert first.waiting == pytest.approx(0.2 * 6 / 8)
    assert first.reason == "vCPUs wait 15% > 10%"
    small = assess(
        replace(snapshot, loads={**snapshot.loads, "b": waits["b"]}), policy("quiet"), NOW
    )
    assert small[0].verdict is Verdict.IDLE


def short(vm: float, host: float, used: int) -> Snapshot:
    """A host of 64 GiB with so much in use, that lacks so much itself; and so does its VM. GiB."""
    snapshot = site("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G:")
    lacking = replace(snapshot.loads["a"], shortage=vm * GIB)
    return replace(
        snapshot,
        loads={**snapshot.loads, "a": lacking},
        host_loads={
            **snapshot.host_loads,
            "h1": Load(2.0, 2.0, used * GIB, shortage=host * GIB),
        },
    )


@pytest.mark.parametrize(
    ("vm", "host", "used", "verdict"),
    [
        (6, 0, 64, Verdict.OVERLOADED),  # dies if only what is charged counts
        (3, 3, 64, Verdict.OVERLOADED),
        (0, 6, 64, Verdict.OVERLOADED),
        (2, 1, 64, Verdict.IDLE),  # 5 % of what VMs may have of it are 3.04 GiB
        (6, 0, 60, Verdict.IDLE),  # it has free what would do: dies if that is not looked at
    ],
)
def test_a_visible_lack_of_memory_is_overload(
    vm: float, host: float, used: int, verdict: Verdict
) -> None:
    assert only(short(vm, host, used)).verdict is verdict


def test_a_host_that_lacks_memory_gives_up_as_much() -> None:
    """Dies if relief looks at what is charged only; and nothing comes to such a host."""
    made = planned(short(6, 0, 64), policy("quiet"))
    assert told(made) == ["a h1>h2"]
    assert made.moves[0].reason == "h1 lacks 6.0 GiB of memory: unload as much"
    assert told(planned(short(12, 0, 64), policy("quiet"))) == ["a h1>h2", "b h1>h2"]
    lenient = policy("quiet", capacity={"enforce_memory": False})
    assert told(planned(short(12, 0, 64), lenient)) == []


def test_memory_charged_above_overload_is_overload_without_any_load() -> None:
    seen = only(site("h1 10c 64G: a 0c 60G"))
    assert (seen.verdict, seen.reason) == (Verdict.OVERLOADED, "memory 99% > 92%")


def test_memory_is_left_out_where_the_policy_says_so() -> None:
    seen = only(site("h1 10c 64G: a 0c 60G"), capacity={"enforce_memory": False})
    assert seen.verdict is Verdict.IDLE


def test_a_load_not_yet_warmed_up_gives_no_verdict_to_act_on() -> None:
    assert only(loaded(9.0, 9.0, since=NOW - 30)).verdict is Verdict.NORMAL
    assert only(loaded(0.5, 0.5, since=NOW - 30)).verdict is Verdict.NORMAL
    assert only(loaded(9.0, 9.0, since=NOW - 300)).verdict is Verdict.OVERLOADED


def test_a_host_with_a_gap_is_unknown_even_if_it_drains() -> None:
    gap = Gap("host", "h1", GapKind.STALE, "90 s old", NOW - 90)
    snapshot = replace(loaded(9.0, 9.0), gaps=(gap,), draining=frozenset({"h1"}))
    assert only(snapshot).verdict is Verdict.UNKNOWN


def test_a_host_that_is_on_but_has_no_load_is_unknown() -> None:
    assert only(replace(loaded(1.0, 1.0), host_loads={})).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("load", [float("nan"), float("inf"), -1.0])
def test_an_absurd_load_makes_a_host_unknown(load: float) -> None:
    assert only(loaded(load, 1.0)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("capacity", [{"cpu": 0.0}, {"cpu": float("nan")}, {"memory": 0}])
def test_an_absurd_capacity_makes_a_host_unknown(capacity: dict[str, Any]) -> None:
    assert only(changed(loaded(1.0, 1.0), host="h1", **capacity)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("power", "verdict"),
    [
        (PowerState.OFF, Verdict.ASLEEP),
        (PowerState.WAKING, Verdict.ASLEEP),
        (PowerState.SLEEPING, Verdict.ASLEEP),
        (PowerState.UNKNOWN, Verdict.UNKNOWN),
    ],
)
def test_a_host_that_is_not_on_is_asleep_or_unknown(power: PowerState, verdict: Verdict) -> None:
    assert only(changed(site("h1 10c 64G:"), host="h1", power=power)).verdict is verdict


def test_a_vm_on_its_way_out_no_longer_weighs_on_its_source_but_on_its_target() -> None:
    snapshot = site("h1 10c 64G: a 4c 8G | h2 10c 64G:")
    cluster = snapshot.cluster.begin("a", "h2")
    first, second = assess(replace(snapshot, cluster=cluster), policy("quiet"), NOW)
    assert (first.cpu_expected, second.cpu_expected) == (0.0, 0.4)
