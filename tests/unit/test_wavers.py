"""What is taken for a waver, and the room that hosts are to have for theirs."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from balancerd.core.columns import Floats
from balancerd.core.model import Forecast, Load, PowerState, Snapshot
from balancerd.core.placing.assess import assess
from balancerd.core.plan import Assessment, Verdict
from balancerd.core.sensing.forecast import Past, Pasts, expect, remember, wavering
from balancerd.core.units import HOUR
from tests.sites import NOW, planned, policy, site, told

STEP, USUAL, COUNT = 300.0, 4.0, 40
SHARE = {"cpu": {"overload": 0.999, "release": 0.998, "landing": 0.96, "idle": 0.5}}


def autoregressive(memory: float, hours: int = 12) -> Floats:
    """Readings (rows) of VMs that stray from their usual use with a memory in seconds."""
    noise = np.random.default_rng(1).normal(0.0, 0.5, (round(hours * HOUR / STEP), COUNT))
    keeps = np.exp(-STEP / memory)
    for before, row in pairwise(noise):
        row[:] = keeps * before + np.sqrt(1.0 - keeps**2) * row
    return USUAL + noise


def remembered(readings: Floats) -> Pasts:
    pasts = Pasts.of({}).among(tuple(f"v{vm}" for vm in range(readings.shape[1])))
    for row, cpu in enumerate(readings):
        pasts = remember(pasts, np.full(len(cpu), row * STEP), cpu)
    return pasts


def test_what_strays_for_half_an_hour_wavers_and_what_is_over_at_once_does_not() -> None:
    """Dies if peaks count as wavers: hosts would be left to them."""
    usual = np.full(COUNT, USUAL)
    assert wavering(remembered(autoregressive(1800.0)), usual).mean() > 0.9
    mixed = autoregressive(1800.0)
    mixed[:, :5] = autoregressive(1.0)[:, :5]
    assert not wavering(remembered(mixed), usual)[:5].any()


def test_a_level_that_changed_is_no_waver() -> None:
    """Dies if whatever lasts is one."""
    usual, readings = np.full(COUNT, USUAL), autoregressive(1800.0)
    readings[-12:, 0] += 4.0
    found = wavering(remembered(readings), usual)
    assert not found[0]
    assert found[1:].mean() > 0.9


def test_where_all_use_more_than_usual_none_wavers() -> None:
    """Dies if each VM is looked at by itself: a site that wakes up would be left to it."""
    readings = autoregressive(1800.0)
    readings[-12:] += 0.5
    assert not wavering(remembered(readings), np.full(COUNT, USUAL)).any()


def test_on_a_site_of_peaks_none_wavers() -> None:
    """Dies if each VM is looked at by itself: of a thousand, some stray for long by chance."""
    readings = autoregressive(1.0)
    readings[:, :5] = autoregressive(1800.0)[:, :5]
    assert not wavering(remembered(readings), np.full(COUNT, USUAL)).any()


def test_who_was_seen_for_too_short_to_have_a_usual_use_does_not_waver() -> None:
    assert not wavering(remembered(autoregressive(1800.0)), np.full(COUNT, np.nan)).any()


def test_what_wavers_is_expected_back_where_it_usually_is() -> None:
    """Dies if hosts are packed by the hour in which their VMs happen to ask for little."""
    past = Past(0.0, level=3.5, variance=0.01, span=6 * HOUR, waver=0.25, lasting=0.2)
    usual = np.array([USUAL])
    found = expect(Pasts.of({"a": past}), np.array([8.0]), 1800.0, usual=usual)["a"]
    assert (found.cpu, found.wavers) == (USUAL, True)
    assert found.spread == pytest.approx((0.25 * (1 + 2 / 6)) ** 0.5)
    peaks = Pasts.of({"a": replace(past, lasting=0.1)})
    found = expect(peaks, np.array([8.0]), 1800.0, usual=usual)["a"]
    assert (found.cpu, found.wavers) == (3.5, False)
    assert found.spread == pytest.approx(0.1)


def crowded(level: float, now: float = 10.1, others: str = "") -> Snapshot:
    """A host of 10 cores with ten VMs that usually use `level` and use `now` together; each strays
    by 0.2 cores, all by 0.63."""
    text = ", ".join(f"v{vm} {now / 10}c 1G" for vm in range(10))
    snapshot = site(f"h1 10c 64G: {text}{others}")
    wavers = {f"v{vm}": Forecast(level / 10, 0.2, level / 10, wavers=True) for vm in range(10)}
    return replace(snapshot, forecasts={**snapshot.forecasts, **wavers})


def judged(snapshot: Snapshot, share: float = 0.02) -> Assessment:
    rules = policy("pack", thresholds=SHARE, detection={"waver_share": share})
    return assess(snapshot, rules, NOW)[0]


def test_a_host_with_room_for_its_wavers_is_left_in_peace_though_it_is_full() -> None:
    """2.05 standard deviations are passed for 2 % of the time. Dies without that verdict."""
    seen = judged(crowded(8.6))
    assert seen.verdict is Verdict.NORMAL
    assert seen.reason == (
        "CPU 101%, mean 101% > 100%, which will pass: its VMs use 86%, give or take 6%"
    )
    assert judged(crowded(8.6), share=0.0).verdict is Verdict.OVERLOADED


def test_a_host_that_would_be_full_too_often_is_overloaded() -> None:
    """Dies if every waver is sat out, however little is left for it."""
    seen = judged(crowded(8.8))
    assert seen.verdict is Verdict.OVERLOADED
    assert "too little room: its VMs use 88%, give or take 6%" in seen.reason
    assert judged(crowded(8.6), share=0.001).verdict is Verdict.OVERLOADED


def test_more_than_any_waver_is_overload() -> None:
    assert judged(crowded(7.0, now=10.3)).verdict is Verdict.OVERLOADED


def test_a_host_that_usually_uses_more_than_the_threshold_is_overloaded_however_roomy() -> None:
    """Below a threshold of 80 % there is room for every waver: dies if that alone is looked at."""
    rules = policy("quiet", detection={"waver_share": 0.02})
    assert assess(crowded(7.7, now=8.8), rules, NOW)[0].verdict is Verdict.NORMAL
    assert assess(crowded(8.2, now=8.8), rules, NOW)[0].verdict is Verdict.OVERLOADED


def test_one_vm_that_uses_more_than_it_ever_strays_is_no_waver() -> None:
    """Dies if only the host's sum is looked at: a peak would be sat out."""
    snapshot = crowded(8.6, now=8.9)
    loads = {**snapshot.loads, "v0": Load(2.1, 2.1, 0)}
    host = {"h1": Load(10.1, 10.1, 0)}
    assert judged(replace(snapshot, loads=loads, host_loads=host)).verdict is Verdict.OVERLOADED


def test_a_host_whose_vms_do_not_waver_is_relieved_as_ever() -> None:
    """Dies if wavers of a few excuse a host: most of what it strays by is peaks."""
    snapshot = crowded(8.6)
    others = {f"v{vm}": Forecast(0.86, 0.2, 0.86) for vm in range(6)}
    seen = judged(replace(snapshot, forecasts={**snapshot.forecasts, **others}))
    assert seen.verdict is Verdict.OVERLOADED


def test_relief_leaves_room_for_a_tenth_of_the_time_that_is_allowed() -> None:
    """2.88 standard deviations: two VMs go where the excess of the moment asks for one. Dies if
    relief ends at `release`: the host would be back."""
    rules = policy("pack", thresholds=SHARE, detection={"waver_share": 0.02})
    snapshot = crowded(9.6, others=" | h2 10c 64G: a 6c 1G")
    assert told(planned(snapshot, rules)) == ["v0 h1>h2", "v1 h1>h2"]


def test_no_host_is_made_to_lack_room_or_woken_for_that_of_another() -> None:
    """Dies if room is looked for wherever a VM may land: the next host would be relieved of it."""
    rules = policy("pack", thresholds=SHARE, detection={"waver_share": 0.02})
    asleep = site("h3 10c 64G:").cluster.hosts["h3"]
    snapshot = crowded(9.6, others=" | h2 10c 64G: a 6.9c 1G")
    hosts = {**snapshot.cluster.hosts, "h3": replace(asleep, power=PowerState.OFF)}
    snapshot = replace(snapshot, cluster=replace(snapshot.cluster, hosts=hosts))
    forecasts = {**snapshot.forecasts, "a": Forecast(6.9, 0.55)}
    made = planned(replace(snapshot, forecasts=forecasts), rules)
    assert told(made) == ["v0 h1>h2"]
