"""Hosts without certificates, and migrations that have to be encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import Against, JobReport, Presence
from balancerd.core.past.history import History
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from tests.lab.performance import lived, policy
from tests.lab.rig import Guest, GuestSpec, Rig
from tests.lab.stage import RealStage
from tests.lab.test_libvirt_adapter import ALL, MIB, config, until, uuid_of

BARE = "not set up for encrypted migrations"


@pytest.fixture
def pair(rig: Rig) -> Iterator[tuple[Guest, Guest]]:
    found = rig.start_all(dict.fromkeys(("t0", "t1"), ("h1", GuestSpec())))
    yield found["t0"], found["t1"]
    for guest in found.values():
        guest.remove()


@pytest.fixture
def backend(rig: Rig) -> Iterator[LibvirtBackend]:
    with LibvirtBackend([config(host) for host in rig.hosts], encrypted=True) as backend:
        yield backend


def test_hosts_without_certificates_refuse_the_start_and_the_vm_runs_on(
    backend: LibvirtBackend, pair: tuple[Guest, Guest]
) -> None:
    """Dies if QEMU's refusal is not recognised: it would count as a failure of the VM."""
    guest, told = pair[0], list[JobReport]()
    backend.locate(guest.name, uuid_of(guest), ALL)
    backend.migrate(guest.name, "h1", "h2", Method.PRE_COPY, 50 * MIB, 0.3)
    until(
        lambda: told.extend(backend.reports()) or any(report.ended for report in told),
        60,
        "the start is refused",
    )
    where = backend.locate(guest.name, uuid_of(guest), ALL)
    assert BARE in told[-1].objection
    assert told[-1].against is not Against.MOVE
    assert (where.presence["h1"], where.presence["h2"]) == (Presence.RUNNING, Presence.ABSENT)


def test_one_vm_is_told_that_its_hosts_lack_certificates_and_the_other_is_not_tried(
    backend: LibvirtBackend, pair: tuple[Guest, Guest], tmp_path: Path
) -> None:
    """Dies if each VM of a plan has to hear it, one after the other."""
    moves = tuple(
        Move(number, guest.name, "h1", "h2", Method.PRE_COPY, "test")
        for number, guest in enumerate(pair, start=1)
    )

    def once(_: Snapshot, policy: Policy, past: History, now: float) -> Plan:
        found = () if past.moves else moves
        return Plan(now, policy.name, policy.objective, found, "test", 1.0, 0.0)

    stage, rules = RealStage(pair[0], backend), policy(50 * MIB)
    with Ledger(tmp_path / "ledger.db") as ledger, SamplesStore(tmp_path / "s.db") as samples:
        loop = Loop(
            *(backend, stage.power, ledger, samples, stage.clock, lambda: rules), planner=once
        )
        loop.start()
        for _ in lived(loop, stage):
            if ledger.history(stage.clock.now()).moves and not loop.busy():
                break
        reader = Reader(ledger.database)
        assert [row["outcome"] for row in reader.migrations()] == ["objected"]
        (said,) = reader.status(stage.clock.now()).objections
    assert said.startswith("all ")
    assert BARE in said
    assert all(guest.where() == ["h1"] for guest in pair)
