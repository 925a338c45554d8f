"""What a crowd of VMs tells of one of which little is known."""

import numpy as np
import pytest

from balancerd.core.model import Forecast
from balancerd.core.sensing.forecast import (
    ENOUGH,
    Crowd,
    Past,
    Pasts,
    crowd,
    expect,
    remember,
    taking_in,
)


def sizes(*values: float) -> np.ndarray:
    return np.array(values)


def expected(past: Past | None, size: float, others: Crowd | None = None) -> Forecast:
    """The forecast of one VM that is trusted after half an hour."""
    pasts = Pasts.of({} if past is None else {"a": past}).among(("a",))
    return expect(pasts, sizes(size), 1800.0, others)["a"]


def test_too_few_vms_are_no_crowd() -> None:
    levels = np.ones(ENOUGH)
    assert crowd(levels[1:], np.full(ENOUGH - 1, 4.0)) is None
    assert crowd(levels, np.full(ENOUGH, 4.0)) == Crowd(0.25, 0.0)


def test_sizes_that_cannot_be_and_vms_never_seen_do_not_count() -> None:
    assert crowd(np.ones(ENOUGH), np.zeros(ENOUGH)) is None
    assert crowd(np.full(ENOUGH, np.nan), np.ones(ENOUGH)) is None


def test_one_reading_leans_on_the_others_instead_of_on_half_the_size() -> None:
    """Dies if the crowd is left out: the safe share of 2.0 cores would count."""
    first = expected(Past(0.0, 0.5), 4.0, Crowd(0.1, 0.05))
    assert first.cpu == pytest.approx(0.7 * 0.5 + 0.3 * 0.4)
    assert first.spread == pytest.approx((0.3 * 0.2**2) ** 0.5)
    assert expected(Past(0.0, 0.5), 4.0).cpu == 2.0


def test_a_long_past_is_believed_alone() -> None:
    seen = expected(Past(0.0, 0.5, variance=0.04, span=1800.0), 4.0, Crowd(0.9, 0.5))
    assert seen.cpu == 0.5
    assert seen.spread == pytest.approx(0.2)


def test_what_was_never_seen_counts_at_the_safe_share_in_any_crowd() -> None:
    assert expected(None, 4.0, Crowd(0.1, 0.0)) == Forecast(2.0, 1.0)
    assert expected(None, 4.0) == Forecast(2.0, 1.0)


def test_a_reading_moves_the_level_the_more_the_longer_the_last_one_is_ago() -> None:
    """Dies when the first reading is smoothed, or when an older one is taken in again."""
    pasts = taking_in(Pasts.of({}), 100.0, {"a": 1.0})
    assert pasts == {"a": Past(100.0, 1.0)}
    hour = taking_in(pasts, 3700.0, {"a": 2.0, "b": 3.0})
    weight = 1 - np.exp(-1)
    assert hour["a"].level == pytest.approx(1 + weight)
    assert hour["a"].variance == pytest.approx((1 - weight) * weight)
    assert (hour["a"].span, hour["b"]) == (3600.0, Past(3700.0, 3.0))
    assert (hour["a"].waver, hour["a"].lasting) == (1.0, 0.0)
    assert hour["a"].strayed == pytest.approx(1.0, rel=1e-4)
    assert taking_in(hour, 3700.0, {"a": 9.0}) == hour


def test_who_was_not_read_keeps_the_past() -> None:
    pasts = Pasts.of({"a": Past(100.0, 1.0, 0.5, 60.0), "b": Past(100.0, 2.0)})
    later = remember(pasts, np.array([np.nan, 200.0]), np.array([np.nan, 2.0]))
    assert later["a"] == pasts["a"]
    assert later["b"] == Past(200.0, 2.0, 0.0, 100.0)


def test_pasts_follow_their_names() -> None:
    pasts = Pasts.of({"a": Past(1.0, 2.0, 3.0, 4.0), "b": Past(5.0, 6.0, 7.0, 8.0)})
    other = pasts.among(("b", "c"))
    assert other["b"] == pasts["b"]
    assert np.isnan(other["c"].at)
