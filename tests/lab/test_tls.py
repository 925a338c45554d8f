"""Hosts without certificates, and migrations that have to be encrypted."""

from __future__ import annotations

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.core.model import Method
from balancerd.core.observation import JobReport, Presence
from tests.lab.rig import GuestSpec, Rig
from tests.lab.test_libvirt_adapter import ALL, MIB, config, until, uuid_of


def test_hosts_without_certificates_refuse_the_start_and_the_vm_runs_on(rig: Rig) -> None:
    """Dies if QEMU's refusal is not recognised: it would count as a failure of the VM."""
    guest = rig.start("t0", "h1", GuestSpec())
    told: list[JobReport] = []
    with LibvirtBackend([config(host) for host in rig.hosts], encrypted=True) as backend:
        backend.locate(guest.name, uuid_of(guest), ALL)
        backend.migrate(guest.name, "h1", "h2", Method.PRE_COPY, 50 * MIB, 0.3)
        until(
            lambda: told.extend(backend.reports()) or any(report.ended for report in told),
            60,
            "the start is refused",
        )
        where = backend.locate(guest.name, uuid_of(guest), ALL)
    assert "not set up for encrypted migrations" in told[-1].objection
    assert (where.presence["h1"], where.presence["h2"]) == (Presence.RUNNING, Presence.ABSENT)
    guest.remove()
