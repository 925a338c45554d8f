"""Reading hosts: libvirt's own test driver, and domains that make trouble."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import libvirt
import pytest

from balancerd.adapters.libvirt import HostConfig, LibvirtBackend
from balancerd.adapters.libvirt import backend as backends
from balancerd.adapters.libvirt.clocks import HostClock
from balancerd.adapters.libvirt.facts import cpu_model, machines, numa_nodes
from balancerd.adapters.libvirt.observe import HostReader, statistics_of
from balancerd.adapters.libvirt.sampling import AGAIN_SECONDS, Turns
from balancerd.adapters.libvirt.statistics import disk_sizes, vm_counters
from balancerd.adapters.libvirt.xml import parse
from balancerd.core.model import VMState
from balancerd.core.observation import HostCounters, HostReading, Presence
from balancerd.core.units import MIB

HERE = HostConfig("here", "test:///default", rack="r1", speed=1.5, power_curve=(90.0, 200.0))
NOBODY = HostConfig("nobody", "qemu+tcp://127.0.0.1:1/system")


def only(readings: tuple[HostReading, ...]) -> HostReading:
    [reading] = readings
    return reading


def test_a_host_is_read_with_its_vms_and_what_the_configuration_says_of_it() -> None:
    with LibvirtBackend([HERE]) as backend:
        reading = only(backend.observe().readings)
    assert reading.error == ""
    assert reading.facts is not None
    assert (reading.facts.name, reading.facts.rack) == ("here", "r1")
    assert reading.facts.cpu == 1.5 * reading.facts.cores
    assert [(vm.vm.name, vm.state) for vm in reading.vms] == [("test", VMState.RUNNING)]


def test_vms_are_sampled_in_turn_and_each_but_rarely() -> None:
    """Dies if one that was sampled is not made to wait, or one that came or went is passed over."""
    turns = Turns()
    assert [turns.next("ab", now) for now in (0.0, 30.0, 60.0)] == ["a", "b", None]
    assert turns.next("abc", 90.0) == "c"
    assert turns.next("bc", AGAIN_SECONDS + 20.0) is None
    assert [turns.next("bc", AGAIN_SECONDS + at) for at in (30.0, 31.0)] == ["b", None]
    assert turns.next("abc", AGAIN_SECONDS + 40.0) == "a"


def test_a_host_that_does_not_answer_is_a_reading_with_an_error_and_costs_no_other() -> None:
    with LibvirtBackend([NOBODY, HERE]) as backend:
        nobody, here = backend.observe().readings
        assert "refused" in nobody.error
        assert (nobody.facts, nobody.vms) == (None, ())
        assert here.error == ""
        again = backend.observe().readings[0]
        assert "next attempt in" in again.error


def test_while_a_host_hangs_what_is_under_way_goes_on_and_the_others_can_be_talked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies when hosts are waited for in one piece, or again before the one that hangs is back."""
    monkeypatch.setattr(backends, "OBSERVE_SECONDS", 1.5)
    gate, other = threading.Event(), HostConfig("other", "test:///default")
    times, found = [], []

    def hang() -> HostCounters:
        gate.wait()
        return HostCounters(cpu_busy=1.0, memory_total=2, memory_available=1)

    with LibvirtBackend([HERE, other], {"here": hang}) as backend:

        def carry_on() -> None:
            times.append(time.monotonic())
            found.append(backend.locate("test", "", ["other"]).presence["other"])

        times.append(time.monotonic())
        here, there = backend.observe(carry_on).readings
        times.append(time.monotonic())
        assert "no answer for 1.5 s" in here.error
        assert there.error == ""
        assert set(found) == {Presence.RUNNING}
        assert max(after - before for before, after in pairwise(times)) < 1.0
        again = len(times)
        backend.observe(carry_on)
        assert len(times) == again
        gate.set()


def test_constructing_a_backend_starts_nothing() -> None:
    backend = LibvirtBackend([HERE])
    assert backend.hanging == 0


def test_finer_counters_take_the_place_of_libvirts() -> None:
    finer = HostCounters(cpu_busy=1.0, memory_total=2, memory_available=1)
    with LibvirtBackend([HERE], {"here": lambda: finer}) as backend:
        assert only(backend.observe().readings).counters == finer


def test_counters_that_fail_are_that_hosts_error_and_nobody_elses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dies when one host costs the cycle, or its traceback is logged with each."""

    def broken() -> HostCounters:
        raise RuntimeError("no /proc")

    other = HostConfig("other", "test:///default")
    with LibvirtBackend([HERE, other], {"here": broken}) as backend:
        here, there = backend.observe().readings
        backend.observe()
    assert "cannot be read" in here.error
    assert there.error == ""
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_vm_is_located_by_its_uuid_and_a_namesake_is_somebody_else() -> None:
    """Dies when the domain is looked up by its name."""
    nil = "00000000-0000-0000-0000-000000000001"
    with LibvirtBackend([HERE, NOBODY]) as backend:
        vm = backend.observe().readings[0].vms[0].vm
        found = backend.locate("test", vm.uuid, ["here", "nobody", "unheard-of"]).presence
        assert found["here"] is Presence.RUNNING
        assert found["nobody"] is found["unheard-of"] is Presence.UNREACHABLE
        namesake = backend.locate("test", nil, ["here"]).presence
        assert namesake == {"here": Presence.ABSENT}


class Machine:
    """libvirt's test driver with a host of its own, read as the adapter reads it."""

    def __init__(self, folder: Path) -> None:
        (folder / "host.xml").write_text(f"<node>{FIRST}</node>")
        self.connection = libvirt.open(f"test://{folder / 'host.xml'}")
        self.domain = self.connection.lookupByName("first")
        self.reader = HostReader(HostConfig("here", ""), HostClock())

    def read(self) -> HostReading:
        return self.reader.read(self.connection)


FIRST = """<domain type='test'><name>first</name><memory>1024</memory><vcpu>2</vcpu>
<os><type>hvm</type></os></domain>"""
SECOND = FIRST.replace("first", "second")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.connection.close()


def test_inactive_vms_are_read_too_with_the_reason_of_their_state(machine: Machine) -> None:
    machine.domain.destroy()
    vm = only_vm(machine.read())
    assert (vm.state, vm.vm.state, vm.counters) == (VMState.SHUTOFF, VMState.SHUTOFF, None)


def test_a_paused_vm_is_paused(machine: Machine) -> None:
    machine.domain.suspend()
    assert only_vm(machine.read()).state is VMState.PAUSED


def test_autostart_and_persistence_are_read_every_time(machine: Machine) -> None:
    """Dies when the flags are taken from the remembered definition."""
    assert not only_vm(machine.read()).vm.autostart
    machine.domain.setAutostart(1)
    machine.domain.undefine()  # a running domain without a definition is transient
    vm = only_vm(machine.read()).vm
    assert not vm.persistent


def test_memory_that_is_saved_would_be_left_behind(machine: Machine) -> None:
    assert only_vm(machine.read()).vm.left_behind == ()
    machine.domain.managedSave()
    assert only_vm(machine.read()).vm.left_behind == ("its saved memory",)


def test_a_vm_with_snapshots_is_known_as_such(machine: Machine) -> None:
    """libvirt refuses to move it, whatever the method."""
    assert not only_vm(machine.read()).vm.snapshots
    machine.domain.snapshotCreateXML("<domainsnapshot><name>s</name></domainsnapshot>")
    assert only_vm(machine.read()).vm.snapshots


def test_a_definition_is_read_again_when_its_fingerprint_changed_and_no_event_told(
    machine: Machine,
) -> None:
    """Dies when only events count: one that was missed would never be made good."""
    connection: Any = Deaf(machine.connection, "")
    assert only_vm(machine.reader.read(connection)).vm.vcpus == 2
    machine.domain.destroy()
    machine.domain.setVcpusFlags(1, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    machine.domain.create()
    assert only_vm(machine.reader.read(connection)).vm.vcpus == 1


class Spoiled:
    """A connection on which one domain's statistics fail the whole bulk call, as libvirt does."""

    def __init__(self, real: libvirt.virConnect, spoiled: str) -> None:
        self._real, self._spoiled = real, spoiled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def getAllDomainStats(self, *_arguments: int) -> Any:  # noqa: N802  libvirt's name
        raise libvirt.libvirtError("one domain failed")

    def domainListGetStats(self, domains: Any, *arguments: int) -> Any:  # noqa: N802
        if domains[0].name() == self._spoiled:
            raise libvirt.libvirtError("this domain failed")
        return self._real.domainListGetStats(domains, *arguments)


SECOND = (
    "<domain type='test'><name>second</name><memory>1024</memory><os><type>hvm</type></os></domain>"
)


class Deaf(Spoiled):
    """A connection without events."""

    getAllDomainStats = property(lambda self: self._real.getAllDomainStats)  # noqa: N815

    def domainEventRegisterAny(self, *_arguments: Any) -> None:  # noqa: N802  libvirt's name
        raise libvirt.libvirtError("no events")


def test_one_vm_whose_statistics_fail_costs_only_its_own(machine: Machine) -> None:
    """Dies without the second way: the reading of the whole host would be lost."""
    machine.connection.createXML(SECOND)
    spoiled: Any = Spoiled(machine.connection, "second")
    active = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    found = statistics_of(spoiled, libvirt.VIR_DOMAIN_STATS_STATE, active)
    states = {domain.name(): statistics["state.state"] for domain, statistics in found}
    assert states == {"first": 1, "second": 1}


def test_a_vm_whose_definition_is_refused_is_still_read(machine: Machine) -> None:
    machine.connection.createXML(SECOND)

    class Hostile(Spoiled):
        def getAllDomainStats(self, *arguments: int) -> Any:  # noqa: N802  libvirt's name
            records = self._real.getAllDomainStats(*arguments)
            return [(Unparsable(domain), statistics) for domain, statistics in records]

    connection: Any = Hostile(machine.connection, "")
    reading = machine.reader.read(connection)
    assert [vm.vm.name for vm in reading.vms] == ["first", "second"]
    assert all("could not be read" in vm.vm.owner for vm in reading.vms)


class Unparsable:
    """A domain with a document type in its definition."""

    def __init__(self, real: libvirt.virDomain) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802  libvirt's name
        return "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>"


class Stuck:
    """A domain whose QEMU stands still: each question about it waits, but for one."""

    def __init__(self, real: libvirt.virDomain, answered: list[int] | None) -> None:
        self._real, self._answered = real, answered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def controlInfo(self) -> list[int]:  # noqa: N802  libvirt's name
        return self._answered or [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]

    def jobStats(self) -> Any:  # noqa: N802  libvirt's name
        assert self._answered is None, "this would wait for half a minute"
        error = libvirt.libvirtError("")
        told = (libvirt.VIR_ERR_OPERATION_TIMEOUT, 0, "cannot acquire a lock", 0)
        error.err = (*told, "", None, None, 0, 0)
        raise error

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802  libvirt's name
        raise AssertionError("this might wait, too")


OCCUPIED = [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 6000]
BROKEN = [libvirt.VIR_DOMAIN_CONTROL_ERROR, 0, 0]


@pytest.mark.parametrize("answered", [OCCUPIED, BROKEN, None])
@pytest.mark.parametrize("known", [True, False])
def test_a_qemu_that_does_not_answer_costs_only_its_own_vm(
    machine: Machine, answered: list[int] | None, known: bool
) -> None:
    """Dies when anything is asked that waits for it: its host would not be known any more."""
    if known:
        machine.read()

    class Hostile(Spoiled):
        def getAllDomainStats(self, *arguments: int) -> Any:  # noqa: N802  libvirt's name
            records = self._real.getAllDomainStats(*arguments)
            return [(Stuck(domain, answered), {**told, **BALLOON}) for domain, told in records]

    connection: Any = Hostile(machine.connection, "")
    vm = only_vm(machine.reader.read(connection)).vm
    assert vm.owner.startswith("unknown: ")
    assert vm.owner.endswith("its QEMU does not answer")
    assert (vm.memory, vm.state) == (MIB, VMState.RUNNING)


BALLOON = {"balloon.maximum": 1024}  # KiB; told whatever its QEMU does


def only_vm(reading: HostReading) -> Any:
    [vm] = reading.vms
    return vm


REAL = {
    "state.state": 1,
    "cpu.time": 54_000_000_000,
    "vcpu.0.time": 1,
    "vcpu.0.wait": 5,
    "vcpu.0.delay": 2_000_000_000,
    "vcpu.1.delay": 500_000_000,
    "balloon.rss": 2048,
    "net.count": 1,
    "net.0.name": "vnet0",
    "net.0.rx.bytes": 10,
    "net.0.tx.bytes": 20,
    "net.0.rx.pkts": 7,
    "block.count": 1,
    "block.0.path": "/srv/vms/a",
    "block.0.capacity": 2**30,
    "block.0.rd.bytes": 3,
    "block.0.wr.bytes": 4,
    "block.0.fl.reqs": 99,
}


def test_counters_are_sums_over_cpus_cards_and_disks() -> None:
    counters = vm_counters(REAL)
    assert counters is not None
    assert (counters.cpu_seconds, counters.steal_seconds) == (54.0, 2.5)
    assert (counters.memory_used, counters.network_bytes, counters.block_bytes) == (2**21, 30, 7)
    assert disk_sizes(REAL) == {"/srv/vms/a": 2**30}


def test_what_a_balloon_holds_and_a_guest_swaps_is_told_in_bytes() -> None:
    statistics = {
        "cpu.time": 10**9,
        "balloon.current": 3 * 2**20,
        "balloon.maximum": 4 * 2**20,
        "balloon.swap_in": 3,
        "balloon.swap_out": 5,
    }
    counters = vm_counters(statistics)
    assert counters is not None
    assert (counters.ballooned, counters.swapped) == (2**30, 8 * 2**10)
    del statistics["balloon.swap_in"], statistics["balloon.maximum"]
    counters = vm_counters(statistics)
    assert counters is not None
    assert (counters.ballooned, counters.swapped) == (None, None)


@pytest.mark.parametrize(("status", "rate"), [(2, 20.0 * 2**20), (1, None), (0, None)])
def test_a_dirty_rate_counts_once_its_sample_is_complete(status: int, rate: float | None) -> None:
    """Dies if the figure of a sample that is still being taken, which is -1, is believed."""
    figure = 20 if status == 2 else -1
    statistics = {
        "cpu.time": 10**9,
        "dirtyrate.calc_status": status,
        "dirtyrate.megabytes_per_second": figure,
    }
    counters = vm_counters(statistics)
    assert counters is not None
    assert counters.dirty_rate == rate


def test_what_is_not_told_is_none_and_never_zero() -> None:
    """Dies when a missing counter is read as 0: the VM would look idle."""
    assert vm_counters({"state.state": 1}) is None
    counters = vm_counters({"balloon.rss": 1})
    assert counters is not None
    assert (counters.cpu_seconds, counters.steal_seconds, counters.network_bytes) == (None,) * 3


@pytest.mark.parametrize("count", [-1, "many", 2])
def test_an_absurd_number_of_disks_is_no_reason_to_fail(count: object) -> None:
    assert disk_sizes({"block.count": count}) == {}


CAPABILITIES = """<capabilities><host><uuid>u</uuid>
<cpu><arch>x86_64</arch><model>EPYC-Rome</model><vendor>AMD</vendor>{features}</cpu>
<topology><cells num='2'>
<cell id='0'><memory unit='KiB'>1024</memory><cpus num='4'/></cell>
<cell id='1'><memory unit='KiB'>2048</memory><cpus num='4'/></cell>
</cells></topology></host></capabilities>"""


def test_hosts_have_equal_cpus_when_their_features_are_equal_in_any_order() -> None:
    one = cpu_model(parse(CAPABILITIES.format(features="<feature name='a'/><feature name='b'/>")))
    two = cpu_model(parse(CAPABILITIES.format(features="<feature name='b'/><feature name='a'/>")))
    other = cpu_model(parse(CAPABILITIES.format(features="<feature name='a'/>")))
    assert one == two != other
    assert one.startswith("EPYC-Rome/")
    assert cpu_model(parse("<capabilities><host/></capabilities>")) == ""


def test_numa_nodes_are_in_reference_cores_and_bytes() -> None:
    nodes = numa_nodes(parse(CAPABILITIES.format(features="")), 2.0)
    assert [(node.cpu, node.memory) for node in nodes] == [(8.0, 2**20), (8.0, 2**21)]


def test_a_host_lists_the_machine_types_of_its_own_architecture() -> None:
    """Dies if those of every emulator that is installed count."""
    guests = "".join(
        f"<guest><arch name='{arch}'><machine>{name}</machine>"
        f"<domain type='kvm'><machine>{name}-kvm</machine></domain></arch></guest>"
        for arch, name in (("x86_64", "pc-q35-9.0"), ("aarch64", "virt-9.0"))
    )
    host = "<host><cpu><arch>x86_64</arch></cpu></host>"
    found = machines(parse(f"<capabilities>{host}{guests}</capabilities>"))
    assert found == ("pc-q35-9.0", "pc-q35-9.0-kvm")
