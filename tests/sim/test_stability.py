"""What stays in peace: simulated days on a site whose load wavers, or swings, without a trend.

`benchmarks/stability.py` does the same for a larger site, the shipped policies, and a month.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from balancerd.adapters.sim.load import Table
from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import PastMove, rests_until
from balancerd.core.policies.choices import Mode
from balancerd.core.policies.policy import Policy
from balancerd.core.units import GIB, HOUR
from balancerd.simulation import simulate
from benchmarks import stability
from tests.sites import policy

STEP = 600.0
START = 1_700_000_000.0


def wavering(seed: int, hours: int, share: float, by: float, step: float = STEP) -> Site:
    """Six hosts of 16 cores with 48 VMs; use is first-order autoregressive, of an hour's memory.

    It changes, and is looked at, every `step` seconds. `share` of the site's CPU is used in the
    mean; a VM's use wavers by so much of its level.
    """
    random = np.random.default_rng(seed)
    scenario = Scenario.model_validate(
        {
            "name": "wavering",
            "start": START,
            "duration": hours * HOUR,
            "cycle": step,
            "hosts": [
                {"name": "h%d", "count": 6, "cores": 16, "memory": 128 * GIB}
                | {"power_curve": [100.0, 200.0]}
            ],
            "flavours": [{"vcpus": 4, "cpu": 4.0, "memory": 4 * GIB}],
            "vms": {"name": "v%02d", "count": 48},
            "network": {"host": 10**9},
            "placement": {"rule": "random", "seed": seed},
            "load": {"step": step},
        }
    )
    levels = random.uniform(0.5, 1.5, 48) * share * 6 * 16 / 48
    noise = random.normal(0.0, 1.0, (round(hours * HOUR / step) + 1, 48))
    keeps = np.exp(-step / HOUR)
    for row in range(1, len(noise)):
        noise[row] = keeps * noise[row - 1] + np.sqrt(1.0 - keeps**2) * noise[row]
    demand = np.clip(levels * (1.0 + by * noise), 0.0, 4.0)
    return replace(build(scenario), load=Table(step, demand))


def moves(site: Site, rules: Policy, record: Path) -> list[PastMove]:
    """The migrations of a run that were done, in order."""
    with (
        Ledger(record / "ledger.db", durable=False) as ledger,
        SamplesStore(record / "samples.db", durable=False) as samples,
    ):
        simulate(site, rules, ledger, samples)
        rows = ledger.database.rows(
            "SELECT vm, source, target, ended_at FROM migrations WHERE outcome = 'done' ORDER BY id"
        )
        return [PastMove(vm, source, target, at, Outcome.DONE) for vm, source, target, at in rows]


EAGER = {"thresholds": {"imbalance": 0.06}, "limits": {"gain": 0.0, "benefit": 0.0}}


@pytest.mark.parametrize(
    ("objective", "tables", "least"), [("quiet", {}, 0), ("spread", EAGER, 1), ("pack", {}, 1)]
)
def test_a_day_of_noise_without_trend_moves_nothing_once_all_is_settled(
    objective: str, tables: dict[str, dict[str, float]], least: int, tmp_path: Path
) -> None:
    """Dies, under "spread", if the spread of a load is no reason to leave it in peace."""
    rules = policy(objective, **tables).model_copy(update={"mode": Mode.ACT})
    found = moves(wavering(2, 30, 0.4, 0.25), rules, tmp_path)
    assert len(found) >= least
    assert [move for move in found if move.at >= START + 6 * HOUR] == []


def test_hosts_that_waver_over_the_threshold_now_and_then_are_left_in_peace(tmp_path: Path) -> None:
    """Dies if every such hour is taken for an overload."""
    rules = policy("quiet", detection={"window": 900.0}).model_copy(update={"mode": Mode.ACT})
    found = moves(wavering(1, 30, 0.6, 0.3), rules, tmp_path)
    assert [move for move in found if move.at >= START + 6 * HOUR] == []


def test_what_is_there_to_stay_is_relieved_all_the_same(tmp_path: Path) -> None:
    """Dies if a host is left alone for what its VMs used on the day before."""
    site = wavering(1, 36, 0.5, 0.05)
    assert isinstance(site.load, Table)
    demand = site.load.rows.copy()
    first = [vm for vm, host in enumerate(site.placement) if host == 0]
    demand[round(24 * HOUR / STEP) :, first] *= 0.87 * 16 / demand[0, first].sum()
    rules = policy("quiet", detection={"window": 900.0}).model_copy(update={"mode": Mode.ACT})
    found = moves(replace(site, load=Table(STEP, demand)), rules, tmp_path)
    late = [move for move in found if move.at >= START + 24 * HOUR and move.source == "h0"]
    assert late
    assert late[0].at < START + 28 * HOUR


def test_no_vm_moves_again_within_its_cooldown_however_load_swings(tmp_path: Path) -> None:
    """Dies without `movable._resting`."""
    tables = EAGER | {"thresholds": {"imbalance": 0.02}}
    rules = policy("spread", **tables).model_copy(update={"mode": Mode.ACT})
    found, past = moves(wavering(1, 24, 0.5, 1.0), rules, tmp_path), dict[str, list[PastMove]]()
    assert len(found) > 20
    for move in found:
        own = past.setdefault(move.vm, [])
        assert not own or move.at >= rests_until(own, rules.limits)
        own.append(move)


def test_in_weeks_of_swings_no_vm_goes_back_within_its_cooldown(tmp_path: Path) -> None:
    """Dies if moves are forgotten while a rest still counts them."""
    tables = EAGER | {"thresholds": {"imbalance": 0.02}}
    rules = policy("spread", **tables).model_copy(update={"mode": Mode.ACT})
    found = moves(wavering(3, 15 * 24, 0.5, 1.0, step=3600.0), rules, tmp_path)
    past, waited = dict[str, list[PastMove]](), list[float]()
    for move in found:
        own = past.setdefault(move.vm, [])
        if own and move.target == own[-1].source:
            rest = rests_until(own, rules.limits) - own[-1].at
            waited.append((move.at - own[-1].at) / rest)
        own.append(move)
    assert len(waited) > 10
    assert min(waited) >= 2.0


@pytest.mark.parametrize("seed", [2, 37])
def test_once_a_whole_plan_is_done_planning_again_finds_nothing_that_it_missed(seed: int) -> None:
    """At night, on sites where some hosts cannot be emptied, which shows only after a long search.
    Dies when one of them uses up all that may be tried in vain, so that others are left untried."""
    night = stability.shipped(stability.NIGHT)
    cases = stability.cases_of(stability.grown(seed), night, np.random.default_rng(seed))
    assert [case["more"] for case in cases if case["whole"]] == [0]
