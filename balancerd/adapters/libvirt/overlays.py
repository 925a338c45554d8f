"""Disks whose base images stay where they are: what hosts say of those, and what is made of them.

libvirt copies the top of such a disk into an image that has to be there before, on a base that it
looks at on neither host. So both are asked for what their storage pools tell of each base, and for
pieces of what it holds: enough to know one image from another, though not to find one block that
differs. (Whoever wrote that block changed the file's time as well.)
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from xml.etree.ElementTree import Element, SubElement, tostring

import libvirt

from balancerd.adapters.libvirt.definition import Layer, Storage, local_chains
from balancerd.adapters.libvirt.observe import statistics_of
from balancerd.adapters.libvirt.volumes import pools_over, volume_at
from balancerd.adapters.libvirt.xml import attribute, bytes_of, number, parse
from balancerd.core.observation import Base, Image, Overlays
from balancerd.ports import BackendError, nothing

Chain = Sequence[Layer]
PIECES, PIECE = 16, 2**16  # how much of a base is compared: so many pieces of so many bytes

_RUNNING = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT  # of one that arrives nothing else is told
)


# ---- asking ----


def bases_of(chains: Iterable[Chain]) -> list[str]:
    """Paths of the images below the first of each chain that only their host has."""
    return [layer.path for chain in chains for layer in chain[1:] if not layer.shared]


def images(connection: libvirt.virConnect, paths: Iterable[str]) -> dict[str, Image | None]:
    """What a host tells of each of these images."""
    return {path: _image(connection, path) for path in paths}


def writers(connection: libvirt.virConnect, host: str, paths: Iterable[str]) -> tuple[str, ...]:
    """The running VMs whose own image one of these is."""
    wanted, found = set(paths), []
    for domain, told in statistics_of(connection, libvirt.VIR_DOMAIN_STATS_BLOCK, _RUNNING):
        rows = range(told.get("block.count", 0))
        if wanted & {told.get(f"block.{row}.path") for row in rows}:
            found.append(f"{domain.name()} on {host}")
    return tuple(found)


def told(
    here: Mapping[str, Image | None], there: Mapping[str, Image | None], writing: Iterable[str]
) -> Overlays:
    """Both hosts' answers put together."""
    bases = tuple(Base(path, here[path], there.get(path)) for path in here)
    return Overlays(bases, tuple(writing))


def _image(connection: libvirt.virConnect, path: str) -> Image | None:
    """None where no pool has it, or it cannot be read."""
    try:
        volume = volume_at(connection, path)
        if volume is None:
            return None
        root = parse(volume.XMLDesc(0))
        length = bytes_of(root.find("physical"))
        return Image(
            format=attribute(root.find("target/format"), "type"),
            capacity=bytes_of(root.find("capacity")),
            length=length,
            changed=number((root.findtext("target/timestamps/mtime") or "").partition(".")[0]),
            backing=(root.findtext("backingStore/path") or "").strip(),
            samples=_samples(connection, volume, length),
        )
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return None


def _samples(connection: libvirt.virConnect, volume: libvirt.virStorageVol, length: int) -> str:
    """A digest of pieces that lie evenly all over a file, its beginning and its end among them."""
    digest, last = hashlib.sha256(), max(0, length - PIECE)
    for at in sorted({last * piece // (PIECES - 1) for piece in range(PIECES)}):
        stream = connection.newStream()
        volume.download(stream, at, min(PIECE, length))
        while data := stream.recv(PIECE):
            digest.update(data)
        stream.finish()
    return digest.hexdigest()


# ---- making ----


def chains_of(domain: libvirt.virDomain, storage: Storage) -> dict[Chain, int]:
    """The images of a running domain's disks that are to be made, each with its disk's bytes."""
    chains = local_chains(domain.XMLDesc(0), storage) or ()
    return {chain: int(domain.blockInfo(chain[0].path)[0]) for chain in chains}


def make(
    connection: libvirt.virConnect,
    host: str,
    chains: Mapping[Chain, int],
    still: Callable[[], None] = nothing,
) -> None:
    """Make an empty image on its base for each disk. All of them, or none; BackendError where one
    is there already. `still` raises where they are not wanted any more."""
    made: list[libvirt.virStorageVol] = []
    try:
        for chain, size in chains.items():
            still()
            made.append(_made(connection, host, chain, size))
        still()
    except BaseException:
        for volume in made:  # empty, and nobody knows of them yet
            with suppress(libvirt.libvirtError):
                volume.delete(0)
        raise


def _made(
    connection: libvirt.virConnect, host: str, chain: Chain, size: int
) -> libvirt.virStorageVol:
    path = chain[0].path
    pool = next(pools_over(connection, path), None)
    if pool is None:
        raise BackendError(host, "migrate", f"no storage pool lets {path} be made")
    pool.refresh(0)
    return pool.createXML(volume_of(chain, size), 0)


def volume_of(chain: Chain, size: int) -> str:
    """The definition of an empty image of so many bytes, on the base of the chain's first."""
    top, below = chain[0], chain[1:]
    volume = Element("volume")
    SubElement(volume, "name").text = top.path.rpartition("/")[2]
    SubElement(volume, "capacity", unit="bytes").text = str(size)
    SubElement(volume, "allocation", unit="bytes").text = "0"
    SubElement(SubElement(volume, "target"), "format", type=top.format)
    if below:
        backing = SubElement(volume, "backingStore")
        SubElement(backing, "path").text = below[0].path
        SubElement(backing, "format", type=below[0].format)
    return tostring(volume, encoding="unicode")
