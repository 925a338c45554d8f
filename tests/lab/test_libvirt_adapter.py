"""The libvirt adapter on real hosts: what it reads, what it does, and what faults make of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import libvirt
import pytest

from balancerd.adapters.libvirt import HostConfig, LibvirtBackend
from balancerd.core.model import Exclusion, ExclusionKind, Method, VMState
from balancerd.core.moving.tie import tie
from balancerd.core.observation import HostReading, JobReport, Observation, Presence, VMReading
from balancerd.ports import BackendError
from tests.lab.rig import Disk, Guest, GuestSpec, Host, Load, Rig

T = TypeVar("T")
MIB = 2**20
ALL = ("h1", "h2", "h3")
TAGS = "<b:policy xmlns:b='urn:balancerd:policy' apart='web'/>"
SNAPSHOT = "<domainsnapshot><name>before</name></domainsnapshot>"
NOVA = "<n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/>"


def config(host: Host) -> HostConfig:
    return HostConfig(
        host.name, host.uri, migration_uri=host.migration_uri, shared=("/lab/shared",)
    )


@pytest.fixture
def backend(standing_rig: Rig) -> Iterator[LibvirtBackend]:
    with LibvirtBackend([config(host) for host in standing_rig.hosts]) as backend:
        yield backend


@pytest.fixture(scope="module")
def crew(standing_rig: Rig) -> Iterator[dict[str, Guest]]:
    """Three guests on h1: one of the site's storage, one of h1's own, one that belongs to Nova."""
    standing_rig.reset()
    guests = standing_rig.start_all(
        {
            "web": ("h1", GuestSpec(disk=Disk("shared"), metadata=TAGS)),
            "own": ("h1", GuestSpec(disk=Disk("local", 32, "raw"), vcpus=2)),
            "theirs": ("h1", GuestSpec(metadata=NOVA)),
        }
    )
    yield guests
    for guest in guests.values():
        guest.remove()


@pytest.fixture
def web(crew: dict[str, Guest]) -> Guest:
    """A guest on h1 with a shared disk, idle, as good as new."""
    return at_home(crew["web"])


def at_home(guest: Guest) -> Guest:
    """Back on h1 and idle, whatever a failed test left behind."""
    for host in guest.where()[1:]:
        guest.rig.host(guest.where()[0]).ask(lambda c: c.lookupByName(guest.name).abortJob())

        def gone(host: str = host) -> bool:
            return host not in guest.where()

        until(gone, 20, "the half is gone")
    guest.set_load(Load())
    if guest.where() != ["h1"]:
        guest.migrate("h1")
    guest.reset_gap()
    return guest


def until(holds: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def gathered(
    read: Callable[[], Iterable[T]], enough: Callable[[list[T]], object], seconds: float, what: str
) -> list[T]:
    """All that was read, again and again, until it is enough."""
    found: list[T] = []

    def holds() -> object:
        found.extend(read())
        return enough(found)

    until(holds, seconds, what)
    return found


def tells_of_an_end(reports: list[JobReport]) -> bool:
    """Whether one of them is of an end."""
    return any(report.ended for report in reports)


def reading(observation: Observation, host: str) -> HostReading:
    return next(found for found in observation.readings if found.host == host)


def vm(observation: Observation, host: str, name: str) -> VMReading:
    return next(found for found in reading(observation, host).vms if found.vm.name == name)


def uuid_of(guest: Guest) -> str:
    return str(guest.host().ask(lambda c: c.lookupByName(guest.name).UUIDString()))


def pair(backend: LibvirtBackend, name: str, uuid: str) -> tuple[Presence, Presence]:
    presence = backend.locate(name, uuid, ("h1", "h2")).presence
    return presence["h1"], presence["h2"]


def begin(
    backend: LibvirtBackend, guest: Guest, mib_per_s: int, method: Method = Method.PRE_COPY
) -> str:
    """Start a migration from h1 to h2 and wait until memory flows; the guest's UUID."""
    uuid = uuid_of(guest)
    backend.locate(guest.name, uuid, ALL)
    backend.migrate(guest.name, "h1", "h2", method, mib_per_s * MIB, 0.1)
    progressing(backend)
    return uuid


def progressing(backend: LibvirtBackend, beyond: int = 0) -> JobReport:
    """The first report of a migration that has processed more than so many bytes."""
    found: list[JobReport] = []

    def flows() -> bool:
        for report in backend.reports():
            assert not report.ended, report.error
            if report.progress and report.progress.processed > beyond:
                found.append(report)
        return bool(found)

    until(flows, 20, "memory flows")
    return found[-1]


def ended(backend: LibvirtBackend, seconds: float = 60) -> JobReport:
    """The end of the only migration under way; told once, so nothing may follow it."""
    told = gathered(backend.reports, tells_of_an_end, seconds, "the end is reported")
    assert backend.reports() == ()
    [end] = (report for report in told if report.ended)
    return end


def unharmed(guest: Guest) -> None:
    counter = guest.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0)
    assert counter.silent_s < 2


# ---- observing ----


def test_a_reading_tells_everything_of_a_real_host_and_its_guests(
    backend: LibvirtBackend, web: Guest
) -> None:
    host = reading(backend.observe(), "h1")
    assert host.error == ""
    assert host.facts is not None
    assert host.facts.uuid == web.rig.host("h1").uuid
    assert (host.facts.cores, host.facts.cpu, host.facts.memory) == (1, 1.0, 2048 * MIB)
    assert host.facts.cpu_model
    assert host.counters is not None
    assert host.counters.memory_total == 2048 * MIB
    assert 0 < host.counters.memory_available < 2048 * MIB
    assert [found.vm.name for found in host.vms] == ["own", "theirs", "web"]


def test_definitions_of_real_guests_say_what_ties_them_down(
    backend: LibvirtBackend, web: Guest
) -> None:
    observation = backend.observe()
    found = vm(observation, "h1", "web").vm
    assert (found.memory, found.vcpus, found.uuid) == (128 * MIB, 1, uuid_of(web))
    assert (found.persistent, found.autostart, found.tags) == (True, False, {"apart": "web"})
    [disk] = found.disks
    assert (disk.source, disk.shared, disk.safe_cache) == ("/lab/shared/web.qcow2", True, True)
    assert disk.size == 64 * MIB
    own = vm(observation, "h1", "own").vm
    assert ([disk.shared for disk in own.disks], own.vcpus) == ([False], 2)
    assert vm(observation, "h1", "theirs").vm.owner == "OpenStack Nova"


def test_counters_of_a_busy_guest_and_its_host_grow_with_its_work(
    backend: LibvirtBackend, web: Guest
) -> None:
    web.set_load(Load(cpu_percent=60))
    before = backend.observe()
    time.sleep(3)
    after = backend.observe()
    old, new = vm(before, "h1", "web").counters, vm(after, "h1", "web").counters
    assert old is not None
    assert new is not None
    assert old.cpu_seconds is not None
    assert new.cpu_seconds is not None
    used = new.cpu_seconds - old.cpu_seconds
    elapsed = reading(after, "h1").at - reading(before, "h1").at
    assert old.steal_seconds is not None
    assert new.steal_seconds is not None
    waited = new.steal_seconds - old.steal_seconds  # what a busy machine did not give it
    assert (used + waited) / elapsed > 0.2
    assert used / elapsed < 1.1
    assert new.memory_used is not None
    assert new.memory_used > 64 * MIB
    busy = [reading(o, "h1").counters for o in (before, after)]
    assert busy[0] is not None
    assert busy[1] is not None
    assert used * 0.8 < busy[1].cpu_busy - busy[0].cpu_busy < elapsed * 1.2


def test_metadata_changed_on_a_live_guest_is_seen_in_the_next_reading(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies without the events: nothing else in the statistics changes with the metadata."""
    assert vm(backend.observe(), "h1", "web").vm.tags == {"apart": "web"}

    def tag(words: str) -> None:
        web.rig.host("h1").ask(
            lambda c: c.lookupByName("web").setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                f"<policy {words}/>",
                "b",
                "urn:balancerd:policy",
                libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG,
            )
        )

    tag("apart='web' pin='h1'")
    pinned = {"apart": "web", "pin": "h1"}
    until(lambda: vm(backend.observe(), "h1", "web").vm.tags == pinned, 2, "the tag is seen")
    tag("apart='web'")


def test_a_host_that_hangs_costs_the_others_nothing_and_shows_within_20_seconds(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies when a silent host is waited for each time, or when opening has no deadline."""
    hosts = [config(host) for host in web.rig.hosts]
    host, begun = web.rig.host("h3"), time.monotonic()
    backend.observe()
    host.freeze_libvirtd()
    try:
        assert "no answer" in reading(backend.observe(), "h3").error
        assert time.monotonic() - begun < 20
        with LibvirtBackend(hosts[:2]) as others:
            others.observe()
            cost: list[tuple[float, float]] = []
            while time.monotonic() - begun < 28:  # beyond keepalive, and into reopening
                cost.append((timed(backend.observe), timed(others.observe)))
                observation = backend.observe()
                assert reading(observation, "h3").error
                assert [reading(observation, name).error for name in ("h1", "h2")] == ["", ""]
                time.sleep(0.5)
        with_it, without = (min(times) for times in zip(*cost, strict=True))
        # Ten milliseconds are for a busy machine; waiting for the silent host would take seconds.
        assert with_it < without * 1.1 + 0.010
        assert backend.hanging <= 4
    finally:
        host.thaw_libvirtd()
    until(lambda: not reading(backend.observe(), "h3").error, 60, "h3 is back")
    until(lambda: backend.hanging == 0, 60, "nothing hangs any more")


def timed(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def test_a_guest_that_stands_still_costs_its_host_a_minute_and_then_nobody_anything(
    backend: LibvirtBackend, web: Guest
) -> None:
    """A QEMU that hangs on its storage answers its libvirtd no more. Dies when each reading asks it
    once more: nobody would know anything of its host until it comes back."""
    web.host().kill_qemu("web", signal.SIGSTOP)

    def owners() -> dict[str, str]:
        found = {shown.vm.name: shown.vm.owner for shown in reading(backend.observe(), "h1").vms}
        return {name: found[name] for name in ("web", "own") if name in found}

    until(lambda: reading(backend.observe(), "h1").error, 20, "a reading waits for it")
    until(owners, 90, "its host is read again")
    assert owners()["own"] == ""
    assert owners()["web"].startswith("unknown: ")
    assert owners()["web"].endswith("its QEMU does not answer")
    assert vm(backend.observe(), "h1", "web").vm.memory == 128 * MIB
    web.host().kill_qemu("web", signal.SIGCONT)
    until(lambda: owners() == {"web": "", "own": ""}, 20, "it is well again")


def test_a_host_is_read_again_after_its_libvirtd_was_killed_and_restarted(
    backend: LibvirtBackend, web: Guest
) -> None:
    assert not reading(backend.observe(), "h2").error
    host = web.rig.host("h2")
    host.kill_libvirtd()
    until(lambda: "refused" in reading(backend.observe(), "h2").error, 10, "it shows")
    host.start_libvirtd()
    until(lambda: not reading(backend.observe(), "h2").error, 40, "h2 is back")


def test_neither_a_migration_nor_a_restarted_libvirtd_leaves_a_connection_open(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies when connections are closed with their events registered, which hold them: after months
    of migrations and restarts there were thousands, each a socket or an ssh."""
    host = web.rig.host("h2")
    backend.observe()
    begin(backend, web, 40)
    before = open_files() - 1  # the migration's own connection is a socket and an eventfd
    assert ended(backend).error == ""
    until(lambda: open_files() < before, 10, "the migration's connection is gone")
    least = open_files()
    for _ in range(3):
        host.kill_libvirtd()
        until(lambda: "refused" in reading(backend.observe(), "h2").error, 10, "it shows")
        host.start_libvirtd()
        until(lambda: not reading(backend.observe(), "h2").error, 40, "h2 is back")
    pair(backend, "web", uuid_of(web))
    until(lambda: open_files() <= least, 10, "each lost connection is gone")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_cut_cable_is_a_gap_and_asking_for_a_vm_behind_it_ends_in_time(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = uuid_of(web)
    host = web.rig.host("h2")
    host.cut("mgmt")
    try:
        begun = time.monotonic()
        assert pair(backend, "web", uuid) == (Presence.RUNNING, Presence.UNREACHABLE)
        assert time.monotonic() - begun < 7
        assert reading(backend.observe(), "h2").error
    finally:
        host.mend("mgmt")
    until(lambda: not reading(backend.observe(), "h2").error, 60, "h2 is back")


# ---- migrating ----


def test_a_migration_reports_progress_and_one_end_with_its_figures(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = begin(backend, web, 20)
    assert pair(backend, "web", uuid) == (Presence.RUNNING_WITH_JOB, Presence.INCOMING)
    observation = backend.observe()
    assert vm(observation, "h1", "web").job is not None
    assert vm(observation, "h2", "web").state is VMState.INCOMING
    progress = progressing(backend, 20 * MIB).progress
    assert progress is not None
    assert progress.total > progress.remaining > 0
    assert progress.elapsed > 0.5
    end = ended(backend)
    assert (end.error, end.source, end.target) == ("", "h1", "h2")
    assert end.bytes is not None
    assert 50 * MIB < end.bytes < 200 * MIB
    assert end.iterations is not None
    assert end.iterations >= 1
    assert end.downtime is not None
    assert 0 < end.downtime < 2
    assert end.seconds is not None
    assert 2 < end.seconds < 30
    assert pair(backend, "web", uuid) == (Presence.ABSENT, Presence.RUNNING)
    assert vm(backend.observe(), "h2", "web").vm.persistent
    unharmed(web)


def test_the_bandwidth_cap_is_obeyed_and_can_be_changed_on_the_way(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies when bytes per second are passed on as if they were MiB/s, or not at all.

    The cap is never exceeded, and reached in some second: a busy machine does not reach it in all.
    """
    begin(backend, web, 5)
    start = time.monotonic()
    told = [progressing(backend).progress]
    for _ in range(5):
        time.sleep(1)
        told.append(progressing(backend).progress)
    rates = [
        (after.processed - before.processed) / (after.elapsed - before.elapsed) / (5 * MIB)
        for before, after in pairwise(told)
        if before is not None and after is not None
    ]
    assert 0.85 < max(rates) < 1.25
    assert sum(rates) / len(rates) < 1.15
    backend.set_bandwidth("web", "h1", 100 * MIB)
    backend.set_downtime("web", "h1", 0.4)
    ended(backend)
    assert time.monotonic() - start < 15  # 20 s at the old cap
    unharmed(web)


def test_an_aborted_migration_ends_with_its_error_and_the_vm_stays(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = begin(backend, web, 5)
    backend.abort("web", "h1")
    end = ended(backend, 10)
    assert (end.error_code, end.error_domain) == (78, 10)
    assert end.bytes is not None
    until(
        lambda: pair(backend, "web", uuid) == (Presence.RUNNING, Presence.ABSENT), 5, "cleaned up"
    )
    with pytest.raises(BackendError, match="its job is: none"):
        backend.abort("web", "h1")
    unharmed(web)


def test_a_second_migration_of_the_same_vm_is_refused(backend: LibvirtBackend, web: Guest) -> None:
    begin(backend, web, 5)
    with pytest.raises(BackendError, match="in hand already"):
        backend.migrate("web", "h1", "h3", Method.PRE_COPY, 5 * MIB, 0.1)
    backend.abort("web", "h1")
    assert ended(backend).target == "h2"


def test_a_target_libvirtd_killed_on_the_way_ends_it_and_the_source_runs_on(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = begin(backend, web, 5)
    host = web.rig.host("h2")
    host.kill_libvirtd()
    end = ended(backend, 30)
    assert end.error
    assert pair(backend, "web", uuid) == (Presence.RUNNING, Presence.UNREACHABLE)
    host.start_libvirtd()
    until(
        lambda: pair(backend, "web", uuid) == (Presence.RUNNING, Presence.ABSENT), 60, "both tell"
    )
    unharmed(web)


def test_a_source_libvirtd_killed_on_the_way_ends_it_and_both_tell_after_its_restart(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = begin(backend, web, 5)
    host = web.rig.host("h1")
    host.kill_libvirtd()
    end = ended(backend, 30)
    assert (end.error_code, end.error_domain) == (38, 7)
    host.start_libvirtd()
    until(
        lambda: pair(backend, "web", uuid) == (Presence.RUNNING, Presence.ABSENT), 60, "both tell"
    )
    unharmed(web)


def test_a_source_that_hangs_ends_the_call_but_not_the_migration_which_can_be_adopted(
    backend: LibvirtBackend, web: Guest
) -> None:
    """The end only says that the call returned: what became of the VM, both hosts say."""
    uuid = begin(backend, web, 2)
    host = web.rig.host("h1")
    host.freeze_libvirtd()
    try:
        assert ended(backend, 40).error
        assert pair(backend, "web", uuid)[0] is Presence.UNREACHABLE
    finally:
        host.thaw_libvirtd()
    found: list[Presence] = []

    def answers() -> bool:
        found[:] = pair(backend, "web", uuid)
        return found[0] is not Presence.UNREACHABLE

    until(answers, 40, "h1 answers")
    if found[0] is Presence.RUNNING_WITH_JOB:
        backend.adopt("web", "h1", "h2")
        with suppress(BackendError):  # it may be over
            backend.set_bandwidth("web", "h1", 100 * MIB)
        ended(backend)
        assert pair(backend, "web", uuid) == (Presence.ABSENT, Presence.RUNNING)
    else:
        assert Presence.RUNNING in found
    # libvirtd itself gives the word for the switch-over, so the guest waited for it meanwhile.
    until(lambda: web.counter().silent_s < 2, 20, "the guest goes on")
    unharmed(web)


def test_an_order_that_a_hanging_host_takes_up_too_late_is_not_carried_out(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies without the look at the order's age: the VM would move at any later time."""
    uuid, host = uuid_of(web), web.rig.host("h1")
    backend.locate("web", uuid, ALL)
    host.freeze_libvirtd()
    try:
        backend.migrate("web", "h1", "h2", Method.PRE_COPY, 100 * MIB, 0.3)
        time.sleep(11)
        assert backend.reports() == ()
    finally:
        host.thaw_libvirtd()
    assert "too late" in ended(backend, 30).error
    assert pair(backend, "web", uuid) == (Presence.RUNNING, Presence.ABSENT)
    unharmed(web)


SECOND_PROCESS = """
import sys, time
from balancerd.adapters.libvirt import HostConfig, LibvirtBackend
from balancerd.core.model import Method
hosts = [HostConfig(f"h{n}", uri, migration_uri=to) for n, (uri, to) in enumerate(
    zip(sys.argv[2:5], sys.argv[5:8]), 1)]
with LibvirtBackend(hosts) as backend:
    backend.locate("web", sys.argv[1], ["h1", "h2"])
    backend.migrate("web", "h1", "h2", Method.PRE_COPY, 5 * 2**20, 0.1)
    time.sleep(60)
"""


def test_a_migration_of_a_killed_process_is_adopted_and_its_end_told_once(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies when the migration is not peer to peer: it ends with the process that asked for it;
    and when the arriving half is asked for its definition: that call lasts as long as the job.
    """
    uuid, hosts = uuid_of(web), web.rig.hosts
    other = subprocess.Popen(
        [sys.executable, "-c", SECOND_PROCESS, uuid]
        + [host.uri for host in hosts]
        + [host.migration_uri for host in hosts],
        cwd=Path(__file__).parents[2],
    )
    migrating = (Presence.RUNNING_WITH_JOB, Presence.INCOMING)
    until(lambda: pair(backend, "web", uuid) == migrating, 60, "the other migrates")
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    first = backend.observe()  # of a balancerd that knows nothing yet, of a VM with a job
    assert vm(first, "h1", "web").job is not None
    assert vm(first, "h1", "web").vm.tags == {"apart": "web"}
    assert (vm(first, "h2", "web").state, reading(first, "h2").error) == (VMState.INCOMING, "")
    backend.adopt("web", "h1", "h2")
    backend.adopt("web", "h1", "h2")
    progress = progressing(backend).progress
    assert progress is not None
    assert progress.total > 100 * MIB
    backend.set_bandwidth("web", "h1", 100 * MIB)
    end = ended(backend)
    assert (end.error, end.target) == ("", "h2")
    assert end.downtime is not None
    assert end.bytes is not None
    assert pair(backend, "web", uuid) == (Presence.ABSENT, Presence.RUNNING)
    unharmed(web)


def test_adopting_what_is_over_tells_its_end_at_once(backend: LibvirtBackend, web: Guest) -> None:
    backend.locate("web", uuid_of(web), ALL)
    backend.adopt("web", "h1", "h2")
    assert ended(backend, 10).error == ""


@pytest.mark.parametrize("method", [Method.AUTO_CONVERGE, Method.POST_COPY])
def test_the_other_live_methods_bring_a_writing_guest_over(
    backend: LibvirtBackend, web: Guest, method: Method
) -> None:
    web.set_load(Load(dirty_mb_per_s=5, working_set_mib=16))
    uuid = begin(backend, web, 30, method)
    assert ended(backend).error == ""
    assert pair(backend, "web", uuid)[1] is Presence.RUNNING
    counter = web.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0)


def test_a_local_disk_goes_along_and_a_shared_one_is_not_copied(
    backend: LibvirtBackend, web: Guest, crew: dict[str, Guest]
) -> None:
    """Dies when the disks are not named: libvirt then copies shared disks onto themselves."""
    own = crew["own"]
    uuid = begin(backend, own, 100, Method.STORAGE)
    assert ended(backend).error == ""
    assert pair(backend, "own", uuid) == (Presence.ABSENT, Presence.RUNNING)
    assert own.inner()["disk_errors"] == 0
    backend.locate("web", uuid_of(web), ALL)
    backend.migrate("web", "h1", "h2", Method.STORAGE, 100 * MIB, 0.1)
    assert "no local disk" in ended(backend).error
    unharmed(own)


# ---- the alphabet of the state-pair table, and the acts it asks for ----


def on(guest: Guest, host: str, act: Callable[[libvirt.virDomain], object]) -> None:
    guest.rig.host(host).ask(lambda c: act(c.lookupByName(guest.name)), timeout=60)


def push(guest: Guest, flags: int) -> None:
    """Migrate from h1 to h2 without any balancerd, with flags that it does not use."""
    goal = guest.rig.host("h2")
    flags |= libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    parameters: Any = {libvirt.VIR_MIGRATE_PARAM_URI: goal.migration_uri}  # annotated as text
    on(guest, "h1", lambda domain: domain.migrateToURI3(goal.uri, parameters, flags))


def test_a_running_vm_is_neither_destroyed_nor_undefined(
    backend: LibvirtBackend, web: Guest
) -> None:
    """Dies when an act does not look at the state."""
    backend.locate("web", uuid_of(web), ALL)
    for act in (backend.resume, backend.destroy, backend.undefine):
        with pytest.raises(BackendError, match="refused for web: it is running"):
            act("web", "h1")
    unharmed(web)


def test_a_namesake_is_not_touched(backend: LibvirtBackend, web: Guest) -> None:
    """Dies when an act looks its VM up by name."""
    rig, uuid = web.rig, uuid_of(web)
    spec = GuestSpec(uuid="11111111-2222-3333-4444-555555555555")
    rig.host("h2").ask(lambda c: c.defineXML(spec.xml("web")))
    try:
        assert pair(backend, "web", uuid) == (Presence.RUNNING, Presence.ABSENT)
        backend.undefine("web", "h2")
        assert [domain for domain in rig.host("h2").guests() if domain == "web"] == ["web"]
    finally:
        on(web, "h2", lambda domain: domain.undefine())


def test_a_vm_that_was_never_located_is_not_acted_upon(backend: LibvirtBackend, web: Guest) -> None:
    """A name alone does not say which VM is meant."""
    for act in (backend.resume, backend.destroy, backend.undefine):
        with pytest.raises(BackendError, match="has not been established"):
            act(web.name, "h1")


def test_a_migration_that_leaves_definitions_behind_can_be_tidied(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = uuid_of(web)
    on(web, "h1", lambda domain: domain.setAutostart(1))
    push(web, libvirt.VIR_MIGRATE_PERSIST_DEST)
    assert pair(backend, "web", uuid) == (Presence.MIGRATED, Presence.RUNNING)
    left = vm(backend.observe(), "h1", "web")
    assert (left.state, left.vm.autostart) == (VMState.MIGRATED, True)
    backend.undefine("web", "h1")
    backend.set_autostart("web", "h2", autostart=True)
    assert pair(backend, "web", uuid) == (Presence.ABSENT, Presence.RUNNING)
    assert vm(backend.observe(), "h2", "web").vm.autostart
    backend.set_autostart("web", "h2", autostart=False)
    unharmed(web)


def test_a_vm_handed_over_paused_is_resumed_at_its_target(
    backend: LibvirtBackend, web: Guest
) -> None:
    uuid = uuid_of(web)
    flags = libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    push(web, flags | libvirt.VIR_MIGRATE_PAUSED)
    assert pair(backend, "web", uuid) == (Presence.ABSENT, Presence.HANDED_OVER)
    backend.resume_arrived("web", "h2")
    assert pair(backend, "web", uuid) == (Presence.ABSENT, Presence.RUNNING)


# ---- the same, on guests of one test alone ----


@pytest.fixture
def lone(rig: Rig) -> Guest:
    """A guest on h1 of a rig that is for one test alone."""
    return rig.start("lone", "h1", GuestSpec(disk=Disk("shared")))


def test_a_vm_that_is_shut_off_moves_cold_and_a_running_one_does_not(
    backend: LibvirtBackend, rig: Rig
) -> None:
    guest = rig.define("cold", "h1", GuestSpec(disk=Disk("shared")))
    uuid = str(rig.host("h1").ask(lambda c: c.lookupByName("cold").UUIDString()))
    assert pair(backend, "cold", uuid) == (Presence.SHUTOFF, Presence.ABSENT)
    backend.migrate("cold", "h1", "h2", Method.COLD, 5 * MIB, 0.1)
    assert ended(backend).error == ""
    assert pair(backend, "cold", uuid) == (Presence.ABSENT, Presence.SHUTOFF)
    guest.start("h2", wait=False)
    backend.migrate("cold", "h2", "h1", Method.COLD, 5 * MIB, 0.1)
    assert "it runs" in ended(backend).error
    assert pair(backend, "cold", uuid) == (Presence.ABSENT, Presence.RUNNING)


def test_a_paused_and_a_shut_off_and_a_crashed_vm_are_told_apart_and_left_alone(
    backend: LibvirtBackend, lone: Guest
) -> None:
    uuid = uuid_of(lone)
    backend.locate("lone", uuid, ALL)
    on(lone, "h1", lambda domain: domain.suspend())
    assert pair(backend, "lone", uuid) == (Presence.PAUSED, Presence.ABSENT)
    for act in (backend.resume, backend.destroy, backend.undefine):
        with pytest.raises(BackendError, match="refused for lone: it is paused"):
            act("lone", "h1")
    on(lone, "h1", lambda domain: domain.resume())
    lone.kill_qemu("h1")
    until(lambda: pair(backend, "lone", uuid)[0] is Presence.CRASHED, 10, "libvirt notices")
    on(lone, "h1", lambda domain: domain.create())
    on(lone, "h1", lambda domain: domain.destroy())
    assert pair(backend, "lone", uuid)[0] is Presence.SHUTOFF
    backend.undefine("lone", "h1")
    backend.undefine("lone", "h1")  # nothing left to do
    assert pair(backend, "lone", uuid) == (Presence.ABSENT, Presence.ABSENT)


def test_a_transient_vm_stays_without_definition(backend: LibvirtBackend, lone: Guest) -> None:
    uuid = uuid_of(lone)
    on(lone, "h1", lambda domain: domain.undefine())
    backend.locate("lone", uuid, ALL)
    backend.migrate("lone", "h1", "h2", Method.PRE_COPY, 100 * MIB, 0.3)
    assert ended(backend).error == ""
    assert not vm(backend.observe(), "h2", "lone").vm.persistent
    assert pair(backend, "lone", uuid) == (Presence.ABSENT, Presence.RUNNING)


def test_in_the_gap_between_the_halves_the_source_waits_paused_for_a_third_party(
    backend: LibvirtBackend, lone: Guest
) -> None:
    """The one state that libvirt leaves to others: the source's half paused, its job forgotten.

    The target's libvirtd hangs while the source waits for it to finish, and the source's dies.
    Either half may have won: what the table then asks for must be possible, and nothing else.
    """
    uuid, source, goal = uuid_of(lone), lone.rig.host("h1"), lone.rig.host("h2")
    begin(backend, lone, 5)
    goal.freeze_libvirtd()
    try:
        # The rest has to be over before the source misses its peer, which takes it 6 s here.
        backend.set_bandwidth("lone", "h1", 1000 * MIB)
        backend.set_downtime("lone", "h1", 2.0)
        until(lambda: source.guests()["lone"] == (3, 2), 5, "the memory is over")
        time.sleep(2)  # for libvirtd to note down that only the target's word is missing
        source.kill_libvirtd()
        assert ended(backend, 30).error
        source.start_libvirtd()
        until(
            lambda: pair(backend, "lone", uuid) == (Presence.OUTGOING, Presence.UNREACHABLE),
            40,
            "the source says it is paused",
        )
    finally:
        goal.thaw_libvirtd()
    settled = (Presence.ABSENT, Presence.RUNNING, Presence.SHUTOFF, Presence.FAILED)
    until(lambda: pair(backend, "lone", uuid)[1] in settled, 60, "the target has settled")
    won = pair(backend, "lone", uuid)[1] is Presence.RUNNING
    if won:
        backend.destroy("lone", "h1")
        backend.undefine("lone", "h1")
        assert pair(backend, "lone", uuid) == (Presence.ABSENT, Presence.RUNNING)
    else:
        backend.resume("lone", "h1")
        backend.undefine("lone", "h2")
        assert pair(backend, "lone", uuid) == (Presence.RUNNING, Presence.ABSENT)
    counter = lone.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0)


def test_a_vm_with_snapshots_is_moved_by_no_method(backend: LibvirtBackend, lone: Guest) -> None:
    """Were this libvirt's refusal gone, so could be ours."""
    on(lone, "h1", lambda domain: domain.snapshotCreateXML(SNAPSHOT).getName())
    found = vm(backend.observe(), "h1", "lone").vm
    assert (found.snapshots, tie(found)) == (
        True,
        Exclusion("lone", ExclusionKind.SNAPSHOTS, "libvirt moves no VM that has snapshots"),
    )
    backend.locate("lone", uuid_of(lone), ALL)
    backend.migrate("lone", "h1", "h2", Method.PRE_COPY, 100 * MIB, 0.1)
    assert "cannot migrate domain with 1 snapshots" in ended(backend).error
    on(lone, "h1", lambda domain: domain.snapshotLookupByName("before").delete())


def test_memory_that_is_saved_is_not_left_behind(backend: LibvirtBackend, lone: Guest) -> None:
    """Dies when libvirt is asked: it carries the definition alone, and the VM boots anew."""
    uuid = uuid_of(lone)
    backend.locate("lone", uuid, ALL)
    on(lone, "h1", lambda domain: domain.managedSave())
    assert vm(backend.observe(), "h1", "lone").vm.left_behind == ("its saved memory",)
    backend.migrate("lone", "h1", "h2", Method.COLD, 5 * MIB, 0.1)
    assert "its memory is saved here" in ended(backend).error
    lone.start("h1", wait=False)
    until(lambda: lone.inner(), 30, "it goes on")
    unharmed(lone)
