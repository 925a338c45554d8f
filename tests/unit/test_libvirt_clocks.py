"""What events tell of a host's clock."""

import pytest

from balancerd.adapters.libvirt import clocks
from balancerd.adapters.libvirt.clocks import HostClock, skew


def clock(*told: float) -> HostClock:
    """A clock of which so many events were told, each so far ahead of ours when it came."""
    made = HostClock()
    for ahead in told:
        made.note(ahead)
    return made


def test_nothing_is_known_before_an_event_came() -> None:
    assert clock().ahead() is None
    assert skew(clock(), clock(1.0)) is None
    assert skew(clock(1.0), clock()) is None


def test_of_several_events_the_one_that_came_soonest_counts() -> None:
    """Dies if the newest does: one that waited in a busy machine would make its clock slow."""
    assert clock(29.9, 30.0, 12.5).ahead() == 30.0


def test_a_clock_that_was_set_is_believed_after_a_migrations_events() -> None:
    """Dies if the furthest of all times counts."""
    assert clock(*[90.0] * 3, *[-0.1] * clocks.EVENTS).ahead() == -0.1


def test_what_was_told_long_ago_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found = clock(90.0)
    monkeypatch.setattr(clocks, "KEEP_SECONDS", 0.0)
    assert found.ahead() is None


def test_people_are_shown_whole_seconds_that_do_not_change_for_a_wink() -> None:
    """Dies when a host is another one, to be written down anew, each time an event comes."""
    assert clock().shown(90.0) is None
    assert [clock(ahead).shown(None) for ahead in (0.4, 89.6)] == [0.0, 90.0]
    assert [clock(ahead).shown(90.0) for ahead in (89.2, 90.9, 91.1)] == [90.0, 90.0, 91.0]


def test_the_skew_is_positive_where_the_target_is_ahead() -> None:
    assert skew(clock(-2.0), clock(3.0)) == 5.0
