"""What every Backend promises, asked of the libvirt adapter on real hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.core.model import Method
from balancerd.core.observation import JobReport, Presence
from tests.lab.rig import Guest, GuestSpec, Rig
from tests.lab.test_libvirt_adapter import MIB, at_home, config, gathered, until, uuid_of
from tests.unit.test_backend_contract import *  # noqa: F403  the tests
from tests.unit.test_backend_contract import Bench


class RealBench(Bench):
    """A bench on which things take their time."""

    def move(self, source: str = "", target: str = "") -> None:
        """Ask for a migration, and wait until it shows if it is one."""
        source, target = source or self.source, target or self.target
        self.backend.migrate(self.vm, source, target, Method.PRE_COPY, 25 * MIB, 0.3)
        if self.presence(source) is not Presence.ABSENT:
            until(lambda: self.presence(target) is not Presence.ABSENT, 20, "it is under way")


@pytest.fixture(scope="module")
def guest(standing_rig: Rig) -> Iterator[Guest]:
    standing_rig.reset()
    guest = standing_rig.start("v0", "h1", GuestSpec())
    yield guest
    guest.remove()


@pytest.fixture
def bench(standing_rig: Rig, guest: Guest) -> Iterator[Bench]:
    """Two hosts of the lab, and the guest at home."""
    at_home(guest)
    with LibvirtBackend([config(host) for host in standing_rig.hosts[:2]]) as backend:

        def ends() -> list[JobReport]:
            found = gathered(
                lambda: (report for report in backend.reports() if report.ended),
                *(bool, 60, "the migration ends"),
            )
            time.sleep(1)  # libvirt clears up a half that is not wanted any more
            return found

        yield RealBench(backend, "h1", "h2", guest.name, uuid_of(guest), ends)
