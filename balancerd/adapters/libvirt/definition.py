"""A domain's XML as a VM: what it needs, what ties it down, and whose it is."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from xml.etree.ElementTree import Element

from balancerd.adapters.libvirt.pages import huge_pages
from balancerd.adapters.libvirt.xml import XMLError, attribute, bytes_of, nodes_of, number, parse
from balancerd.core.model import VM, Disk
from balancerd.core.policies.tags import COMPLAINT
from balancerd.core.units import MIB

TAGS_NAMESPACE = "urn:balancerd:policy"
TAGS_AT_MOST = 32
TAG_LENGTH_AT_MOST = 256

# Namespaces in <metadata> by which other management systems mark what is theirs. (Pacemaker marks
# nothing: what it manages has to be excluded by the policy.)
OWNERS = (
    ("http://openstack.org/xmlns/libvirt/nova/", "OpenStack Nova"),
    ("http://ovirt.org/vm/", "oVirt"),
    ("http://kubevirt.io", "KubeVirt"),
    ("http://opennebula.org/xmlns/libvirt/", "OpenNebula"),
)
# The same from the machine's description to its firmware, for those that write nothing else.
FIRMWARE_OWNERS = (
    ("openstack", "OpenStack Nova"),
    ("ovirt", "oVirt"),
    ("kubevirt", "KubeVirt"),
    ("cloudstack", "CloudStack"),
    ("apache software foundation", "CloudStack"),  # its product's name can be changed
)

_LOCAL_NETWORK_HOSTS = ("localhost", "127.0.0.1", "::1")
_SAFE_CACHE = ("none", "directsync")


@dataclass(frozen=True, slots=True)
class Storage:
    """What a host knows of where its disks lie.

    `shared` are path prefixes that all hosts see with the same content, `shared_pools` the names
    of pools that are network storage. `drops_cache`: its QEMU drops cached pages by itself at the
    end of a migration, so that any cache mode is safe on shared storage.
    """

    shared: tuple[str, ...] = ()
    shared_pools: frozenset[str] = frozenset()
    drops_cache: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes, by source
    allocated: Mapping[str, int] = field(default_factory=dict)  # of the image itself, likewise

    def prefix(self, path: str) -> str:
        """The longest of the shared prefixes that a path lies below; "" where it is not shared."""
        if "/../" in path or path.endswith("/.."):
            return ""
        below = [shared for shared in self.shared if path.startswith(shared.rstrip("/") + "/")]
        return max(below, key=len, default="")

    def names(self) -> tuple[str, ...]:
        """What is shared, as `Host.storage` has it: paths and pools."""
        return tuple(sorted({*self.shared, *self.shared_pools}))


def vm_of(document: str, storage: Storage) -> VM:
    """The VM that a domain's XML defines, state and flags left at their defaults."""
    root = parse(document)
    name = (root.findtext("name") or "").strip()
    if root.tag != "domain" or not name:
        raise XMLError("it is not a domain's definition")
    vcpus = root.find("vcpu")
    count = number(attribute(vcpus, "current") or root.findtext("vcpu"), 1)
    paged = huge_pages(root)
    return VM(
        name=name,
        uuid=(root.findtext("uuid") or "").strip(),
        memory=max(0, bytes_of(root.find("memory")) - sum(pages.memory for pages in paged)),
        vcpus=count,
        cpu=_cpu_limit(root, count),
        disks=tuple(_disks(root, storage)),
        host_devices=tuple(_host_devices(root)),
        cpu_model=_cpu_model(root.find("cpu")),
        machine=attribute(root.find("os/type"), "machine"),
        owner=_owner(root),
        numa=_numa(root),
        numa_kept=True,
        left_behind=tuple(_left_behind(root, storage)),
        huge_pages=paged,
        tags=MappingProxyType(_tags(root)),
    )


def local_disks(document: str, storage: Storage) -> tuple[str, ...]:
    """Names ("vda") of the disks that only this host has, and that can be written to.

    A storage migration must be told them: left alone it copies the shared disks onto themselves.
    """
    return tuple(
        attribute(disk.find("target"), "dev")
        for disk in parse(document).iterfind("devices/disk")
        if _place(disk) and disk.find("readonly") is None and not _is_shared(disk, storage)
    )


@dataclass(frozen=True, slots=True)
class Places:
    """What a VM's disks are called, by what becomes of them where it moves."""

    needed: tuple[str, ...] = ()  # paths that the target has to have
    copied: tuple[str, ...] = ()  # paths of files that only this host has, and that can be copied
    fixed: tuple[str, ...] = ()  # what else is written to and only this host has


def places(document: str, storage: Storage) -> Places:
    """Where the disks of a domain are."""
    found: dict[str, list[str]] = {"needed": [], "copied": [], "fixed": []}
    for disk in parse(document).iterfind("devices/disk"):
        place, kind = _place(disk), disk.get("type")
        if not place:
            continue
        if disk.find("readonly") is not None or _is_shared(disk, storage):
            found["needed"] += [place] if kind in ("file", "block") else []
        else:
            found["copied" if kind == "file" else "fixed"].append(place)
    return Places(**{name: tuple(paths) for name, paths in found.items()})


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a disk, or below it."""

    path: str
    format: str
    shared: bool


def local_chains(document: str, storage: Storage) -> tuple[tuple[Layer, ...], ...] | None:
    """The images of each disk that `local_disks` names, its own first; None where one of them is no
    file, or of no format that is told. Only the definition of a domain that runs has them all."""
    found: list[tuple[Layer, ...]] = []
    for disk in parse(document).iterfind("devices/disk"):
        if _place(disk) and disk.find("readonly") is None and not _is_shared(disk, storage):
            top = Layer(_place(disk), attribute(disk.find("driver"), "type"), shared=False)
            below = [_layer(layer, storage) for layer in _backing(disk)]
            kinds = [layer.get("type") for layer in (disk, *_backing(disk))]
            if any(kind != "file" for kind in kinds) or not all(x.format for x in (top, *below)):
                return None
            found.append((top, *below))
    return tuple(found)


def _layer(layer: Element, storage: Storage) -> Layer:
    named = attribute(layer.find("format"), "type")
    return Layer(_place(layer), named, _is_shared(layer, storage))


def unreadable(name: str, uuid: str, memory: int, vcpus: int, reason: str) -> VM:
    """A VM whose definition cannot be had. It names an owner nobody knows: so nobody moves it."""
    owner = f"unknown: its definition could not be read, {reason}"
    return VM(name=name, uuid=uuid, memory=memory, vcpus=vcpus, owner=owner)


def _cpu_limit(root: Element, vcpus: int) -> float:
    """Cores that a quota leaves to it; 0 where there is none."""
    quota = number(root.findtext("cputune/quota"))
    period = number(root.findtext("cputune/period"), 100_000)
    return vcpus * quota / period if quota > 0 and period > 0 else 0.0


def _numa(root: Element) -> tuple[int, ...]:
    """The host's NUMA nodes that its memory is bound to; none for a mere preference."""
    memory = root.find("numatune/memory")
    found = [*root.iterfind("numatune/memnode"), *([] if memory is None else [memory])]
    bound = [e for e in found if e.get("mode", "strict") != "preferred"]
    return tuple(sorted({node for e in bound for node in nodes_of(e.get("nodeset", ""))}))


def _cpu_model(cpu: Element | None) -> str:
    """ "" moves anywhere; "host-passthrough" needs the same CPU, "maximum" likewise."""
    mode = attribute(cpu, "mode")
    if mode in ("host-passthrough", "maximum"):
        return "host-passthrough"
    if cpu is None:
        return ""
    return (cpu.findtext("model") or "").strip() or mode


def _disks(root: Element, storage: Storage) -> Iterator[Disk]:
    """The disks, without the empty drives."""
    for disk in root.iterfind("devices/disk"):
        place, layers = _place(disk), (disk, *_backing(disk))
        if place:
            shared = all(_is_shared(layer, storage) for layer in layers)
            yield Disk(
                source=place,
                shared=shared,
                size=storage.sizes.get(place, 0),
                allocated=0 if shared else _roughly(storage.allocated.get(place, 0)),
                based=len(layers) > 1,
                # libvirt copies what it is told of as a disk: no base under a disk that stays.
                file=disk.get("type") == "file" and (shared or not _is_shared(disk, storage)),
                read_only=disk.find("readonly") is not None,
                safe_cache=_has_safe_cache(disk, storage),
                storage=tuple(sorted({_lies_on(layer, storage) for layer in layers} - {""})),
            )


def _roughly(size: int) -> int:
    """A size that grows all the time, rounded up by an eighth at most: or its VM would never be the
    same from one reading to the next."""
    step = max(MIB, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


def _backing(disk: Element) -> Iterator[Element]:
    """The images below a disk's own; the last of a chain is empty."""
    return (layer for layer in disk.iter("backingStore") if layer.find("source") is not None)


def _place(disk: Element) -> str:
    """What a disk's source is called: a path, "rbd:pool/image", "pool/volume"."""
    kind, source = disk.get("type", ""), disk.find("source")
    if source is None:
        return ""
    match kind:
        case "file" | "dir":
            return source.get(kind, "")
        case "block":
            return source.get("dev", "")
        case "volume":
            return f"{source.get('pool', '')}/{source.get('volume', '')}".strip("/")
        case "network":
            return f"{source.get('protocol', '')}:{source.get('name', '')}".strip(":")
        case _:
            return f"{kind} disk"


def _lies_on(layer: Element, storage: Storage) -> str:
    """The shared pool or path that one image lies on; "" where there is none to be reached."""
    if layer.get("type") == "volume":
        pool = attribute(layer.find("source"), "pool")
        return pool if pool in storage.shared_pools else ""
    return storage.prefix(_place(layer)) if layer.get("type") in ("file", "block", "dir") else ""


def _is_shared(layer: Element, storage: Storage) -> bool:
    """Whether one image (of a disk, or below it) is the same from every host."""
    kind, source = layer.get("type", ""), layer.find("source")
    if kind == "network":
        hosts = source.findall("host") if source is not None else []
        return not any(_is_local(host) for host in hosts)
    return bool(_lies_on(layer, storage))


def _is_local(host: Element) -> bool:
    """Whether a network disk's server is the host itself."""
    return host.get("transport") == "unix" or host.get("name") in _LOCAL_NETWORK_HOSTS


def _has_safe_cache(disk: Element, storage: Storage) -> bool:
    return (
        storage.drops_cache
        or disk.get("type") == "network"
        or disk.find("readonly") is not None
        or disk.find("shareable") is not None
        or attribute(disk.find("driver"), "cache") in _SAFE_CACHE
    )


def _host_devices(root: Element) -> Iterator[str]:
    """What ties the VM to the host it is on, as a person would name it."""
    devices = root.find("devices")
    yield from filter(None, map(_of_the_host, () if devices is None else devices))
    if root.find("launchSecurity") is not None:
        yield f"memory encryption {attribute(root.find('launchSecurity'), 'type')}".strip()


def _of_the_host(device: Element) -> str:
    """What one device is of the host's own; "" for one that any host can make up."""
    kind, source = device.get("type", ""), device.find("source")
    match device.tag:
        case "hostdev":
            name = f"{kind} {_address(source)}"
        case "interface" if kind in ("hostdev", "vdpa"):
            name = f"network {kind} {_address(source)}"
        case "disk" if kind in ("nvme", "vhostuser", "vhostvdpa"):
            name = f"{kind} disk"
        case "filesystem":
            name = f"directory {attribute(source, 'dir')}"
        case "shmem" if attribute(device, "role") != "peer":
            name = f"shared memory {attribute(device, 'name')}"
        case "tpm" if _backend(device) in ("passthrough", "external"):
            name = "TPM"
        case "serial" | "parallel" | "channel" if kind == "dev":
            name = f"{device.tag} port {attribute(source, 'path')}"
        case "input" if kind in ("passthrough", "evdev"):
            name = f"input {attribute(source, 'evdev') or attribute(source, 'dev')}"
        case "smartcard" if device.get("mode") in ("host", "host-certificates"):
            name = "smartcard"
        case _:
            name = ""
    return name.strip()


def _backend(tpm: Element) -> str:
    return attribute(tpm.find("backend"), "type")


def _left_behind(root: Element, storage: Storage) -> Iterator[str]:
    """What of the VM's state lies in files of its host that libvirt moves only with its memory: of
    one that is shut off, it carries the definition and deletes or forgets them."""
    for variables in (*root.iterfind("os/nvram"), *root.iterfind("os/varstore")):
        path = (variables.text or "").strip() or variables.get("path", "")
        path = path or attribute(variables.find("source"), "file")
        if variables.get("type") != "network" and not storage.prefix(path):
            yield f"firmware variables {path}".strip()
    for tpm in root.iterfind("devices/tpm"):
        path = attribute(tpm.find("backend/source"), "path")
        if _backend(tpm) == "emulator" and not storage.prefix(path):
            yield "what its emulated TPM holds"
    for path in filter(None, (e.text for e in root.iterfind("devices/memory/source/path"))):
        if not storage.prefix(path):
            yield f"persistent memory {path}"


def _address(source: Element | None) -> str:
    """A device's address in one word or two."""
    address = source.find("address") if source is not None else None
    if address is None:
        return attribute(source, "dev")
    keys = ("domain", "bus", "slot", "function", "device", "uuid")
    words = [address.get(key, "").removeprefix("0x") for key in keys]
    return ":".join(word for word in words if word)


def _owner(root: Element) -> str:
    """Another management system that says the VM is its own; "" for none."""
    metadata = root.find("metadata")
    for element in () if metadata is None else metadata:
        for namespace, owner in OWNERS:
            if str(element.tag).startswith("{" + namespace):
                return owner
    firmware = " ".join(entry.text or "" for entry in root.iterfind("sysinfo/system/entry")).lower()
    return next((owner for mark, owner in FIRMWARE_OWNERS if mark in firmware), "")


def _tags(root: Element) -> dict[str, str]:
    """balancerd's own metadata: the attributes of its element. What they mean is `core.tags`'.

    What cannot be passed on whole is told instead, so that nothing is overlooked.
    """
    metadata = root.find("metadata")
    ours = [
        element
        for element in (() if metadata is None else metadata)
        if str(element.tag).startswith("{" + TAGS_NAMESPACE + "}")
    ]
    items = [item for element in ours for item in sorted(element.items())]
    complaint = _tags_complaint(ours, items)
    tags = {key: value.strip() for key, value in items[:TAGS_AT_MOST] if _is_short(key, value)}
    return tags | ({COMPLAINT: complaint} if complaint else {})


def _tags_complaint(ours: Sequence[Element], items: Sequence[tuple[str, str]]) -> str:
    """What is wrong with the form of the metadata; "" for nothing."""
    keys = Counter(key for key, _ in items)
    twice = [key for key, count in sorted(keys.items()) if count > 1]
    long = [key for key, value in items if not _is_short(key, value)]
    if any(len(element) or (element.text or "").strip() for element in ours):
        return "tags are attributes, and there is something inside the element"
    if len(items) > TAGS_AT_MOST:
        return f"there are {len(items)} tags, more than {TAGS_AT_MOST}"
    if twice:
        return f'"{twice[0][:TAG_LENGTH_AT_MOST]}" is there twice'
    if long:
        return f'"{long[0][:32]}" or its value is longer than {TAG_LENGTH_AT_MOST} characters'
    return ""


def _is_short(key: str, value: str) -> bool:
    return max(len(key), len(value.strip())) <= TAG_LENGTH_AT_MOST
