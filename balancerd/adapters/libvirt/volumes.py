"""What a host's storage pools have at a path. A file that lies in none of them is not known."""

from collections.abc import Iterator

import libvirt

from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.xml import parse


def volume_at(connection: libvirt.virConnect, path: str) -> libvirt.virStorageVol | None:
    """What a host's pools have there, as it is by now; None where they have nothing."""
    found = _known(connection, path)
    if found is not None and _is_there(connection, found):
        return found
    for pool in pools_over(connection, path):
        pool.refresh(0)  # what others have made or removed is not known before
    return _known(connection, path)


def _known(connection: libvirt.virConnect, path: str) -> libvirt.virStorageVol | None:
    try:
        return connection.storageVolLookupByPath(path)
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise


def _is_there(connection: libvirt.virConnect, volume: libvirt.virStorageVol) -> bool:
    """Whether its file still is."""
    try:
        return bool(volume.info())
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return False


def pools_over(connection: libvirt.virConnect, path: str) -> Iterator[libvirt.virStoragePool]:
    """The active pools in whose directory the path lies."""
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        directory = parse(pool.XMLDesc(0)).findtext("target/path") or ""
        if directory.strip("/") and path.rpartition("/")[0] == directory.rstrip("/"):
            yield pool
