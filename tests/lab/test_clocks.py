"""Hosts whose clocks differ: who notices, and what it spoils."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.core.executing.preflight import objection
from balancerd.core.model import Method
from tests.lab.performance import policy
from tests.lab.rig import GuestSpec, Rig
from tests.lab.stage import went_on
from tests.lab.test_libvirt_adapter import MIB, config, until, uuid_of
from tests.lab.test_tls import end_of

AHEAD = 90  # seconds, of h2


@pytest.fixture
def backend(rig: Rig) -> Iterator[LibvirtBackend]:
    rig.host("h2").set_clock(AHEAD)
    with LibvirtBackend([config(host) for host in rig.hosts]) as backend:
        yield backend


def test_a_migration_tells_how_far_two_clocks_differ_and_the_next_one_is_objected_to(
    rig: Rig, backend: LibvirtBackend
) -> None:
    """Dies if its figures are believed as libvirt tells them: a pause of a minute and a half."""
    guest = rig.start("a", "h1", GuestSpec())
    until(lambda: not any(r.error for r in backend.observe().readings), 30, "all hosts are read")
    way = guest.name, uuid_of(guest)
    assert backend.preflight(*way, "h1", "h2", Method.PRE_COPY).skew is None
    end = end_of(backend, guest, "h1", "h2")
    assert end.error == ""
    assert end.downtime is not None
    assert end.downtime < AHEAD / 3
    assert end.seconds is not None
    assert end.seconds < AHEAD
    found = backend.preflight(*way, "h2", "h1", Method.PRE_COPY)
    assert found.skew == pytest.approx(-AHEAD, abs=2)
    said = objection(found, Method.PRE_COPY, 1.0, policy(50 * MIB))
    assert said.startswith("the clock of h1 is 1m")
    assert "behind that of h2 (limits.clock_skew)" in said
    shown = {r.host: r.facts.clock for r in backend.observe().readings if r.facts}
    assert shown["h2"] == pytest.approx(AHEAD, abs=2)
    assert shown["h1"] == pytest.approx(0.0, abs=2)
    back = end_of(backend, guest, "h2", "h1")
    assert (back.downtime or 0.0) < AHEAD / 3
    assert (back.seconds or 0.0) < AHEAD
    assert guest.where() == ["h1"]
    went_on(guest)
