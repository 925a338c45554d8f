"""What moves are worth, and which plans are declined for it."""

from dataclasses import replace

import pytest

from balancerd.core.model import Forecast, Snapshot
from balancerd.core.ordering.order import Step
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.placing.survey import lay_out
from balancerd.core.planner.worth import Worth, waiting, worth
from balancerd.core.policies.policy import Policy
from tests.sites import NOW, planned, policy, site, told

BUSY = "h1 10c 64G: a 3c 8G, b 3c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G"
CALM = "h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: | h3 10c 64G: c 1c 8G"
EAGER = {"thresholds": {"imbalance": 0.05}}


def of_one_move(snapshot: Snapshot, rules: Policy, history: History | None = None) -> Worth:
    """What moving `a` from h1 to h2 is worth."""
    history = history or History()
    before = lay_out(snapshot, rules, history, NOW)
    after = before.copy()
    after.move(0, 1)
    return worth(before, after, [Step(0, 0, 1, "")], history)


def test_hosts_that_overload_soon_make_their_vms_wait_and_calm_ones_do_not() -> None:
    full = site("h1 10c 64G: a 4c 8G, b 4c 8G | h2 10c 64G: c 1c 8G")
    layout = lay_out(full, policy(capacity={"enforce_memory": False}), History(), NOW)
    assert waiting(layout) == pytest.approx([0.5 * 2, 0.0], abs=1e-6)


def test_the_spread_of_a_forecast_makes_waiting_likelier() -> None:
    snapshot = site(BUSY)
    wild = {**snapshot.forecasts, "a": Forecast(3.0, 2.0)}
    calm = of_one_move(snapshot, policy())
    assert of_one_move(replace(snapshot, forecasts=wild), policy()).spared > calm.spared


def test_a_move_costs_time_downtime_and_the_risk_that_it_fails() -> None:
    cost = of_one_move(site(BUSY), policy()).cost
    seconds, downtime = 8 * 2**30 / (100 * 2**20), 0.3
    assert 0.1 * seconds < cost < 0.1 * 1.2 * seconds + downtime + 0.1 * 0.02 * 300


def test_where_migrations_failed_they_cost_more() -> None:
    """Dies if the risk is a constant."""
    failed = tuple(PastMove("x", "h1", "h3", NOW - 9000, Outcome.FAILED) for _ in range(9))
    snapshot = site(BUSY)
    risky = of_one_move(snapshot, policy(), History(moves=failed)).cost
    assert risky > of_one_move(snapshot, policy()).cost + 0.1 * 300 * 9 / 100


def test_evening_out_hosts_that_are_in_no_danger_is_declined_with_the_numbers() -> None:
    """Dies if the score alone decides: it would fall by more than half."""
    made = planned(site(CALM), policy("spread", **EAGER))
    assert told(made) == []
    assert made.reason.startswith("nothing to do: 1 move would spare VMs 0s of waiting within 1h")
    assert "less than the 3 times that limits.benefit asks for" in made.reason
    assert told(planned(site(CALM), policy("spread", limits={"benefit": 0.0}, **EAGER))) != []


def test_a_plan_says_what_it_is_worth() -> None:
    made = planned(site(BUSY), policy("spread"))
    assert told(made) == ["a h1>h2"]
    assert "spare VMs" in made.reason


def test_a_longer_horizon_makes_more_moves_worth_it() -> None:
    snapshot = site("h1 10c 64G: a 3c 8G, b 2c 8G | h2 10c 64G: | h3 10c 64G:")
    near = policy("spread", detection={"horizon": 60.0})
    assert told(planned(snapshot, near)) == []
    far = policy("spread", detection={"horizon": 86400.0})
    assert told(planned(snapshot, far)) != []
