"""Copying the memory of a VM that goes on writing: the closed forms against round after round."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.core.moving.copying import SWITCH_OVER, auto_converge, post_copy, pre_copy


def by_rounds(memory: float, dirty: float, rate: float, pause: float) -> tuple[float, float]:
    """Seconds and bytes, one round after the other."""
    left, seconds, sent = memory, 0.0, 0.0
    while True:
        lasts = left / rate
        seconds, sent, left = seconds + lasts, sent + left, dirty * lasts
        if left <= rate * pause * (1 + 1e-9):
            return seconds + left / rate + SWITCH_OVER, sent + left


@given(
    st.floats(1e3, 1e12),
    st.floats(1e3, 1e10),
    st.floats(0.0, 0.95),
    st.floats(0.01, 2.0),
)
def test_pre_copy_is_the_sum_of_its_rounds(
    memory: float, rate: float, share: float, pause: float
) -> None:
    """Dies if the pause's bytes are left out, or a round is counted too many."""
    found = pre_copy(memory, share * rate, rate, pause)
    seconds, sent = by_rounds(memory, share * rate, rate, pause)
    assert found.seconds == pytest.approx(seconds, rel=1e-6)
    assert found.bytes == pytest.approx(sent, rel=1e-6)
    assert found.downtime <= SWITCH_OVER + pause * (1 + 1e-6)


def test_a_vm_that_writes_as_fast_as_it_is_copied_never_gets_there() -> None:
    assert not pre_copy(1e9, 1e8, 1e8, 0.3).ends
    assert pre_copy(1e9, 1e8, 1e8, 0.3).seconds == inf


def test_what_fits_into_the_pause_needs_one_round_however_fast_it_is_written() -> None:
    found = pre_copy(100.0, 1e9, 1000.0, 0.3)
    assert (found.bytes, found.downtime) == (200.0, SWITCH_OVER + 0.1)


def test_auto_converge_slows_the_vm_until_it_gets_there_and_not_where_it_need_not() -> None:
    """Dies if the throttle does not change the rate of writing."""
    hot = auto_converge(1e9, 1.5e8, 1e8, 0.3)
    assert hot.ends
    assert 0.2 <= hot.slowed <= 0.99
    cool = auto_converge(1e9, 1e7, 1e8, 0.3)
    assert cool.slowed == 0.0
    assert cool.seconds == pytest.approx(pre_copy(1e9, 1e7, 1e8, 0.3).seconds)


def test_post_copy_stands_still_for_the_hand_over_alone_and_sends_what_was_written_once() -> None:
    found = post_copy(1000.0, 30.0, 100.0)
    assert (found.bytes, found.downtime) == (1300.0, SWITCH_OVER)
    assert post_copy(1000.0, 1e9, 100.0).bytes == 2000.0
