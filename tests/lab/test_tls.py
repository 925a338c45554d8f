"""Migrations that have to be encrypted: hosts with certificates, good and bad, and without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import JobReport, Presence
from balancerd.core.outcome import Against
from balancerd.core.past.history import History
from balancerd.core.plan import Move, Plan
from balancerd.core.policies.policy import Policy
from balancerd.loop import Loop
from tests.lab.performance import lived, policy
from tests.lab.rig import Authority, Disk, Guest, GuestSpec, Rig
from tests.lab.stage import RealStage, went_on
from tests.lab.test_libvirt_adapter import (
    ALL,
    MIB,
    at_home,
    config,
    ended,
    gathered,
    tells_of_an_end,
    uuid_of,
)

BARE = "not set up for encrypted migrations"
IN_MEMORY = b"rcupdate.rcu_expedited=1"  # of every guest: its kernel's options


@pytest.fixture(scope="module")
def both(standing_rig: Rig) -> Iterator[tuple[Guest, Guest]]:
    standing_rig.reset()
    found = standing_rig.start_all(dict.fromkeys(("t0", "t1"), ("h1", GuestSpec())))
    yield found["t0"], found["t1"]
    for guest in found.values():
        guest.remove()


@pytest.fixture
def pair(both: tuple[Guest, Guest]) -> tuple[Guest, Guest]:
    """Two guests on h1, and no host has any certificate."""
    for host in both[0].rig.hosts:
        host.decertify()
    for guest in both:
        at_home(guest)
    return both


@pytest.fixture
def backend(standing_rig: Rig) -> Iterator[LibvirtBackend]:
    with LibvirtBackend([config(host) for host in standing_rig.hosts], encrypted=True) as backend:
        yield backend


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs for other hosts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def end_of(backend: LibvirtBackend, guest: Guest, source: str, target: str) -> JobReport:
    """Migrate a guest; the report of the end."""
    backend.locate(guest.name, uuid_of(guest), ALL)
    backend.migrate(guest.name, source, target, Method.PRE_COPY, 50 * MIB, 0.3)
    return gathered(backend.reports, tells_of_an_end, 60, "the end is told")[-1]


def test_what_is_encrypted_cannot_be_read_on_the_way(
    backend: LibvirtBackend, pair: tuple[Guest, Guest], authority: Authority
) -> None:
    """There without encryption, which proves that the wire tells; and back with it. Dies if TLS is
    asked for in vain."""
    guest = pair[0]
    for host in guest.rig.hosts:
        host.certify(authority)
    cable, found = guest.rig.host("h1"), []
    with LibvirtBackend([config(host) for host in guest.rig.hosts]) as plain:
        for each, way in ((plain, ("h1", "h2")), (backend, ("h2", "h1"))):
            with cable.listen("migration", IN_MEMORY) as wire:
                assert end_of(each, guest, *way).error == ""
                found.append(wire.stop())
    assert guest.where() == ["h1"]
    assert [heard.bytes > 10e6 for heard in found] == [True, True]
    assert found[0].hits > 0
    assert found[1].hits == 0
    went_on(guest)


def test_a_certificate_without_the_address_is_good_for_its_name(
    pair: tuple[Guest, Guest], authority: Authority
) -> None:
    guest, rig = pair[0], pair[0].rig
    for host in rig.hosts:
        host.certify(authority, with_address=False)
    named = [replace(config(host), tls_name=host.name) for host in rig.hosts]
    with LibvirtBackend(named, encrypted=True) as backend:
        assert end_of(backend, guest, "h1", "h2").error == ""
    assert guest.where() == ["h2"]
    went_on(guest)


@pytest.mark.parametrize(
    ("h1", "h2", "against", "said"),
    [
        ("good", "none", Against.PAIR, "No such file"),
        ("good", "expired", Against.TARGET, "h2 is not set up .* has expired"),
        ("expired", "good", Against.SOURCE, "h1 is not set up .* has expired"),
        ("good", "strange", Against.PAIR, "do not accept each other.* known issuer"),
        ("good", "nameless", Against.PAIR, "do not accept each other.* not match the hostname"),
    ],
)
def test_a_vm_stays_where_a_certificate_is_wrong_and_what_is_wrong_is_told(
    backend: LibvirtBackend,
    pair: tuple[Guest, Guest],
    authority: Authority,
    stranger: Authority,
    h1: str,
    h2: str,
    against: Against,
    said: str,
) -> None:
    """Dies if it counts as a failure: the VM and both hosts would rest for what is not their
    fault."""
    guest = pair[0]
    for name, kind in (("h1", h1), ("h2", h2)):
        if kind != "none":
            guest.rig.host(name).certify(
                stranger if kind == "strange" else authority,
                expired=kind == "expired",
                with_address=kind != "nameless",
            )
    end = end_of(backend, guest, "h1", "h2")
    assert re.search(said, end.objection), end
    assert end.against is against
    where = backend.locate(guest.name, uuid_of(guest), ALL)
    assert (where.presence["h1"], where.presence["h2"]) == (Presence.RUNNING, Presence.ABSENT)
    went_on(guest)


def test_hosts_without_certificates_refuse_the_start_and_the_vm_runs_on(
    backend: LibvirtBackend, pair: tuple[Guest, Guest]
) -> None:
    """Dies if QEMU's refusal is not recognised: it would count as a failure of the VM."""
    guest = pair[0]
    end = end_of(backend, guest, "h1", "h2")
    where = backend.locate(guest.name, uuid_of(guest), ALL)
    assert BARE in end.objection
    assert end.against is not Against.MOVE
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


def test_a_vm_that_is_shut_off_has_no_memory_to_encrypt(backend: LibvirtBackend, rig: Rig) -> None:
    """Its definition goes over the hosts' own connection. Dies if a cold move needs certificates,
    which no host has here, or if libvirt objects to being asked for them."""
    for host in rig.hosts:
        host.decertify()
    rig.define("cold", "h1", GuestSpec(disk=Disk("shared")))
    uuid = str(rig.host("h1").ask(lambda c: c.lookupByName("cold").UUIDString()))
    backend.locate("cold", uuid, ALL)
    backend.migrate("cold", "h1", "h2", Method.COLD, 50 * MIB, 0.3)
    assert ended(backend).error == ""
    presence = backend.locate("cold", uuid, ALL).presence
    assert (presence["h1"], presence["h2"]) == (Presence.ABSENT, Presence.SHUTOFF)


def test_a_disk_that_moves_along_cannot_be_read_on_the_way_either(
    backend: LibvirtBackend, rig: Rig, authority: Authority
) -> None:
    """It has a connection of its own. Dies if only the memory's is encrypted."""
    for host in rig.hosts:
        host.certify(authority)
    guest = rig.start("own", "h1", GuestSpec(disk=Disk("local", 32, "raw", allocated=True)))
    uuid, found = uuid_of(guest), []
    with LibvirtBackend([config(host) for host in rig.hosts]) as plain:
        for each, source, target in ((plain, "h1", "h2"), (backend, "h2", "h1")):
            mark = b"a mark on the disk of " + source.encode()
            with (rig.host(source).disk / "local" / "own.raw").open("r+b") as image:
                image.seek(16 * MIB)  # the guest uses but its beginning
                image.write(mark * 1000)
            rig.host(target).delete_images("own.*")
            each.locate("own", uuid, ALL)
            with rig.host("h1").listen("migration", mark) as wire:
                each.migrate("own", source, target, Method.STORAGE, 50 * MIB, 0.3)
                assert ended(each).error == ""
                found.append(wire.stop())
    assert guest.where() == ["h1"]
    assert found[0].hits > 0
    assert found[1].hits == 0
    assert mark in (rig.host("h1").disk / "local" / "own.raw").read_bytes()
    went_on(guest)
