"""What a crowd of VMs tells of one of which little is known."""

import pytest

from balancerd.core.forecast import ENOUGH, Crowd, Past, crowd, expect


def test_too_few_vms_are_no_crowd() -> None:
    assert crowd([(1.0, 4.0)] * (ENOUGH - 1)) is None
    assert crowd([(1.0, 4.0)] * ENOUGH) == Crowd(0.25, 0.0)


def test_sizes_that_cannot_be_do_not_count() -> None:
    assert crowd([(1.0, 0.0)] * ENOUGH) is None


def test_one_reading_leans_on_the_others_instead_of_on_half_the_size() -> None:
    """Dies if the crowd is left out: the safe share of 2.0 cores would count."""
    quiet = Crowd(0.1, 0.05)
    first = expect(Past(0.0, 0.5), 4.0, 1800.0, quiet)
    assert first.cpu == pytest.approx(0.7 * 0.5 + 0.3 * 0.4)
    assert first.spread == pytest.approx((0.3 * 0.2**2) ** 0.5)
    assert expect(Past(0.0, 0.5), 4.0, 1800.0).cpu == 2.0


def test_a_long_past_is_believed_alone() -> None:
    seen = expect(Past(0.0, 0.5, variance=0.04, span=1800.0), 4.0, 1800.0, Crowd(0.9, 0.5))
    assert (seen.cpu, seen.spread) == (0.5, pytest.approx(0.2))


def test_what_was_never_seen_counts_at_the_safe_share_in_any_crowd() -> None:
    assert expect(None, 4.0, 1800.0, Crowd(0.1, 0.0)).cpu == 2.0
