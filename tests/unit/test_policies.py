"""The policies that are shipped."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from balancerd.cli.simulate import DEMO
from balancerd.config import load_policy
from balancerd.core.policies.choices import Mode, Objective
from balancerd.core.policies.policy import Policy
from balancerd.places import SHIPPED_POLICIES

SHIPPED = sorted(SHIPPED_POLICIES.glob("*.toml"))


def shipped(name: str) -> Policy:
    return load_policy(SHIPPED_POLICIES / f"{name}.toml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_policy_is_valid_and_explains_itself(path: Path) -> None:
    assert load_policy(path).name == path.stem
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "a file begins with what it is for"
    assert sum("#" in line for line in lines) >= len(lines) / 4


def test_the_policies_are_those_the_documents_speak_of() -> None:
    names = [path.stem for path in SHIPPED]
    assert names == ["advise", "consolidate", "defragment", "power-saving", "spread"]


def test_consolidate_packs_at_every_moment() -> None:
    policy = shipped("consolidate")
    assert not policy.window
    assert (policy.mode, policy.objective) == (Mode.ACT, Objective.PACK)
    assert policy.power.sleep_idle


@pytest.mark.parametrize(
    ("moment", "night"),
    [
        ("2026-03-02T00:00", True),  # the demo begins here: Sunday's night
        ("2026-03-02T06:29", True),
        ("2026-03-02T06:30", False),
        ("2026-03-06T18:59", False),
        ("2026-03-06T19:00", True),
        ("2026-03-07T12:00", True),  # Saturday
        ("2026-03-09T06:00", True),
        ("2026-03-09T12:00", False),
    ],
)
def test_power_saving_packs_and_sleeps_at_night_and_on_the_weekend(
    moment: str, *, night: bool
) -> None:
    rules = shipped("power-saving").at(
        datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    )
    assert (rules.objective is Objective.PACK) is night
    assert rules.power.sleep_idle is night
    assert rules.mode is Mode.ACT


def test_only_advise_waits_for_approval() -> None:
    assert [path.stem for path in SHIPPED if load_policy(path).mode is not Mode.ACT] == ["advise"]


def test_spread_never_sleeps() -> None:
    assert not shipped("spread").power.sleep_idle


def test_the_demo_comes_with_the_package() -> None:
    assert DEMO.is_file()
