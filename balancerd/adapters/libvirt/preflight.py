"""What both hosts say before a migration: facts that libvirt can be asked for at no risk.

First the source, for the VM's definition as it would be sent; then the target, what it makes of
it. What libvirt has no call for is not asked: its hosts' clocks, of which their QEMUs tell (see
`clocks`), and certificates. Those are read only when a migration starts; what is wrong with them
then (see `errors.not_encrypted`) is an objection like others. A file that lies in no storage pool
stays None.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar
from xml.etree.ElementTree import Element, tostring

import libvirt

from balancerd.adapters.libvirt import overlays
from balancerd.adapters.libvirt.definition import Places, local_chains, places
from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.facts import cpu_model, host_uuid, storage_of
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.locate import find
from balancerd.adapters.libvirt.pages import pages
from balancerd.adapters.libvirt.statistics import host_counters
from balancerd.adapters.libvirt.volumes import pools_over, volume_at
from balancerd.adapters.libvirt.xml import attribute, parse
from balancerd.core.model import WITH_DISKS, Method
from balancerd.core.observation import Image, Overlays, Pages, Preflight, Side
from balancerd.ports import BackendError
from balancerd.steady import CLOCK

T = TypeVar("T")

LOCKS_SINCE = 2_010_000  # QEMU locks the image files it opens from 2.10 on
# Storage whose locks, or exclusive clients, hold between hosts.
LOCKING_PROTOCOLS = ("rbd", "gluster", "nfs")
_PASSED_THROUGH = ("host-passthrough", "maximum")


@dataclass(frozen=True, slots=True)
class Leaving:
    """What the source says: of itself, and of the VM. `definition` "": the VM is not there."""

    side: Side
    definition: str = ""
    cpu: str = ""  # the host's own, as `facts.cpu_model` names it
    disks: Places = field(default_factory=Places)
    bases: Mapping[str, Image | None] | None = None  # by path; None: not asked for, or not told
    writers: tuple[str, ...] = ()  # VMs here that write to one of those
    image_locks: bool | None = None
    persistent: bool | None = None


@dataclass(frozen=True, slots=True)
class Arriving:
    """What the target says: of itself, and of the VM that would come."""

    side: Side
    name_free: bool | None = None
    uuid_free: bool | None = None
    cpu_comparable: bool | None = None
    absent_disks: tuple[str, ...] = ()
    unseen_disks: tuple[str, ...] = ()
    occupied: tuple[str, ...] = ()
    unmade: tuple[str, ...] = ()
    pages: tuple[Pages, ...] = ()
    overlays: Overlays | None = None


class Ask(Protocol):
    """Puts a question to a host over its connection; BackendError where there is no answer."""

    def __call__(self, host: str, question: Callable[[libvirt.virConnect], T]) -> T:
        """The answer, in time."""
        ...


def ask_both(
    ask: Ask,
    config_of: Callable[[str], HostConfig],
    vm: str,
    uuid: str,
    source: str,
    target: str,
    method: Method,
) -> Preflight:
    """Both hosts' facts. Never raises: whatever a host says, it is an answer."""
    try:
        here = config_of(source)
        leaving = ask(source, lambda connection: ask_source(here, connection, vm, uuid, method))
    except Exception as error:  # noqa: BLE001  see above
        leaving = Leaving(Side(source, error=_cause(error)))
    try:
        there = config_of(target)
        arriving = ask(
            target, lambda connection: ask_target(there, connection, vm, uuid, leaving, method)
        )
    except Exception as error:  # noqa: BLE001  see above
        arriving = Arriving(Side(target, error=_cause(error)))
    return Preflight(
        vm=vm,
        at=CLOCK.now(),
        source=leaving.side,
        target=arriving.side,
        name_free=arriving.name_free,
        uuid_free=arriving.uuid_free,
        cpu_comparable=arriving.cpu_comparable,
        absent_disks=arriving.absent_disks,
        unseen_disks=arriving.unseen_disks,
        stranded=leaving.disks.fixed + (() if method in WITH_DISKS else leaving.disks.copied),
        occupied=arriving.occupied,
        unmade=arriving.unmade,
        image_locks=leaving.image_locks,
        persistent=leaving.persistent,
        pages=arriving.pages,
        overlays=arriving.overlays,
    )


def _cause(error: Exception) -> str:
    return error.cause if isinstance(error, BackendError) else f"unforeseen: {error!r}"


def ask_source(
    config: HostConfig, connection: libvirt.virConnect, vm: str, uuid: str, method: Method
) -> Leaving:
    """The source's part. libvirtError when the host fails."""
    capabilities = connection.getCapabilities()
    side = _side(config.name, connection, capabilities)
    domain = find(connection, vm, uuid)
    if domain is None:
        return Leaving(side)
    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    storage = storage_of(config, connection)
    found = Leaving(
        side,
        definition,
        cpu_model(parse(capabilities)),
        places(definition, storage),
        image_locks=_image_locks(definition, side.hypervisor),
        persistent=bool(domain.isPersistent()),
    )
    if method is not Method.OVERLAY:
        return found
    chains = local_chains(domain.XMLDesc(0), storage)
    if chains is None:
        return found
    paths = overlays.bases_of(chains)
    bases, writers = overlays.images(connection, paths), overlays.writers
    return replace(found, bases=bases, writers=writers(connection, config.name, paths))


def ask_target(
    config: HostConfig,
    connection: libvirt.virConnect,
    vm: str,
    uuid: str,
    leaving: Leaving,
    method: Method,
) -> Arriving:
    """The target's part. libvirtError when the host fails.

    A local disk is as good as there for a migration that copies it, where there is a pool to put
    it and no file in its place.
    """
    capabilities = connection.getCapabilities()
    found = Arriving(
        _side(config.name, connection, capabilities),
        name_free=_is_free(connection, vm, uuid),
        uuid_free=_has_no_namesake(connection, vm, uuid),
    )
    if not leaving.definition:
        return found
    copied = leaving.disks.copied if method in WITH_DISKS else ()
    seen = {path: _sees(connection, path) for path in (*leaving.disks.needed, *copied)}
    return replace(
        found,
        cpu_comparable=_cpu_comparable(
            connection, parse(leaving.definition), leaving.cpu, capabilities
        ),
        absent_disks=tuple(p for p, there in seen.items() if there is False and p not in copied),
        unseen_disks=tuple(p for p, there in seen.items() if there is None),
        occupied=tuple(path for path in copied if seen[path]),
        unmade=tuple(path for path in copied if seen[path] is None),
        pages=pages(leaving.definition, connection, capabilities),
        overlays=_overlays(config.name, connection, leaving),
    )


def _overlays(host: str, connection: libvirt.virConnect, leaving: Leaving) -> Overlays | None:
    """What both hosts tell of base images; None where they do not matter, or the source does not
    know them."""
    if leaving.bases is None:
        return None
    there = overlays.images(connection, leaving.bases)
    writing = (*leaving.writers, *overlays.writers(connection, host, leaving.bases))
    return overlays.told(leaving.bases, there, writing)


def _image_locks(definition: str, hypervisor: int | None) -> bool | None:
    """Whether locks keep a second QEMU, on whatever host, from writing to any disk of the VM.

    QEMU locks image files, and network storage has locks of its own. Of a block device nobody
    knows, as a manager of locks that libvirt was given cannot be seen from outside. (A file counts
    as locked though its file system may not pass locks on: NFS with `nolock` deserves its name.)
    """
    disks = [
        disk
        for disk in parse(definition).iterfind("devices/disk")
        if disk.find("source") is not None and disk.find("readonly") is None
    ]
    if not disks:
        return True
    return all(_is_locked(disk, hypervisor or 0) for disk in disks) or None


def _is_locked(disk: Element, hypervisor: int) -> bool:
    if disk.find("shareable") is not None:
        return False
    if disk.get("type") == "network":
        return attribute(disk.find("source"), "protocol") in LOCKING_PROTOCOLS
    return disk.get("type") == "file" and hypervisor >= LOCKS_SINCE


def _side(host: str, connection: libvirt.virConnect, capabilities: str) -> Side:
    counters = host_counters(connection)
    return Side(
        host=host,
        uuid=host_uuid(parse(capabilities)),
        libvirt=int(connection.getLibVersion()),
        hypervisor=int(connection.getVersion()),
        memory_free=counters.memory_available if counters else None,
    )


def _is_free(connection: libvirt.virConnect, vm: str, uuid: str) -> bool:
    """Whether no other VM has this name."""
    domain = find(connection, vm, "")
    return domain is None or bool(uuid and domain.UUIDString() == uuid)


def _has_no_namesake(connection: libvirt.virConnect, vm: str, uuid: str) -> bool | None:
    """Whether the UUID does not belong to a VM of another name."""
    if not uuid:
        return None
    domain = find(connection, vm, uuid)
    return domain is None or bool(domain.name() == vm)


def _sees(connection: libvirt.virConnect, path: str) -> bool | None:
    """Whether the target has the disk. None: it lies in none of its storage pools."""
    try:
        if volume_at(connection, path) is not None:
            return True
        return False if any(pools_over(connection, path)) else None
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return None  # no storage driver, or the pool is busy


def _cpu_comparable(
    connection: libvirt.virConnect, root: Element, cpu_there: str, capabilities: str
) -> bool | None:
    """Whether the target's CPU offers all that the VM was given; None where libvirt cannot tell."""
    cpu = root.find("cpu")
    if cpu is None:
        return True
    if cpu.get("mode") in _PASSED_THROUGH:
        return bool(cpu_there) and cpu_model(parse(capabilities)) == cpu_there
    machine = root.find("os/type")
    try:
        verdict = connection.compareHypervisorCPU(
            root.findtext("devices/emulator") or "",
            attribute(machine, "arch"),
            attribute(machine, "machine"),
            root.get("type", ""),
            tostring(cpu, encoding="unicode"),
            0,
        )
    except libvirt.libvirtError as error:
        if not connection.isAlive():
            raise
        return False if code(error) == libvirt.VIR_ERR_CPU_INCOMPATIBLE else None
    good = (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)
    return verdict in good
