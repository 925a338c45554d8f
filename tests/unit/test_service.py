"""What a service that runs for months has to say."""

from dataclasses import replace

from balancerd.core.past.record import Cycle
from balancerd.core.policies.choices import Mode, Objective
from balancerd.core.units import HOUR
from balancerd.service import Sayings

PEACE = Cycle(
    at=0.0,
    seconds=0.1,
    sentence="nothing to do: 0 hosts overloaded",
    mode=Mode.ACT,
    objective=Objective.SPREAD,
    window="",
    hosts_on=3,
    hosts_asleep=0,
    hosts_unknown=0,
    vms=2,
    overloaded=0,
    frozen="",
)
BUSY = replace(PEACE, sentence="nothing would help: 1 host overloaded", overloaded=1)


def test_a_host_that_wavers_for_a_day_has_few_lines_in_the_log() -> None:
    """Dies when each change to and fro is told: thousands of lines a day."""
    sayings = Sayings()
    told = [
        sayings.is_new(cycle, 30.0 * number) for number, cycle in enumerate([PEACE, BUSY] * 1440)
    ]
    assert told[:4] == [True, True, False, False]
    assert sum(told) == 2 * 24


def test_what_is_said_of_another_site_is_told_again() -> None:
    sayings = Sayings()
    asleep = replace(PEACE, hosts_asleep=1, hosts_on=2)
    assert [sayings.is_new(cycle, 0.0) for cycle in (PEACE, asleep, asleep, PEACE)] == [
        True,
        True,
        False,
        True,
    ]


def test_a_site_in_peace_has_a_line_an_hour() -> None:
    sayings = Sayings()
    assert [sayings.is_new(PEACE, at) for at in (1.0, HOUR, HOUR + 1.0)] == [True, False, True]
