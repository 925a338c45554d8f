"""The lab itself: what later tests take for granted about hosts, guests, faults and counters."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from tests.lab.rig import (
    Disk,
    Guest,
    GuestSpec,
    HostSilentError,
    HostSpec,
    LabError,
    Load,
    Rig,
)
from tests.lab.rig.console import Console

RUNNING, PAUSED, SHUT_OFF = 1, 3, 5


@pytest.fixture(scope="module")
def pair(standing_rig: Rig) -> Iterator[tuple[Guest, Guest]]:
    """Two guests, booted side by side: one with a disk all hosts see, one with a disk of h2's."""
    standing_rig.reset()
    guests = standing_rig.start_all(
        {
            "common": ("h1", GuestSpec(disk=Disk("shared"))),
            "own": ("h2", GuestSpec(disk=Disk("local", 32, "raw"), vcpus=2)),
        }
    )
    yield guests["common"], guests["own"]
    for guest in guests.values():
        guest.remove()


@pytest.fixture
def common(pair: tuple[Guest, Guest]) -> Guest:
    """A guest of one vCPU, idle, back on h1."""
    return at_home(pair[0])


@pytest.fixture
def own(pair: tuple[Guest, Guest]) -> Guest:
    """A guest of two vCPUs with a local disk, idle, wherever it is."""
    pair[1].set_load(Load(threads=2, tick_ms=50))
    return pair[1]


def at_home(guest: Guest) -> Guest:
    guest.set_load(Load(tick_ms=50))
    if guest.where() != ["h1"]:
        guest.migrate("h1")
    guest.reset_gap()
    return guest


def unharmed(guest: Guest) -> None:
    """It ran on, in one piece: beats without a hole, one boot, never twice."""
    counter = guest.counter()
    assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0)
    assert counter.silent_s < 2


def job_running(guest: Guest, host: str) -> bool:
    return bool(guest.rig.host(host).ask(lambda c: c.lookupByName(guest.name).jobInfo()[0]))


# ---- hosts ----


def test_hosts_are_machines_of_their_own(standing_rig: Rig) -> None:
    names, uuids = [], []
    for host in standing_rig.hosts:
        names.append(host.ask(lambda c: c.getHostname()))
        uuids.append(host.ask(lambda c: c.getCapabilities()).split("<uuid>")[1].split("<")[0])
    assert names == ["h1", "h2", "h3"]
    assert uuids == [host.uuid for host in standing_rig.hosts]
    assert len(set(uuids)) == 3


def test_sizes_are_what_was_asked_for(standing_rig: Rig) -> None:
    for host in standing_rig.hosts:
        info = host.ask(lambda c: c.getInfo())
        memory = host.ask(lambda c: c.getMemoryStats(-1))
        assert (info[1], info[2]) == (2048, 1)
        assert memory["total"] == 2048 << 10
        assert memory["total"] > memory["free"] > memory["total"] // 2


def test_two_labs_of_different_size_stand_side_by_side(standing_rig: Rig) -> None:
    with Rig.free(hosts=1, spec=HostSpec(cpus=4, memory_mib=3000)) as other:
        info = other.hosts[0].ask(lambda c: c.getInfo())
        assert (info[1], info[2]) == (3000, 4)
        assert other.hosts[0].uri not in [host.uri for host in standing_rig.hosts]
        assert other.hosts[0].uuid not in [host.uuid for host in standing_rig.hosts]


def test_a_busy_guest_shows_on_its_host_only(common: Guest) -> None:
    hosts = common.rig.hosts
    common.set_load(Load(cpu_percent=60))
    begun, before = time.monotonic(), [host.busy_seconds() for host in hosts]
    got = 3 * common.cpu_percent(3)[0] / 100
    assert got > 0.15  # as much as a busy machine lets it

    def used() -> list[float]:
        return [host.busy_seconds() - was for host, was in zip(hosts, before, strict=True)]

    common.rig.wait_for(lambda: used()[0] > got - 0.1, 20, "h1 has written down what it used")
    h1, _, h3 = used()
    lasted = time.monotonic() - begun  # longer than the guest was watched
    assert h1 < got + (lasted - 3) + 0.3 * lasted  # libvirtd's own work comes on top
    assert h3 < h1 / 2
    memory = [host.ask(lambda c: c.getMemoryStats(-1)) for host in common.rig.hosts]
    held = [(row["total"] - row["free"]) >> 10 for row in memory]
    assert held[0] > held[2] + 100  # a guest of 128 MiB against none


# ---- guests ----


def test_a_guest_answers(common: Guest, own: Guest) -> None:
    inner, two = common.inner(), own.inner()
    assert inner["vcpus"] == 1
    assert two["vcpus"] == 2
    assert inner["boot"] != two["boot"]
    assert inner["disk_boots"] == 1
    assert inner["disk_errors"] == 0
    assert inner["disk_writes"] > 0


def test_cpu_load_follows_the_knob(common: Guest) -> None:
    common.set_load(Load(cpu_percent=0))
    idle, _ = common.cpu_percent(2)
    common.set_load(Load(cpu_percent=60))
    time.sleep(0.3)
    before, start = common.inner()["burned_ms"], time.monotonic()
    got, waited = common.cpu_percent(2)
    burned = (common.inner()["burned_ms"] - before) / (time.monotonic() - start) / 10
    assert idle < 10  # as many guests as a lab has are not to fill the machine by doing nothing
    assert got > idle
    assert 45 < got + waited < 100
    assert 45 < burned < 80  # percent, by the guest's own account, which lags by some 0.2 s


def test_dirty_rate_follows_the_knob(common: Guest) -> None:
    common.set_load(Load(dirty_mb_per_s=20, working_set_mib=32))
    time.sleep(1)  # the working set is filled first
    before = common.inner()
    time.sleep(2)
    after = common.inner()
    pages = after["dirtied_pages"] - before["dirtied_pages"]
    rate = pages * 4096 / 1000 / (after["uptime_ms"] - before["uptime_ms"])
    assert 15 < rate < 22  # MB/s


def test_a_load_a_guest_cannot_bear_is_refused(common: Guest) -> None:
    with pytest.raises(libvirt.libvirtError, match="ws must be 1 to"):
        common.set_load(Load(dirty_mb_per_s=1, working_set_mib=500))


# ---- migration ----


def test_live_migration_of_a_busy_guest(common: Guest) -> None:
    common.set_load(Load(cpu_percent=20, dirty_mb_per_s=10, working_set_mib=32))
    before = common.inner()
    common.reset_gap()
    moved = common.migrate("h2")  # its shared disk passes libvirt's check: UNSAFE was not asked for
    assert common.where() == ["h2"]
    assert moved.memory_bytes > 30_000_000
    assert moved.iterations >= 2
    assert 0 < moved.downtime_ms < 2000
    time.sleep(0.5)
    after = common.inner()
    assert after["boot"] == before["boot"]
    assert after["ticks"] > before["ticks"]
    unharmed(common)
    assert common.counter().largest_gap_s < 2


def test_a_local_disk_moves_along(own: Guest) -> None:
    before = own.inner()
    with pytest.raises(libvirt.libvirtError) as refused:
        own.migrate("h1")
    assert refused.value.get_error_code() == libvirt.VIR_ERR_MIGRATE_UNSAFE
    own.migrate("h1", flags=libvirt.VIR_MIGRATE_NON_SHARED_DISK)
    time.sleep(1.5)
    after = own.inner()
    assert after["disk_writes"] > before["disk_writes"]
    assert after["disk_errors"] == 0
    image = (own.rig.host("h1").disk / "local/own.raw").read_bytes()
    assert image.startswith(b"LABDISK1")
    unharmed(own)


def test_bandwidth_cap_and_slow_link_are_obeyed(common: Guest) -> None:
    capped = common.migrate("h2", bandwidth_mib_per_s=40)
    assert capped.memory_bytes / capped.seconds < 42 * (1 << 20)
    common.rig.host("h1").limit("migration", 320)  # megabit: 40 MB/s
    slow = common.migrate("h1")
    common.rig.host("h1").limit("migration", None)
    assert 5e6 < slow.memory_bytes / slow.seconds < 42e6
    unharmed(common)


# ---- faults ----


def test_a_stopped_libvirtd_is_silent_and_comes_back(common: Guest) -> None:
    host = common.rig.host("h1")
    host.freeze_libvirtd()
    with pytest.raises(HostSilentError):
        host.ask(lambda c: c.getHostname(), timeout=1)
    assert common.rig.host("h2").ask(lambda c: c.getHostname()) == "h2"
    host.thaw_libvirtd()
    assert host.guests()["common"][0] == RUNNING
    unharmed(common)  # a guest does not need its libvirtd


def test_guests_outlive_a_killed_libvirtd(common: Guest) -> None:
    host = common.rig.host("h1")
    host.kill_libvirtd()
    with pytest.raises(libvirt.libvirtError):
        host.ask(lambda c: c.getHostname())
    host.start_libvirtd()
    assert host.guests()["common"][0] == RUNNING
    unharmed(common)


def test_cutting_one_network_leaves_the_other(common: Guest) -> None:
    host = common.rig.host("h2")
    reach = ["/bin/busybox", "ping", "-c", "1", "-W", "1"]
    host.cut("mgmt")
    with pytest.raises(TimeoutError):
        socket.create_connection((host.address, 16509), timeout=1)
    common.rig.host("h1").command(*reach, "10.78.{}.12".format(host.address.split(".")[2]))
    host.mend("mgmt")
    host.cut("migration")
    socket.create_connection((host.address, 16509), timeout=5).close()
    with pytest.raises(LabError):
        common.rig.host("h1").command(*reach, "10.78.{}.12".format(host.address.split(".")[2]))
    host.mend("migration")


def test_a_migration_over_a_cut_network_hangs_until_aborted(common: Guest) -> None:
    """No error comes by itself, and the copy stands still: what a watchdog must see."""
    rig = common.rig
    failure: list[libvirt.libvirtError] = []

    def migrate() -> None:
        try:
            common.migrate("h2", bandwidth_mib_per_s=10)
        except libvirt.libvirtError as error:
            failure.append(error)

    mover = threading.Thread(target=migrate)
    mover.start()
    rig.wait_for(lambda: job_running(common, "h1"), 10, "the migration's start")
    time.sleep(1.5)
    rig.host("h2").cut("migration")
    time.sleep(1)
    processed = _processed(common)
    time.sleep(1.5)
    assert _processed(common) == processed
    assert not failure
    rig.host("h1").ask(lambda c: c.lookupByName("common").abortJob())
    mover.join(15)
    assert not mover.is_alive()
    # Sometimes the broken channel is told instead of the abort.
    assert len(failure) == 1
    assert failure[0].get_error_code() in (
        libvirt.VIR_ERR_OPERATION_ABORTED,
        libvirt.VIR_ERR_OPERATION_FAILED,
    )
    rig.host("h2").mend("migration")
    assert common.where() == ["h1"]
    unharmed(common)


def _processed(guest: Guest) -> int:
    stats = guest.rig.host("h1").ask(lambda c: c.lookupByName(guest.name).jobStats())
    return int(stats["data_processed"])


def test_power_cycle(standing_rig: Rig) -> None:
    """A host without power is silent, its guests are gone; afterwards it knows them, shut off."""
    host = standing_rig.host("h3")
    standing_rig.start("brief", "h3", wait=False)
    host.power_off()
    assert not host.is_on()
    assert standing_rig.where("brief") == []
    with pytest.raises(OSError):
        socket.create_connection((host.address, 16509), timeout=0.5)
    host.power_on()
    assert standing_rig.guest("brief").states() == {"h3": (SHUT_OFF, 0)}
    standing_rig.guest("brief").remove()
    assert host.guests() == {}


# ---- the proof by counter ----


def console_of(tmp_path: Path, *lines: str) -> Console:
    path = tmp_path / "console"
    path.write_text("".join(f"{line}\r\n" for line in lines))
    return Console(path)


@pytest.mark.parametrize(
    ("lines", "boots", "holes", "doubles"),
    [
        (["beat aa 1 100 50", "beat aa 2 200 50"], 1, 0, 0),
        (["beat aa 1 100 50", "beat aa 4 400 50"], 1, 2, 0),
        (["beat aa 1 100 50", "beat aa 2 200 50", "beat aa 2 200 50"], 1, 0, 1),
        (["beat aa 1 100 50", "Kernel panic", "beat bb 1 100 50"], 2, 0, 0),
        (["beat aa 1 100 50", "beat bb 1 100 50", "beat aa 2 200 50"], 3, 1, 0),
    ],
)
def test_what_a_console_proves(
    tmp_path: Path, lines: list[str], boots: int, holes: int, doubles: int
) -> None:
    counter = console_of(tmp_path, *lines).counter()
    assert (counter.boots, counter.holes, counter.doubles) == (boots, holes, doubles)


def test_a_standstill_is_measured_from_outside(common: Guest) -> None:
    def stand_still(seconds: float) -> None:
        common.rig.host("h1").kill_qemu("common", signal.SIGSTOP)
        time.sleep(seconds)
        common.rig.host("h1").kill_qemu("common", signal.SIGCONT)
        time.sleep(0.3)

    common.reset_gap()
    stand_still(1.2)
    assert 1.1 < common.counter().largest_gap_s < 2.5
    unharmed(common)


def test_a_killed_guest_starts_again_from_its_disk(own: Guest) -> None:
    host, before = own.host().name, own.inner()
    own.kill_qemu()
    own.rig.wait_for(lambda: own.where() == [], 5, "libvirt's notice of the dead QEMU")
    assert own.states()[host][0] == SHUT_OFF
    own.start(host)
    after = own.inner()
    assert own.counter().boots == 2
    assert after["boot"] != before["boot"]
    assert before["disk_boots"] == 1
    own.rig.wait_for(lambda: own.inner()["disk_boots"] == 2, 5, "the disk's record")
    own.shut_down()
    own.rig.wait_for(lambda: own.where() == [], 10, "the guest's shutdown")


# ---- nothing stays ----


def traces(rig: Rig) -> list[str]:
    """Everything of a lab that this machine shows: files, control groups, links, processes."""
    label, found = rig.layout.label, []
    found += [str(p) for p in (rig.layout.run, rig.layout.storage) if p.exists()]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{label}")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(label)]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    found += [line for line in links.stdout.splitlines() if f" {rig.layout.link}" in line]
    found += [
        str(entry)
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if f"{label}/h1".encode() in _content(entry)
    ]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if label in line]
    return found


def killed(script: str) -> int:
    """Runs a script that takes a lab, prints its number and kills itself."""
    argv = [sys.executable, "-c", script]
    child = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    return int(child.stdout)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.usefixtures("standing_rig")
def test_down_leaves_nothing() -> None:
    with Rig.free(hosts=1) as rig:
        rig.start("left", "h1", GuestSpec(disk=Disk("local")), wait=False)
        assert len(traces(rig)) > 5
    assert traces(rig) == []


@pytest.mark.usefixtures("standing_rig")
def test_up_clears_what_a_killed_lab_left() -> None:
    """A test session is killed with its lab up: the next one finds the number free, and cleans."""
    script = (
        "from tests.lab.rig import Rig; import os, signal\n"
        "rig = Rig.free(hosts=1); rig.up(); rig.start('lost', 'h1', wait=False)\n"
        "print(rig.layout.instance, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    rig = Rig(hosts=1, instance=killed(script))
    assert len(traces(rig)) > 5
    rig.up()
    assert rig.placement() == {"h1": []}
    rig.down()
    assert traces(rig) == []


@pytest.mark.usefixtures("standing_rig")
def test_a_lab_does_not_outlive_a_killed_session() -> None:
    script = (
        "from tests.lab.rig import Rig; import os, signal\n"
        "with Rig.free(hosts=1) as rig:\n"
        "    print(rig.layout.instance, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    rig = Rig(hosts=1, instance=killed(script))
    rig.wait_for(lambda: traces(rig) == [], 20, "the end of a lab whose owner was killed")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.lab.rig", "--instance", "9", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=dict(os.environ))


def test_mistakes_are_told_in_one_sentence(standing_rig: Rig) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: standing_rig.host("h9"),
        lambda: standing_rig.host("h1").cut("wan"),
        lambda: Rig(hosts=9),
        lambda: Rig(instance=standing_rig.layout.instance).up(),
        lambda: standing_rig.guest("nobody").host(),
    ]
    for mistake in wrong:
        with pytest.raises(LabError) as told:
            mistake()
        assert "\n" not in str(told.value)
    done = command("status")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "lab: the lab is not up\n")
