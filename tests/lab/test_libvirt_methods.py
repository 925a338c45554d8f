"""Methods on real hosts: how fast a guest writes, and what slows it down enough to be moved."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.adapters.libvirt.sampling import sample
from balancerd.core.model import Method
from balancerd.core.observation import JobReport
from tests.lab.rig import Guest, GuestSpec, Load, Rig
from tests.lab.test_libvirt_adapter import (
    ALL,
    MIB,
    at_home,
    begin,
    config,
    ended,
    gathered,
    tells_of_an_end,
    until,
    uuid_of,
)


@pytest.fixture(scope="module")
def guest(standing_rig: Rig) -> Iterator[Guest]:
    standing_rig.reset()
    guest = standing_rig.start("m0", "h1", GuestSpec())
    yield guest
    guest.remove()


@pytest.fixture
def backend(standing_rig: Rig) -> Iterator[LibvirtBackend]:
    with LibvirtBackend([config(host) for host in standing_rig.hosts]) as backend:
        yield backend


def moved(
    backend: LibvirtBackend, guest: Guest, method: Method, mib_per_s: int, pause: float
) -> tuple[JobReport, list[JobReport]]:
    """A migration from h1 to h2: its end, and what was told on the way."""
    backend.locate(guest.name, uuid_of(guest), ALL)
    backend.migrate(guest.name, "h1", "h2", method, mib_per_s * MIB, pause)
    told = gathered(backend.reports, tells_of_an_end, 90, "the migration ends")
    return next(report for report in told if report.ended), told


def test_how_fast_a_guest_writes_is_sampled_and_shows_in_a_reading(
    backend: LibvirtBackend, guest: Guest
) -> None:
    """Dies if nobody asks QEMU to look, or the figure is taken for bytes."""
    at_home(guest)
    guest.set_load(Load(dirty_mb_per_s=20, working_set_mib=48))
    until(lambda: writes(guest) > 5 * MIB, 60, "the guest writes")

    def rates() -> list[float]:
        counters = [
            found.counters
            for reading in backend.observe().readings  # a busy host may not answer in time
            for found in reading.vms
            if (reading.host, found.vm.name) == ("h1", guest.name)
        ]
        return [c.dirty_rate for c in counters if c and c.dirty_rate is not None]

    found = gathered(rates, bool, 90, "the guest was sampled")
    # QEMU looks at a sample of the pages, and on a busy machine the guest writes less than it is
    # told to; taken for bytes, or for pages, the figure would be off by thousands.
    assert 1 * MIB <= found[0] <= 60 * MIB


def test_a_guest_is_not_sampled_while_it_migrates(backend: LibvirtBackend, guest: Guest) -> None:
    """Dies if jobs are not looked for: the sample would take time and CPU from the migration."""
    at_home(guest)

    def sampled() -> bool:
        return guest.rig.host("h1").ask(lambda c: sample(c.lookupByName(guest.name)))

    begin(backend, guest, 5)
    assert not sampled()
    backend.abort(guest.name, "h1")
    ended(backend)
    until(sampled, 10, "it is sampled again")


def writes(guest: Guest) -> float:
    """Bytes per second, by the guest's own count."""
    before = guest.inner()["dirtied_pages"]
    time.sleep(1)
    return float(guest.inner()["dirtied_pages"] - before) * 4096


def test_a_guest_that_writes_too_fast_for_pre_copy_arrives_with_auto_converge(
    backend: LibvirtBackend, guest: Guest
) -> None:
    """Dies without the flag: 60 MB/s written never fit through 40 MiB/s within 50 ms."""
    at_home(guest)
    guest.set_load(Load(dirty_mb_per_s=60, working_set_mib=48))
    end, told = moved(backend, guest, Method.AUTO_CONVERGE, 40, 0.05)
    assert end.error == ""
    assert max(report.progress.throttle for report in told if report.progress) >= 20
    assert guest.where() == ["h2"]
    counter = guest.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0)
