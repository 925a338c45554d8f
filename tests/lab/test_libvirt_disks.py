"""Disks on real hosts that move along with their guests: what their copies may send."""

from __future__ import annotations

import time
from collections.abc import Iterator

import libvirt
import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.core.model import Method
from tests.lab.rig import Disk, Guest, GuestSpec, Rig
from tests.lab.stage import went_on
from tests.lab.test_libvirt_adapter import MIB, begin, config, ended, until

BYTES = libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
SMALL, LARGE = Disk("local", 24, "raw", allocated=True), Disk("local", 72, "raw", allocated=True)


@pytest.fixture
def backend(standing_rig: Rig) -> Iterator[LibvirtBackend]:
    with LibvirtBackend([config(host) for host in standing_rig.hosts]) as backend:
        yield backend


def caps(guest: Guest) -> dict[str, int]:
    """What each disk that is copied now may send, bytes per second."""
    jobs = guest.rig.host("h1").ask(
        lambda c: {
            disk: c.lookupByName(guest.name).blockJobInfo(disk, BYTES) for disk in ("vda", "vdb")
        }
    )
    return {disk: job["bandwidth"] for disk, job in jobs.items() if job}


def test_disks_that_are_copied_side_by_side_share_the_cap_by_what_they_have_left(
    backend: LibvirtBackend, rig: Rig
) -> None:
    """libvirt gives the whole bandwidth to each, and leaves them alone when it is changed. Dies
    when it is not divided, or when only the memory that follows is told of a new cap."""
    guest = rig.start("two", "h1", GuestSpec(disk=SMALL, second=LARGE))
    begin(backend, guest, 8, Method.STORAGE)
    seen = [caps(guest)]
    assert sum(seen[0].values()) <= 8 * MIB
    until(lambda: seen.append(caps(guest)) or seen[-1]["vdb"] > 4.5 * MIB, 10, "told by size")
    assert all(sum(rates.values()) <= 8 * MIB for rates in seen)
    backend.set_bandwidth("two", "h1", 4 * MIB)
    assert 3 * MIB < sum(caps(guest).values()) <= 4 * MIB
    begun = time.monotonic()
    backend.set_bandwidth("two", "h1", 200 * MIB)
    assert ended(backend).error == ""
    assert time.monotonic() - begun < 30  # 50 s at the cap before
    assert guest.where() == ["h2"]
    went_on(guest)
