"""Disks on real hosts that move along with their guests: what is copied of them, and how fast."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from balancerd.adapters.libvirt import LibvirtBackend
from balancerd.adapters.libvirt.mirrors import LEAST
from balancerd.core.executing.preflight import objection
from balancerd.core.model import Method
from balancerd.core.policies.policy import Policy
from tests.lab.performance import policy
from tests.lab.rig import Disk, Guest, GuestSpec, Host, Rig
from tests.lab.service import MakeService
from tests.lab.service import policy as calm
from tests.lab.small_site import settled
from tests.lab.stage import went_on
from tests.lab.test_libvirt_adapter import (
    ALL,
    MIB,
    begin,
    config,
    ended,
    gathered,
    uuid_of,
    vm,
)

BYTES = libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
TAGGED = "<b:policy xmlns:b='urn:balancerd:policy' overlay='yes'/>"
BASE, DISK = "/lab/local/golden.qcow2", 48 * MIB
SPEC = GuestSpec(
    disk=Disk("local", base="golden.qcow2"), second=Disk("local", 32, "raw", allocated=True)
)


@pytest.fixture
def backend(standing_rig: Rig) -> Iterator[LibvirtBackend]:
    with LibvirtBackend([config(host) for host in standing_rig.hosts]) as backend:
        yield backend


@pytest.fixture(scope="module")
def overlaid(standing_rig: Rig) -> Iterator[Guest]:
    """A guest on h1, a disk of which lies on a base of 40 MiB that h1 and h2 have, each its own."""
    standing_rig.reset()
    provide(standing_rig, "h2")
    guest = standing_rig.start("on-base", "h1", SPEC)
    yield guest
    guest.remove()
    for name in ("h1", "h2"):
        standing_rig.host(name).delete_images("golden.*")


def provide(rig: Rig, target: str) -> None:
    """Give h1 a base image, and one other host a copy of it."""
    h1 = rig.host("h1")
    raw = images(h1) / "golden.raw"
    raw.write_bytes(random.Random(7).randbytes(40 * MIB).ljust(DISK, b"\0"))
    h1.command("qemu-img", "convert", "-O", "qcow2", "/lab/local/golden.raw", BASE)
    copied(h1, rig.host(target))


def images(host: Host) -> Path:
    return host.disk / "local"


def copied(source: Host, target: Host) -> None:
    """The base as `cp --preserve=timestamps` or `rsync -t` would bring it over."""
    base, copy = (images(host) / "golden.qcow2" for host in (source, target))
    copy.write_bytes(base.read_bytes())
    os.utime(copy, ns=(0, base.stat().st_mtime_ns))


def objected(backend: LibvirtBackend, guest: Guest, rules: Policy) -> str:
    """What is said against moving the guest from h1 to h2 with its overlay alone."""
    uuid = uuid_of(guest)
    found = backend.preflight(guest.name, uuid, "h1", "h2", Method.OVERLAY)
    return objection(found, Method.OVERLAY, 0.0, rules)


def larger(h2: Host) -> None:
    h2.command("qemu-img", "resize", "-q", BASE, "64M")


def of_other_content(h2: Host) -> None:
    """Of the same size and time: like an image that was built once more."""
    base = images(h2) / "golden.qcow2"
    changed = base.stat().st_mtime_ns
    with base.open("r+b") as file:
        file.seek(8 * MIB)
        file.write(os.urandom(24 * MIB))
    os.utime(base, ns=(0, changed))


def written_since(h2: Host) -> None:
    os.utime(images(h2) / "golden.qcow2")


def without_it(h2: Host) -> None:
    (images(h2) / "golden.qcow2").unlink()


def with_a_disk_already(h2: Host) -> None:
    (images(h2) / "on-base.qcow2").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (larger, "holds a disk of 67108864 bytes on h2, but of 50331648 on h1"),
        (of_other_content, "holds other data on h2 than on h1"),
        (written_since, "not changed last at the same time on h2 as on h1"),
        (without_it, f"h2 tells nothing of {BASE}"),
        (with_a_disk_already, "h2 has a file /lab/local/on-base.qcow2 already"),
    ],
)
def test_a_base_that_is_not_the_same_on_the_target_is_an_objection_in_one_sentence(
    backend: LibvirtBackend, overlaid: Guest, change: Callable[[Host], None], words: str
) -> None:
    h1, h2 = overlaid.rig.host("h1"), overlaid.rig.host("h2")
    assert objected(backend, overlaid, policy(100 * MIB)) == ""
    change(h2)
    try:
        assert words in objected(backend, overlaid, policy(100 * MIB))
    finally:
        h2.delete_images("on-base.*")
        copied(h1, h2)
    assert objected(backend, overlaid, policy(100 * MIB)) == ""


def test_a_base_that_a_guest_writes_to_is_an_objection(
    backend: LibvirtBackend, overlaid: Guest
) -> None:
    h2 = overlaid.rig.host("h2")
    xml = GuestSpec(disk=Disk("local")).xml("writer").replace("writer.qcow2", "golden.qcow2")
    h2.ask(lambda c: c.createXML(xml).name(), timeout=30)
    try:
        said = objected(backend, overlaid, policy(100 * MIB))
        assert said == "an image that its disks lie on is written to by writer on h2"
    finally:
        overlaid.rig.guest("writer").remove()
        copied(overlaid.rig.host("h1"), h2)


def caps(guest: Guest) -> dict[str, int]:
    """What each disk that is copied now may send, bytes per second."""
    jobs = guest.rig.host("h1").ask(
        lambda c: {
            disk: c.lookupByName(guest.name).blockJobInfo(disk, BYTES) for disk in ("vda", "vdb")
        }
    )
    return {disk: job["bandwidth"] for disk, job in jobs.items() if job}


def test_disks_that_are_copied_side_by_side_share_the_cap_by_what_they_have_left(
    backend: LibvirtBackend, overlaid: Guest
) -> None:
    """libvirt gives the whole bandwidth to each, and leaves them alone when it is changed. Dies
    when it is not divided, or when only the memory that follows is told of a new cap."""
    begin(backend, overlaid, 4, Method.OVERLAY)
    seen = gathered(
        lambda: [caps(overlaid)], lambda seen: seen[-1]["vdb"] > 2.5 * MIB, 10, "told by size"
    )
    assert all(sum(rates.values()) <= 4 * MIB + LEAST for rates in seen)
    for cap in (2 * MIB, 6 * MIB):
        backend.set_bandwidth(overlaid.name, "h1", cap)
        assert 0.9 * cap < sum(caps(overlaid).values()) <= cap + LEAST
    backend.abort(overlaid.name, "h1")
    assert "cancel" in ended(backend).error
    overlaid.rig.host("h2").delete_images(f"{overlaid.name}.*")
    went_on(overlaid)


def test_a_guest_takes_along_what_lies_on_its_base_and_no_more(
    backend: LibvirtBackend, overlaid: Guest
) -> None:
    """Dies when nobody makes the image on the target, or when the base is copied into it."""
    h1, h2 = overlaid.rig.host("h1"), overlaid.rig.host("h2")
    disk, whole = vm(backend.observe(), "h1", overlaid.name).vm.disks
    assert (disk.size, disk.based, disk.shared) == (DISK, True, False)
    assert 0 < disk.allocated < 4 * MIB
    assert (whole.allocated, whole.based) == (whole.size, False)
    begin(backend, overlaid, 100, Method.OVERLAY)
    end = ended(backend)
    assert (end.error, overlaid.where()) == ("", ["h2"])
    assert (images(h2) / "on-base.qcow2").stat().st_size < 4 * MIB
    went_on(overlaid)
    assert overlaid.inner()["disk_errors"] == 0
    backend.locate(overlaid.name, uuid_of(overlaid), ALL)
    backend.migrate(overlaid.name, "h2", "h1", Method.OVERLAY, 100 * MIB, 0.1)
    assert "on-base.qcow2" in ended(backend).error  # what is there may be of any time
    assert overlaid.where() == ["h2"]
    overlaid.stop()
    assert content(h2)[2 * MIB + 4096 :] == content(h1)[2 * MIB + 4096 :]  # it writes before that
    assert content(h2).startswith(b"LABDISK1")


def content(host: Host) -> bytes:
    """What the guest's disk holds on a host, its base included."""
    flat = images(host) / "flat.raw"
    host.command(
        *("qemu-img", "convert", "-O", "raw", "/lab/local/on-base.qcow2", "/lab/local/flat.raw")
    )
    try:
        return flat.read_bytes()
    finally:
        flat.unlink()


def test_a_drained_guest_takes_its_overlay_to_where_its_base_is(
    rig: Rig, service: MakeService
) -> None:
    """From policy and tag to the record. Dies when the guest is moved in another way, or when a
    host that turned it away, if that was tried first, is asked again and again."""
    provide(rig, "h2")
    guest = rig.start("on-base", "h1", replace(SPEC, metadata=TAGGED))
    running = service(f"{calm('quiet')}\n[methods]\noverlay = true\n")
    running.start()
    running.ctl("drain", "h1")
    running.until(lambda: guest.where() == ["h2"], 120, "drain")
    settled(running)
    last, *before = running.migrations()
    assert (last["method"], last["target"], last["outcome"]) == ("overlay", "h2", "done")
    assert [(m["target"], m["outcome"]) for m in before] in ([], [("h3", "objected")])
    assert all(BASE in m["detail"] for m in before)
    went_on(guest)


def test_the_disk_of_another_vm_is_not_written_over(rig: Rig, service: MakeService) -> None:
    """It is shut off, so that nothing locks its image, and libvirt would copy ours into it. Dies
    when what the target has at a disk's path is not looked at."""
    guest = rig.start("on-base", "h1", GuestSpec(disk=Disk("local", 32, "raw")))
    h2, h3 = rig.host("h2"), rig.host("h3")
    theirs = images(h2) / "on-base.raw"
    theirs.write_bytes(b"theirs" * 1000)
    definition = GuestSpec(disk=Disk("local", 32, "raw")).xml("other")
    h2.ask(lambda c: c.defineXML(definition.replace("other.raw", "on-base.raw")).name())
    running = service(f"{calm('quiet')}\n[methods]\nstorage = true\n{NOT_TO_H3}")
    running.start()
    running.ctl("drain", "h1")
    running.until(running.migrations, 60, "a move is thought of")
    running.after_cycles(2)
    [tried] = running.migrations()
    assert (tried["outcome"], tried["target"]) == ("objected", "h2")
    assert "h2 has a file /lab/local/on-base.raw already" in tried["detail"]
    assert (guest.where(), theirs.read_bytes()) == (["h1"], b"theirs" * 1000)
    h2.ask(lambda c: c.lookupByName("other").undefine())
    h2.delete_images("on-base.*")
    assert h3.guests() == {}


NOT_TO_H3 = """
[[constraint]]
vms = ["on-base"]
kind = "avoid"
hosts = ["h3"]
"""
