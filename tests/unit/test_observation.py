"""Readings of VMs by columns are the same readings."""

from math import inf, nan

import pytest

from balancerd.core.model import VM, VMState
from balancerd.core.observation import VMCounters, VMReading, VMReadings
from tests.readings import JOB

READINGS = (
    VMReading(VM("a", 1), VMState.RUNNING, VMCounters(1.5, 0.0, 2**40, 7, 8, 2.5, 9, 10)),
    VMReading(VM("b", 1), VMState.OUTGOING, VMCounters(None, None, 5), JOB),
    VMReading(VM("c", 1), VMState.SHUTOFF, None),
)


def test_readings_by_columns_give_back_each_reading() -> None:
    """Dies when a counter that is not told comes back as zero, or bytes as a fraction."""
    readings = VMReadings.of(READINGS)
    assert tuple(readings) == READINGS
    assert readings[-1] == READINGS[-1]
    assert tuple(readings[1:]) == READINGS[1:]
    assert isinstance(readings[0].counters, VMCounters)
    assert isinstance(readings[0].counters.memory_used, int)


def test_readings_that_are_by_columns_stay_as_they_are() -> None:
    readings = VMReadings.of(READINGS)
    assert VMReadings.of(readings) is readings
    assert len(VMReadings.of(())) == 0


@pytest.mark.parametrize("other", [READINGS[:2], (READINGS[0], READINGS[2], READINGS[1])])
def test_readings_are_equal_if_all_of_them_are(other: tuple[VMReading, ...]) -> None:
    assert VMReadings.of(READINGS) == VMReadings.of(READINGS)
    assert VMReadings.of(READINGS) != VMReadings.of(other)


def test_a_counter_that_is_no_number_is_not_taken_for_one_that_is_not_told() -> None:
    (reading,) = VMReadings.of([VMReading(VM("a", 1), VMState.RUNNING, VMCounters(nan))])
    assert reading.counters == VMCounters(inf)
