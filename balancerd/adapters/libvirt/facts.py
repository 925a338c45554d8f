"""What a host is: CPUs, memory, NUMA, identity, and which of its storage is shared."""

import hashlib
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from balancerd.adapters.libvirt.definition import Storage
from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.pages import pools
from balancerd.adapters.libvirt.xml import XMLError, attribute, number, parse
from balancerd.core.model import Host, NumaNode, PowerState

# Storage pools whose volumes every host reaches over the network.
SHARED_POOLS = ("netfs", "rbd", "iscsi", "iscsi-direct", "gluster", "sheepdog", "vstorage")
# Those that are a directory, in which all files are shared. (An iSCSI pool's is /dev/disk/by-path,
# where local disks appear as well.)
SHARED_DIRECTORIES = ("netfs", "vstorage")
# There is no such driver, or the daemon that has it (virtstoraged) is not installed.
_NO_STORAGE = (
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_SYSTEM_ERROR,
)
DROPS_CACHE_SINCE = 4_000_000  # QEMU's version as libvirt counts: 4.0


def facts_of(config: HostConfig, connection: libvirt.virConnect) -> Host:
    """The host as it is configured and as it describes itself; libvirtError when it does not."""
    info = connection.getInfo()
    cores = int(info[2])
    capabilities = _parsed(connection.getCapabilities())
    huge_pages = pools(capabilities)
    memory = memory_total(connection) or int(info[1]) * 2**20
    ordinary = max(0, memory - sum(pool.memory for pool in huge_pages))
    return Host(
        name=config.name,
        cpu=cores * config.speed,
        memory=config.memory or ordinary,
        cores=cores,
        uuid=host_uuid(capabilities),
        rack=config.rack,
        cpu_model=cpu_model(capabilities),
        power=PowerState.ON,
        power_curve=config.power_curve,
        numa=numa_nodes(capabilities, config.speed),
        can_sleep=config.can_sleep,
        machines=machines(capabilities),
        huge_pages=huge_pages,
    )


def _parsed(document: str) -> Element:
    try:
        return parse(document)
    except XMLError as error:
        raise libvirt.libvirtError(f"its capabilities were refused: {error}") from error


def host_uuid(capabilities: Element) -> str:
    """The host's identity; two machines that have the same one are not told apart by libvirt."""
    return (capabilities.findtext("host/uuid") or "").strip()


def memory_total(connection: libvirt.virConnect) -> int:
    """Bytes of memory; 0 where the driver does not tell."""
    try:
        memory: Any = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return 0
        raise
    return int(memory.get("total", 0)) * 1024


def cpu_model(capabilities: Element) -> str:
    """The CPU's name and a digest of its features: equal texts mean equal CPUs."""
    cpu = capabilities.find("host/cpu")
    model = (cpu.findtext("model") or "").strip() if cpu is not None else ""
    if cpu is None or not model:
        return ""
    features = sorted(feature.get("name", "") for feature in cpu.iterfind("feature"))
    described = "\n".join([cpu.findtext("vendor") or "", cpu.findtext("arch") or "", *features])
    return f"{model}/{hashlib.sha256(described.encode()).hexdigest()[:8]}"


def machines(capabilities: Element) -> tuple[str, ...]:
    """The machine types that it can run guests of its own architecture as."""
    own = capabilities.findtext("host/cpu/arch")
    guests = [arch for arch in capabilities.iterfind("guest/arch") if arch.get("name") == own]
    names = {(machine.text or "").strip() for arch in guests for machine in arch.iter("machine")}
    return tuple(sorted(names - {""}))


def numa_nodes(capabilities: Element, speed: float) -> tuple[NumaNode, ...]:
    """The NUMA nodes; none where the host has but one."""
    nodes = tuple(
        NumaNode(
            cpu=number(attribute(cell.find("cpus"), "num")) * speed,
            memory=number(cell.findtext("memory")) * 1024,
        )
        for cell in capabilities.iterfind("host/topology/cells/cell")
    )
    return nodes if len(nodes) > 1 else ()


def storage_of(config: HostConfig, connection: libvirt.virConnect) -> Storage:
    """Which of the host's storage is shared: what is configured, and its network pools."""
    pools = _pools(connection)
    shared = [pool for pool in pools if pool.get("type") in SHARED_POOLS]
    directories = [pool for pool in shared if pool.get("type") in SHARED_DIRECTORIES]
    targets = [pool.findtext("target/path") or "" for pool in directories]
    return Storage(
        shared=(*config.shared, *(path for path in targets if path.strip("/"))),
        shared_pools=frozenset(pool.findtext("name") or "" for pool in shared),
        drops_cache=connection.getVersion() >= DROPS_CACHE_SINCE,
    )


def _pools(connection: libvirt.virConnect) -> list[Element]:
    """The definitions of the pools that are active; a host without a storage driver has none.

    libvirtError when they are not told: what lies in a shared pool that is passed over would be
    taken for a local disk.
    """
    try:
        pools = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    except libvirt.libvirtError as error:
        if code(error) in _NO_STORAGE and connection.isAlive():
            return []
        raise
    found = (_definition(pool) for pool in pools)
    return [pool for pool in found if pool is not None]


def _definition(pool: libvirt.virStoragePool) -> Element | None:
    """None where it went away since, or cannot be read."""
    try:
        return parse(pool.XMLDesc(0))
    except XMLError:
        return None
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        raise
