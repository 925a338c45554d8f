"""What every Backend promises, whatever is behind it.

A backend takes part by a `Bench`: two hosts, a VM that runs on the first, and a way to let time
pass until its migrations have ended. Add a function to `BENCHES` to have another one tested.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from balancerd.core.model import Method, VMState
from balancerd.core.observation import JobReport, Preflight, Presence
from balancerd.ports import Backend, BackendError
from tests.worlds import a_host_group, a_scenario, a_world, live, used


@dataclass(frozen=True)
class Bench:
    """A backend with its place; `ends` gives the reports of migrations that end from now on."""

    backend: Backend
    source: str
    target: str
    vm: str
    uuid: str
    ends: Callable[[], list[JobReport]]

    def move(self, source: str = "", target: str = "") -> None:
        """Ask for a migration, by default from the source to the target."""
        places = (source or self.source, target or self.target)
        self.backend.migrate(self.vm, *places, Method.PRE_COPY, 0, 0.3)

    def presence(self, host: str) -> Presence:
        """What a host says of the VM now."""
        return self.backend.locate(self.vm, self.uuid, [host]).presence[host]

    def preflight(self, target: str = "", method: Method = Method.PRE_COPY) -> Preflight:
        """What both hosts say to a migration of the VM, by default to the target."""
        hosts = (self.source, target or self.target)
        return self.backend.preflight(self.vm, self.uuid, *hosts, method)

    def shown(self, host: str) -> dict[str, VMState]:
        """The VMs that a host's reading holds."""
        readings = {reading.host: reading for reading in self.backend.observe().readings}
        return {vm.vm.name: vm.state for vm in readings[host].vms}


@contextmanager
def simulated() -> Iterator[Bench]:
    """The simulated site."""
    vms = {"name": "v%d", "count": 1}
    world = a_world(a_scenario(hosts=[a_host_group(count=2)], vms=vms))
    yield Bench(world, "a1", "a2", "v0", world.site.vms[0].uuid, lambda: live(world, 60))


BENCHES: list[Callable[[], AbstractContextManager[Bench]]] = [simulated]


@pytest.fixture(name="bench", params=BENCHES, ids=lambda make: make.__name__)
def _bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Every backend in turn."""
    with request.param() as made:
        yield made


def test_every_host_is_read_and_its_running_vms_have_counters(bench: Bench) -> None:
    readings = {reading.host: reading for reading in bench.backend.observe().readings}
    assert {bench.source, bench.target} <= readings.keys()
    host = readings[bench.source]
    assert not host.error
    assert host.facts is not None
    assert host.facts.name == bench.source
    assert host.counters is not None
    assert host.counters.memory_total >= host.counters.memory_available >= 0
    (vm,) = (reading for reading in host.vms if reading.vm.name == bench.vm)
    assert (vm.vm.uuid, vm.state) == (bench.uuid, VMState.RUNNING)
    assert used(vm) >= 0


def test_a_vm_is_where_it_runs_and_nowhere_else(bench: Bench) -> None:
    assert bench.presence(bench.source) is Presence.RUNNING
    assert bench.presence(bench.target) is Presence.ABSENT


def test_a_host_that_nobody_knows_is_unreachable_and_no_error(bench: Bench) -> None:
    assert bench.presence("no-such-host") is Presence.UNREACHABLE


def test_a_vm_of_another_uuid_is_another_vm(bench: Bench) -> None:
    other = "00000000-0000-0000-0000-000000000001"
    found = bench.backend.locate(bench.vm, other, [bench.source]).presence
    assert found == {bench.source: Presence.ABSENT}


def test_a_migration_ends_once_and_the_vm_is_at_the_target(bench: Bench) -> None:
    bench.move()
    (end,) = bench.ends()
    assert (end.vm, end.source, end.target) == (bench.vm, bench.source, bench.target)
    assert (end.ended, end.error) == (True, "")
    for figure in (end.bytes, end.iterations, end.seconds):
        assert figure is not None
        assert figure > 0
    assert end.downtime is not None
    assert end.downtime >= 0
    assert bench.backend.reports() == ()
    assert bench.presence(bench.target) is Presence.RUNNING
    assert bench.presence(bench.source) in (Presence.ABSENT, Presence.MIGRATED)
    assert bench.vm in bench.shown(bench.target)


def test_under_way_both_hosts_show_their_half(bench: Bench) -> None:
    bench.move()
    assert bench.presence(bench.source) is Presence.RUNNING_WITH_JOB
    assert bench.presence(bench.target) is Presence.INCOMING
    assert bench.shown(bench.source)[bench.vm] is VMState.RUNNING
    assert bench.shown(bench.target)[bench.vm] is VMState.INCOMING
    bench.ends()


def test_an_abort_is_told_as_an_end_with_an_error(bench: Bench) -> None:
    bench.move()
    bench.backend.abort(bench.vm, bench.source)
    (end,) = bench.ends()
    assert end.error
    assert bench.presence(bench.source) is Presence.RUNNING
    assert bench.presence(bench.target) is Presence.ABSENT


@pytest.mark.parametrize("command", ["abort", "bandwidth", "downtime"])
def test_commands_to_a_migration_that_is_not_there_are_errors(bench: Bench, command: str) -> None:
    with pytest.raises(BackendError):
        match command:
            case "abort":
                bench.backend.abort(bench.vm, bench.source)
            case "bandwidth":
                bench.backend.set_bandwidth(bench.vm, bench.source, 10)
            case "downtime":
                bench.backend.set_downtime(bench.vm, bench.source, 1.0)


def test_a_migration_from_a_host_that_has_not_got_the_vm_comes_to_nothing(bench: Bench) -> None:
    """Broken at once or told as an end: either is allowed, nothing may move."""
    try:
        bench.move(bench.target, bench.source)
        (end,) = bench.ends()
        assert end.error
    except BackendError as error:
        assert error.host == bench.target
    assert bench.presence(bench.source) is Presence.RUNNING


def test_a_second_migration_is_refused_and_the_first_goes_on(bench: Bench) -> None:
    """Broken at once or told as an end: either is allowed, as long as the first goes on."""
    bench.move()
    refused = 0
    try:
        bench.move()
    except BackendError as error:
        assert error.host == bench.source
        refused = 1
    ends = bench.ends()
    assert [end.error for end in ends].count("") == 1
    assert refused + len(ends) == 2
    assert bench.presence(bench.target) is Presence.RUNNING


def test_a_running_vm_is_not_resumed_and_not_undefined(bench: Bench) -> None:
    for refuse in (bench.backend.resume, bench.backend.undefine):
        with pytest.raises(BackendError):
            refuse(bench.vm, bench.source)
    assert bench.presence(bench.source) is Presence.RUNNING


def test_before_a_migration_both_hosts_say_what_they_are(bench: Bench) -> None:
    found = bench.preflight()
    assert (found.vm, found.source.host, found.target.host) == (
        bench.vm,
        bench.source,
        bench.target,
    )
    for side in (found.source, found.target):
        assert not side.error
        for version in (side.libvirt, side.hypervisor):
            assert version is not None
            assert version > 1_000_000
        assert side.memory_free is not None
        assert side.memory_free >= 0
    assert found.source.uuid != found.target.uuid


def test_a_vm_that_may_go_is_contradicted_by_nothing(bench: Bench) -> None:
    found = bench.preflight()
    assert (found.name_free, found.uuid_free) == (True, True)
    assert found.cpu_comparable is not False
    assert found.absent_disks == ()
    assert found.image_locks is not False


def test_a_host_that_nobody_knows_is_a_side_with_an_error(bench: Bench) -> None:
    found = bench.preflight("no-such-host")
    assert found.target.error
    assert not found.source.error
    assert (found.name_free, found.cpu_comparable) == (None, None)
