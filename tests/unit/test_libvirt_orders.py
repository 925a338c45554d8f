"""What libvirt is asked for, what is told back, and acts that take a last look."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.adapters.libvirt import HostConfig, LibvirtBackend, acts, mirrors
from balancerd.adapters.libvirt import backend as backends
from balancerd.adapters.libvirt.definition import Storage, local_disks
from balancerd.adapters.libvirt.jobs import Figures
from balancerd.adapters.libvirt.locate import find
from balancerd.adapters.libvirt.migration import START_SECONDS, Migration
from balancerd.adapters.libvirt.order import Order, flags_of, mebibytes, parameters_of
from balancerd.adapters.libvirt.reports import Reports
from balancerd.core.model import Method
from balancerd.core.observation import JobReport, Presence
from balancerd.ports import BackendError

MIB = 2**20
H1 = HostConfig("h1", "qemu+ssh://h1/system")
H2 = HostConfig(
    "h2", "qemu+ssh://h2/system", "qemu+tls://h2/system", "tcp://10.9.0.2", tls_name="h"
)


def order(method: Method = Method.PRE_COPY, *, encrypted: bool = False) -> Order:
    return Order("a", "u", H1, H2, method, 100 * MIB, 0.3, encrypted)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("persistent", [True, False])
def test_every_migration_is_peer_to_peer_and_none_is_unsafe(
    method: Method, persistent: bool
) -> None:
    flags = flags_of(order(method), persistent=persistent)
    assert flags & libvirt.VIR_MIGRATE_PEER2PEER
    assert not flags & (libvirt.VIR_MIGRATE_UNSAFE | libvirt.VIR_MIGRATE_TUNNELLED)
    assert bool(flags & libvirt.VIR_MIGRATE_LIVE) == (method is not Method.COLD)


def test_a_defined_vm_is_defined_at_the_target_only_and_a_transient_one_nowhere() -> None:
    both = libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    assert flags_of(order(), persistent=True) & both == both
    assert flags_of(order(), persistent=False) & both == 0


@pytest.mark.parametrize(
    ("method", "flag"),
    [
        (Method.AUTO_CONVERGE, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        (Method.POST_COPY, libvirt.VIR_MIGRATE_POSTCOPY),
        (Method.STORAGE, libvirt.VIR_MIGRATE_NON_SHARED_DISK),
        (Method.OVERLAY, libvirt.VIR_MIGRATE_NON_SHARED_INC),
        (Method.COLD, libvirt.VIR_MIGRATE_OFFLINE),
    ],
)
def test_each_method_has_its_flag_and_the_others_have_not(method: Method, flag: int) -> None:
    having = {other for other in Method if flags_of(order(other), persistent=True) & flag}
    assert having == {method}


def test_encryption_is_asked_for_with_the_name_in_the_targets_certificate() -> None:
    plain, safe = order(), order(encrypted=True)
    assert not flags_of(plain, persistent=True) & libvirt.VIR_MIGRATE_TLS
    assert flags_of(safe, persistent=True) & libvirt.VIR_MIGRATE_TLS
    assert libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION not in parameters_of(plain)
    assert parameters_of(safe)[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] == "h"


def test_the_cap_and_the_way_go_with_the_call() -> None:
    assert parameters_of(order()) == {
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 100,
        libvirt.VIR_MIGRATE_PARAM_URI: "tcp://10.9.0.2",
    }
    disks = parameters_of(order(Method.STORAGE), ("vda", "vdb"))
    assert disks[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] == ["vda", "vdb"]
    assert disks[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == 50  # libvirt lets each have it


@given(
    st.integers(16 * MIB, 2**40),
    st.dictionaries(st.text("ab", min_size=1), st.integers(0, 2**45), min_size=1, max_size=9),
)
def test_disks_that_are_copied_have_no_more_than_the_cap_together(
    bandwidth: int, left: dict[str, int]
) -> None:
    """But for what each needs at least, to send what the VM writes meanwhile."""
    found = mirrors.divided(bandwidth, left)
    assert found.keys() == left.keys()
    assert all(rate >= mirrors.LEAST for rate in found.values())
    assert sum(rate for rate in found.values() if rate > mirrors.LEAST) <= bandwidth


def test_disks_that_are_copied_end_at_once() -> None:
    """Dies when each has the same: the larger one then goes on alone at half the cap."""
    assert mirrors.divided(8 * MIB, {"vda": 100, "vdb": 300}) == {"vda": 2 * MIB, "vdb": 6 * MIB}
    assert mirrors.divided(8 * MIB, {"vda": 0, "vdb": 0}) == {"vda": 4 * MIB, "vdb": 4 * MIB}


def test_no_cap_is_no_parameter() -> None:
    free = Order("a", "u", H1, H2, Method.POST_COPY, 0, 0.3)
    assert parameters_of(free) == {libvirt.VIR_MIGRATE_PARAM_URI: "tcp://10.9.0.2"}


@given(st.integers(1, 2**50))
def test_a_cap_never_grows_by_its_unit_and_never_becomes_no_cap(bandwidth: int) -> None:
    """Dies when the cap is rounded up, or down to libvirt's 0, which means unlimited."""
    cap = mebibytes(bandwidth)
    assert cap >= 1
    assert cap * MIB <= max(bandwidth, MIB)


def test_only_what_a_single_host_has_and_can_be_written_is_copied() -> None:
    document = """<domain><name>a</name><devices>
    <disk type='file'><source file='/srv/vms/a'/><target dev='vda'/></disk>
    <disk type='file'><source file='/var/lib/a'/><target dev='vdb'/></disk>
    <disk type='file' device='cdrom'><source file='/iso/x'/><target dev='sda'/><readonly/></disk>
    <disk type='file' device='cdrom'><target dev='sdb'/></disk>
    </devices></domain>"""
    assert local_disks(document, Storage(shared=("/srv/vms",))) == ("vdb",)


# ---- reports ----


def progress(vm: str, at: float) -> JobReport:
    return JobReport(vm, "h1", "h2", at)


def end(vm: str, at: float) -> JobReport:
    return JobReport(vm, "h1", "h2", at, ended=True)


def test_the_newest_progress_counts_and_every_end_is_told_once() -> None:
    reports = Reports()
    for news in (progress("a", 1), progress("a", 2), progress("b", 3), end("c", 4)):
        reports.add(news)
    assert reports.drain() == (end("c", 4), progress("a", 2), progress("b", 3))
    assert reports.drain() == ()


def test_progress_from_before_an_end_is_no_news() -> None:
    """Dies when it is kept: a migration that is over would seem to be under way."""
    reports = Reports()
    reports.add(progress("a", 1))
    reports.add(end("a", 2))
    assert reports.drain() == (end("a", 2),)


# ---- acts, on libvirt's own test driver ----


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[libvirt.virDomain]:
    """A running domain with a definition, on a host of its own."""
    (tmp_path / "host.xml").write_text(
        "<node><domain type='test'><name>a</name><memory>1024</memory>"
        "<os><type>hvm</type></os></domain></node>"
    )
    connection = libvirt.open(f"test://{tmp_path / 'host.xml'}")
    yield connection.lookupByName("a")
    connection.close()


@pytest.mark.parametrize("act", [acts.resume, acts.destroy, acts.undefine, acts.abort])
def test_a_running_vm_is_left_alone(
    domain: libvirt.virDomain, act: Callable[[libvirt.virDomain], None]
) -> None:
    with pytest.raises(acts.Refused):
        act(domain)
    assert domain.isActive()
    assert domain.isPersistent()


def state_of(domain: libvirt.virDomain) -> int:
    answer: Any = domain.state()  # annotated as text, but a list of two numbers
    state: int = answer[0]
    return state


@pytest.mark.parametrize("act", [acts.resume, acts.destroy, acts.undefine])
def test_a_vm_that_a_user_paused_is_left_alone(
    domain: libvirt.virDomain, act: Callable[[libvirt.virDomain], None]
) -> None:
    domain.suspend()
    with pytest.raises(acts.Refused, match="it is paused"):
        act(domain)
    assert state_of(domain) == libvirt.VIR_DOMAIN_PAUSED


def test_a_copy_that_arrived_paused_goes_on_and_one_that_runs_is_left(
    domain: libvirt.virDomain,
) -> None:
    domain.suspend()
    acts.resume_arrived(domain)
    acts.resume_arrived(domain)
    assert state_of(domain) == libvirt.VIR_DOMAIN_RUNNING
    domain.destroy()
    with pytest.raises(acts.Refused, match="it is shutoff"):
        acts.resume_arrived(domain)


def test_a_vm_that_does_not_run_is_not_sent_off_to_be_handed_over() -> None:
    """Dies when it is: it would arrive paused as somebody wanted it, and be resumed by us."""
    here = HostConfig("here", "test:///default")
    connection = libvirt.open("test:///default")
    connection.lookupByName("test").suspend()
    sent = Order("test", "", here, here, Method.PRE_COPY, 0, 0.3, hand_over=True)
    end = Migration(sent, lambda _: None, Figures).run()
    connection.lookupByName("test").resume()
    connection.close()
    assert "it cannot be handed over" in end.error
    assert not end.begun


def test_an_order_that_has_grown_old_is_not_carried_out() -> None:
    """Dies when a host that hung for an hour begins then what was decided before."""
    here = HostConfig("here", "test:///default")
    late = Migration(
        Order("test", "", here, here, Method.PRE_COPY, 0, 0.3), lambda _: None, Figures
    )
    late._ordered -= START_SECONDS + 1
    end = late.run()
    assert "too late" in end.error
    assert not end.begun


def test_a_vm_whose_memory_is_saved_on_its_host_is_not_carried_cold() -> None:
    """Dies when it is: libvirt leaves that behind, and the VM boots as after a loss of power."""
    here = HostConfig("here", "test:///default")
    connection = libvirt.open("test:///default")
    saved = connection.lookupByName("test")
    saved.managedSave()
    carried = Order("test", "", here, here, Method.COLD, 0, 0.3)
    end = Migration(carried, lambda _: None, Figures).run()
    saved.create()  # from that memory, which is gone with it
    connection.close()
    assert "its memory is saved here" in end.error
    assert not end.begun


def test_no_device_of_its_host_goes_along_with_the_disks_of_a_vm() -> None:
    """Dies when one that came since it was planned is: the target's of that name would be lost."""
    connection, files = libvirt.open("test:///default"), ""
    for kind, name, source in (("file", "vda", "/a"), ("block", "vdb", "/dev/sdb")):
        attribute = "file" if kind == "file" else "dev"
        files += (
            f"<disk type='{kind}'><source {attribute}='{source}'/><target dev='{name}'/></disk>"
        )
    domain = connection.createXML(
        "<domain type='test'><name>a</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{files}</devices></domain>"
    )
    here = HostConfig("here", "test:///default")
    end = Migration(
        Order("a", "", here, here, Method.STORAGE, 0, 0.3), lambda _: None, Figures
    ).run()
    domain.destroy()
    connection.close()
    assert end.error == "/dev/sdb is no file that could be copied"
    assert not end.begun


def test_only_a_vm_that_is_handed_over_arrives_paused() -> None:
    paused = libvirt.VIR_MIGRATE_PAUSED
    given = Order("a", "u", H1, H2, Method.PRE_COPY, 0, 0.3, hand_over=True)
    assert flags_of(given, persistent=True) & paused
    assert not flags_of(order(), persistent=True) & paused


def test_a_half_that_is_gone_already_is_not_destroyed_again(domain: libvirt.virDomain) -> None:
    domain.destroy()
    acts.destroy(domain)
    assert not domain.isActive()


def test_an_act_on_a_host_that_is_not_configured_is_one_sentence() -> None:
    with LibvirtBackend([]) as backend:
        backend.locate("a", "u", [])
        with pytest.raises(BackendError, match="h9: find: no such host is configured"):
            backend.resume("a", "h9")
        with pytest.raises(BackendError, match="no such host"):
            backend.migrate("a", "h9", "h8", Method.PRE_COPY, MIB, 0.3)


def test_an_act_without_an_identity_is_refused() -> None:
    """Dies when an unknown VM is looked up by its name."""
    with (
        LibvirtBackend([HostConfig("here", "test:///default")]) as backend,
        pytest.raises(BackendError, match="has not been established"),
    ):
        backend.destroy("test", "here")


def test_an_act_that_was_given_up_is_not_done_when_its_host_answers_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies when it is: whoever ordered it was told otherwise, and the VM may be another's by then.
    A libvirtd that stood still takes up a connection that waited for it, however long."""
    answers, tried = threading.Event(), threading.Event()

    def find_late(connection: libvirt.virConnect, vm: str, uuid: str) -> libvirt.virDomain | None:
        answers.wait(10)
        found = find(connection, vm, uuid)
        tried.set()
        return found

    monkeypatch.setattr(backends, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(backends, "find", find_late)
    connection = libvirt.open("test:///default")
    uuid = connection.lookupByName("test").UUIDString()
    with LibvirtBackend([HostConfig("here", "test:///default")]) as backend:
        backend._remember("test", uuid)
        with pytest.raises(BackendError, match="no answer within"):
            backend.set_autostart("test", "here", autostart=True)
        answers.set()
        assert tried.wait(10)
        monkeypatch.setattr(backends, "find", find)
        monkeypatch.setattr(backends, "ASK_SECONDS", 5.0)
        settled(lambda: backend.locate("test", uuid, ["here"]).presence["here"])
    assert not connection.lookupByName("test").autostart()
    connection.close()


def settled(presence: Callable[[], Presence]) -> None:
    """Wait until the lane is free again."""
    end = time.monotonic() + 10
    while presence() is Presence.UNREACHABLE:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(("version", "keeps"), [(8_008_000, False), (8_009_000, True)])
def test_the_state_of_a_tpm_is_kept_by_every_libvirt_that_can(version: int, keeps: bool) -> None:
    """Dies if a leftover's removal deletes what the copy that runs may share with it."""
    assert acts.keeping(version) & libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    assert bool(acts.keeping(version) & libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM) is keeps


def test_an_order_that_is_not_carried_out_says_that_no_job_is_its_own() -> None:
    """Dies when `begun` is told of a call that was not made: another's job would seem ours."""
    here = HostConfig("here", "test:///default")
    running = Order("test", "", here, here, Method.COLD, 0, 0.3)
    end = Migration(running, lambda _: None, Figures).run()
    assert end.ended
    assert "no cold move" in end.error
    assert not end.begun
