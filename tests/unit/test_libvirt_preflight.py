"""What hosts say before a migration, of libvirt's own test driver and of definitions."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import libvirt
import pytest

from balancerd.adapters.libvirt import HostConfig, overlays
from balancerd.adapters.libvirt.definition import Layer
from balancerd.adapters.libvirt.errors import not_encrypted
from balancerd.adapters.libvirt.facts import storage_of
from balancerd.adapters.libvirt.preflight import _image_locks, _sees, ask_both
from balancerd.adapters.libvirt.volumes import volume_at
from balancerd.adapters.libvirt.xml import parse
from balancerd.core.model import Method
from balancerd.core.observation import Preflight
from balancerd.ports import BackendError

T = TypeVar("T")
HERE = HostConfig("here", "test:///default")
VOLUME = "<volume><name>a.img</name><capacity>1024</capacity></volume>"
QEMU = 10_000_002


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    """Connections of one process to it share one host: what a test put there is taken away."""
    opened = libvirt.open("test:///default")
    yield opened
    for volume in opened.storagePoolLookupByName("default-pool").listAllVolumes():
        volume.delete()
    opened.close()


def ask_here(
    connection: libvirt.virConnect,
    vm: str,
    uuid: str,
    target: str,
    method: Method = Method.PRE_COPY,
) -> Preflight:
    """The test driver asked as the source, and as the target where that is "here", too."""

    def config_of(host: str) -> HostConfig:
        if host != HERE.name:
            raise BackendError(host, "find", "no such host is configured")
        return HERE

    def ask(host: str, question: Callable[[libvirt.virConnect], T]) -> T:
        assert host == HERE.name
        return question(connection)

    return ask_both(ask, config_of, vm, uuid, "here", target, method)


def test_a_name_is_free_for_the_vm_itself_and_for_nobody_else(
    connection: libvirt.virConnect,
) -> None:
    """Dies if names are compared without the UUID."""
    own = connection.lookupByName("test").UUIDString()
    other = "00000000-0000-0000-0000-000000000001"
    found = ask_here(connection, "test", own, "here")
    assert (found.name_free, found.uuid_free) == (True, True)
    assert ask_here(connection, "test", other, "here").name_free is False
    assert ask_here(connection, "renamed", own, "here").uuid_free is False


def test_a_host_that_cannot_be_asked_is_a_side_with_an_error(
    connection: libvirt.virConnect,
) -> None:
    found = ask_here(connection, "test", "", "nowhere")
    assert found.target.error == "no such host is configured"
    assert found.source.error == ""


def test_a_disk_in_a_pool_is_seen_once_it_is_there(connection: libvirt.virConnect) -> None:
    """Dies if a file that no pool holds counts as missing."""
    path = "/default-pool/a.img"
    assert _sees(connection, "/elsewhere/a.img") is None
    assert _sees(connection, path) is False
    connection.storagePoolLookupByName("default-pool").createXML(VOLUME, 0)
    assert _sees(connection, path) is True


DISKS = """<domain type='test'><name>owner</name><memory>1024</memory><os><type>hvm</type></os>
<devices><disk type='file'><source file='/default-pool/{file}'/><target dev='vda'/></disk>
<disk type='file'><source file='/elsewhere/b'/><target dev='vdb'/></disk>
<disk type='block'><source dev='/dev/sdb'/><target dev='vdc'/></disk></devices></domain>"""


@pytest.mark.parametrize("file", ["free.img", "taken.img"])
def test_a_disk_is_copied_to_where_there_is_a_place_for_it_and_nothing_else(
    connection: libvirt.virConnect, file: str
) -> None:
    """Dies if a file in its place, which libvirt writes over, is passed over."""
    pool = connection.storagePoolLookupByName("default-pool")
    pool.createXML(VOLUME.replace("a.img", "taken.img"), 0)
    domain = connection.createXML(DISKS.format(file=file))
    found = ask_here(connection, "owner", "", "here", Method.STORAGE)
    plain = ask_here(connection, "owner", "", "here", Method.PRE_COPY)
    domain.destroy()
    assert found.occupied == (("/default-pool/taken.img",) if file == "taken.img" else ())
    assert found.unmade == ("/elsewhere/b",)
    assert found.stranded == ("/dev/sdb",)
    assert plain.stranded == ("/dev/sdb", f"/default-pool/{file}", "/elsewhere/b")
    assert (plain.occupied, plain.unmade) == ((), ())


TOP = Layer("/default-pool/top.img", "qcow2", shared=False)
BELOW = Layer("/base", "raw", shared=True)


def test_an_image_on_a_base_is_made_in_the_pool_that_holds_its_place(
    connection: libvirt.virConnect,
) -> None:
    """Dies if what is there already is written over: it may hold what somebody needs."""
    overlays.make(connection, "here", {(TOP, BELOW): 4096})
    made = connection.storageVolLookupByPath(TOP.path)
    info: Any = made.info()  # annotated as text, but a list
    assert info[1] == 4096
    document = parse(overlays.volume_of((TOP, BELOW), 4096))
    assert document.findtext("backingStore/path") == "/base"
    assert parse(overlays.volume_of((TOP,), 4096)).find("backingStore") is None
    with pytest.raises(libvirt.libvirtError, match="already"):
        overlays.make(connection, "here", {(TOP, BELOW): 4096})
    assert connection.storageVolLookupByPath(TOP.path).name() == "top.img"


def test_images_are_made_for_all_disks_or_for_none(connection: libvirt.virConnect) -> None:
    first = replace(TOP, path="/default-pool/first.img")
    nowhere = replace(TOP, path="/elsewhere/b.img")
    with pytest.raises(BackendError, match="no storage pool lets /elsewhere/b"):
        overlays.make(connection, "here", {(first,): 4096, (nowhere,): 4096})
    assert volume_at(connection, first.path) is None


@pytest.mark.parametrize("late", [1, 2, 3])
def test_images_that_came_too_late_are_not_left_on_a_host_that_hung(
    connection: libvirt.virConnect, late: int
) -> None:
    """Dies if the migration goes on with them, or if they are in the way of the next one."""
    asked: list[int] = []

    def still() -> None:
        asked.append(1)
        if len(asked) == late:
            raise BackendError("here", "migrate", "too late")

    chains: dict[overlays.Chain, int] = {
        (replace(TOP, path=f"/default-pool/{name}"),): 4096 for name in ("x.img", "y.img")
    }
    with pytest.raises(BackendError, match="too late"):
        overlays.make(connection, "here", chains, still)
    assert all(volume_at(connection, top.path) is None for (top,) in chains)


class Pools:
    """A host's storage pools as libvirt answers: with definitions, or an error's number."""

    def __init__(self, *answers: str | int) -> None:
        self._answers = answers

    def getVersion(self) -> int:  # noqa: N802  libvirt's name
        return QEMU

    def isAlive(self) -> bool:  # noqa: N802  libvirt's name
        return True

    def listAllStoragePools(self, _flags: int) -> list["Pool"]:  # noqa: N802  libvirt's name
        return [Pool(answer) for answer in self._answers]


class Pool:
    """One of them."""

    def __init__(self, answer: str | int) -> None:
        self._answer = answer

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802  libvirt's name
        if isinstance(self._answer, int):
            raise failed(self._answer)
        return self._answer


class NoPools(Pools):
    """A host that answers with an error."""

    def listAllStoragePools(self, _flags: int) -> list[Pool]:  # noqa: N802  libvirt's name
        assert isinstance(self._answers[0], int)
        raise failed(self._answers[0])


class Dead(NoPools):
    """A host whose connection broke."""

    def isAlive(self) -> bool:  # noqa: N802  libvirt's name
        return False


def failed(number: int) -> libvirt.libvirtError:
    error = libvirt.libvirtError("it failed")
    error.err = (number, 0, "it failed", 2, "", "", "", 0, 0)
    return error


NETFS = "<pool type='netfs'><name>nfs</name><target><path>/srv/nfs</path></target></pool>"


def test_a_shared_pool_is_never_overlooked_for_the_trouble_of_another() -> None:
    """Dies if it is: the disks in it would be taken for local, and copied onto themselves."""
    gone: Any = Pools(libvirt.VIR_ERR_NO_STORAGE_POOL, "<!DOCTYPE pool>", NETFS)
    assert storage_of(HERE, gone).names() == ("/srv/nfs", "nfs")
    troubles: tuple[Any, ...] = (
        Pools(libvirt.VIR_ERR_INTERNAL_ERROR, NETFS),
        NoPools(libvirt.VIR_ERR_OPERATION_FAILED),
        Dead(libvirt.VIR_ERR_SYSTEM_ERROR),
    )
    for trouble in troubles:
        with pytest.raises(libvirt.libvirtError):
            storage_of(HERE, trouble)
    for number in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_SYSTEM_ERROR):
        without: Any = NoPools(number)  # no such driver, or no virtstoraged
        assert storage_of(HERE, without).names() == ()


@pytest.mark.parametrize(
    ("reason", "lacking", "against"),
    [
        ("Unable to access credentials /etc/pki/qemu/ca-cert.pem: None", "h1 or h2", "pair"),
        ("Unable to access credentials /etc/pki/qemu/server-cert.pem: None", "h2", "target"),
        ("Unable to access credentials /etc/pki/qemu/client-cert.pem: None", "h1", "source"),
        ("The server certificate /etc/pki/qemu/server-cert.pem is not yet active", "h2", "target"),
    ],
)
def test_a_refusal_for_want_of_certificates_says_whose_and_what_to_do(
    reason: str, lacking: str, against: str
) -> None:
    cause = f"internal error: unable to execute QEMU command 'object-add': {reason}"
    said, closed = not_encrypted(cause, "h1", "h2")
    assert closed == against
    assert said.startswith(f"{lacking} is not set up for encrypted migrations: {reason}; ")
    assert said.endswith("or say tls = false")


@pytest.mark.parametrize(
    "reason",
    [
        "The certificate hasn't got a known issuer",
        "Certificate does not match the hostname 10.9.0.2",
    ],
)
def test_two_hosts_that_do_not_accept_each_other_are_an_objection_to_their_pair(
    reason: str,
) -> None:
    """Dies if it counts as a failure of the VM: it would rest for what its hosts lack."""
    cause = (
        "operation failed: migration failed. Message from the source host: operation failed: job "
        f"'migration out' failed: {reason}. Message from the destination host: operation failed: "
        "job 'migration in' failed: load of migration failed: Invalid argument"
    )
    said, closed = not_encrypted(cause, "h1", "h2")
    assert closed == "pair"
    assert said.startswith(f"h1 and h2 do not accept each other's certificates: {reason}; ")
    assert "load of migration" not in said


@pytest.mark.parametrize(
    "cause",
    [
        "operation failed: job 'migration out' failed: Cannot write to TLS channel",
        "unable to execute QEMU command 'object-add': out of memory",
        "authentication failed: Failed to verify peer's certificate",
        "",
    ],
)
def test_what_breaks_in_other_ways_is_not_taken_for_a_want_of_certificates(cause: str) -> None:
    """Dies if any word of TLS will do: a stream that broke after it had begun is a failure."""
    assert not_encrypted(cause, "h1", "h2") == ("", "move")


@pytest.mark.parametrize(
    ("disk", "locked"),
    [
        ("<disk type='file'><source file='/srv/a'/></disk>", True),
        ("<disk type='network'><source protocol='rbd' name='p/a'/></disk>", True),
        ("<disk type='network'><source protocol='iscsi' name='p/a'/></disk>", None),
        ("<disk type='block'><source dev='/dev/vg/a'/></disk>", None),
        ("<disk type='block'><source dev='/dev/vg/a'/><readonly/></disk>", True),
        ("<disk type='file'><source file='/srv/a'/><shareable/></disk>", None),
        ("<disk type='file' device='cdrom'/>", True),
    ],
)
def test_locks_are_believed_only_where_they_hold_between_hosts(
    disk: str, locked: bool | None
) -> None:
    """Dies if a block device counts as locked, or if a disk that nobody writes counts at all."""
    definition = f"<domain><devices>{disk}</devices></domain>"
    assert _image_locks(definition, QEMU) is locked


def test_an_old_qemu_locks_no_files() -> None:
    definition = "<domain><devices><disk type='file'><source file='/a'/></disk></devices></domain>"
    assert _image_locks(definition, 2_009_000) is None
