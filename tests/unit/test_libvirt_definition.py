"""What the adapter reads out of a domain's XML, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.adapters.libvirt.definition import (
    Layer,
    Places,
    Storage,
    local_chains,
    places,
    unreadable,
    vm_of,
)
from balancerd.adapters.libvirt.xml import SIZE_AT_MOST, XMLError, parse
from balancerd.core.model import VM, Disk, ExclusionKind
from balancerd.core.moving.tie import tie
from balancerd.core.units import GIB, MIB

GUEST = """<domain type='kvm' id='7'>
  <name>web-1</name>
  <uuid>6f1b1e5c-7a4e-4c67-9a1c-0f2f6a1f3b11</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  {tuning}
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>{os}</os>
  {cpu}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {devices}
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
    <memballoon model='virtio'/>
  </devices>
</domain>"""

NFS = Storage(shared=("/srv/vms",))


def guest(
    metadata: str = "", tuning: str = "", cpu: str = "", devices: str = "", os: str = ""
) -> str:
    return GUEST.format(metadata=metadata, tuning=tuning, cpu=cpu, devices=devices, os=os)


def disk(source: str, kind: str = "file", driver: str = "cache='none'", rest: str = "") -> str:
    return f"<disk type='{kind}'><driver name='qemu' {driver}/>{source}{rest}</disk>"


def only_disk(document: str, storage: Storage = NFS) -> Disk:
    [found] = vm_of(document, storage).disks
    return found


def test_a_vm_is_charged_its_maximum_and_counts_the_vcpus_it_has_now() -> None:
    vm = vm_of(guest(), NFS)
    assert (vm.name, vm.uuid) == ("web-1", "6f1b1e5c-7a4e-4c67-9a1c-0f2f6a1f3b11")
    assert (vm.memory, vm.vcpus, vm.cpu, vm.numa) == (4 * 2**30, 2, 0.0, ())


@pytest.mark.parametrize(
    ("tuning", "nodes"),
    [
        ("<memory mode='strict' nodeset='1'/>", (1,)),
        ("<memory nodeset='0-3,^2'/>", (0, 1, 3)),
        ("<memory mode='restrictive' nodeset='0,5'/>", (0, 5)),
        ("<memory mode='preferred' nodeset='0'/>", ()),
        ("<memory placement='auto'/>", ()),
        ("<memnode cellid='0' nodeset='1'/><memnode cellid='1' nodeset='0'/>", (0, 1)),
        ("<memory nodeset='0-99999999'/>", ()),
        ("<memory nodeset='3-1,x,-1'/>", ()),
    ],
)
def test_a_vm_is_bound_to_the_nodes_its_memory_must_lie_on(
    tuning: str, nodes: tuple[int, ...]
) -> None:
    """Dies if a preference is taken for a binding, or a set that a tenant wrote fills memory."""
    vm = vm_of(guest(tuning=f"<numatune>{tuning}</numatune>"), NFS)
    assert vm.numa == nodes
    assert vm.numa_kept, "libvirt takes the definition to the target as it is"


@pytest.mark.parametrize(
    ("unit", "size"), [("b", 8), ("KB", 8000), ("KiB", 2**13), ("M", 2**23), ("GiB", 2**33)]
)
def test_memory_is_read_in_every_unit_that_libvirt_knows(unit: str, size: int) -> None:
    document = guest().replace("'KiB'>4194304", f"'{unit}'>8")
    assert vm_of(document, NFS).memory == size


def test_a_quota_limits_what_the_vm_can_use() -> None:
    tuning = "<cputune><period>100000</period><quota>50000</quota></cputune>"
    assert vm_of(guest(tuning=tuning), NFS).cpu == 1.0
    unlimited = "<cputune><period>100000</period><quota>-1</quota></cputune>"
    assert vm_of(guest(tuning=unlimited), NFS).cpu == 0.0


def test_a_file_is_shared_only_below_a_shared_prefix() -> None:
    """Dies when the prefix is compared without its slash: /srv/vms-local is another directory."""
    assert only_disk(guest(devices=disk("<source file='/srv/vms/a.qcow2'/>"))).shared
    assert not only_disk(guest(devices=disk("<source file='/srv/vms-local/a'/>"))).shared
    assert not only_disk(guest(devices=disk("<source file='/srv/vms/../../etc/a'/>"))).shared


def test_a_disk_is_not_shared_when_an_image_below_it_is_local() -> None:
    """Dies when only the top of the chain is looked at."""
    chain = (
        "<backingStore type='file'><source file='/srv/vms/base'/>"
        "<backingStore type='file'><source file='/var/lib/base'/><backingStore/></backingStore>"
        "</backingStore>"
    )
    top = "<source file='/srv/vms/a.qcow2'/>"
    mixed = only_disk(guest(devices=disk(top, rest=chain)))
    assert (mixed.shared, mixed.file) == (False, False), "nor is there anything to copy"
    assert only_disk(guest(devices=disk(top, rest=chain.replace("/var/lib", "/srv/vms")))).shared


CHAIN = (
    "<backingStore type='file'><format type='qcow2'/><source file='/var/lib/base'/>"
    "<backingStore type='file'><format type='raw'/><source file='/srv/vms/older'/><backingStore/>"
    "</backingStore></backingStore><target dev='vda'/>"
)
TOP = "<source file='/var/lib/a'/>"


def test_a_disk_on_a_base_is_known_with_what_its_own_image_takes() -> None:
    """Dies if the end of each chain, which is empty, is taken for a base."""
    taken = Storage(sizes={"/var/lib/a": 8 * GIB}, allocated={"/var/lib/a": 3 * MIB})
    found = only_disk(guest(devices=disk(TOP, rest=CHAIN)), taken)
    assert (found.size, found.allocated, found.based) == (8 * GIB, 3 * MIB, True)
    assert not only_disk(guest(devices=disk(TOP, rest="<backingStore/>"))).based


@given(st.integers(1, 2**50))
def test_what_an_image_takes_is_told_roughly_and_never_as_less(size: int) -> None:
    """Dies if it is told to the byte: each reading would show another VM, and nothing that is kept
    for a site as long as that stays the same would ever be used again."""
    told = only_disk(guest(devices=disk(TOP)), Storage(allocated={"/var/lib/a": size})).allocated
    assert size <= told <= max(MIB, size + size // 8) + MIB
    step = max(MIB, told // 16)
    more = Storage(allocated={"/var/lib/a": min(told, size + step // 16)})
    assert only_disk(guest(devices=disk(TOP)), more).allocated == told


def test_nothing_is_told_of_what_a_shared_image_takes() -> None:
    taken = Storage(shared=("/srv/vms",), allocated={"/srv/vms/a": MIB})
    assert only_disk(guest(devices=disk("<source file='/srv/vms/a'/>")), taken).allocated == 0


def test_the_images_of_local_disks_are_told_from_the_top_down() -> None:
    document = guest(devices=disk(TOP, driver="type='qcow2'", rest=CHAIN))
    shared = disk("<source file='/srv/vms/b'/>", driver="type='qcow2'", rest=CHAIN)
    both = guest(devices=disk(TOP, driver="type='qcow2'", rest=CHAIN) + shared)
    wanted = (
        Layer("/var/lib/a", "qcow2", shared=False),
        Layer("/var/lib/base", "qcow2", shared=False),
        Layer("/srv/vms/older", "raw", shared=True),
    )
    assert local_chains(document, NFS) == local_chains(both, NFS) == (wanted,)


@pytest.mark.parametrize(
    "document",
    [
        disk("<source dev='/dev/vg/a'/>", "block", "type='qcow2'", CHAIN),
        disk(TOP, driver="", rest=CHAIN),
        disk(TOP, driver="type='qcow2'", rest=CHAIN.replace("<format type='raw'/>", "")),
    ],
)
def test_images_that_are_no_files_of_a_known_format_are_not_told(document: str) -> None:
    assert local_chains(guest(devices=document), NFS) is None


def test_a_local_disk_that_is_only_read_is_needed_on_the_target_as_it_is() -> None:
    """Dies if it counts as copied: libvirt copies none, and the start would fail."""
    read = disk("<source file='/var/lib/a.iso'/>", rest="<readonly/>")
    found = places(guest(devices=disk(TOP) + read), NFS)
    assert found == Places(needed=("/var/lib/a.iso",), copied=("/var/lib/a",))


@pytest.mark.parametrize(
    ("device", "source"),
    [
        (disk("<source dev='/dev/sdb'/>", "block"), "/dev/sdb"),
        (disk("<source pool='own' volume='a'/>", "volume"), "own/a"),
        (
            disk("<source protocol='nbd' name='a'><host name='localhost'/></source>", "network"),
            "nbd:a",
        ),
    ],
)
def test_what_is_no_file_and_only_its_host_has_is_never_copied(device: str, source: str) -> None:
    """Dies if it counts as a file: what the target has by its name would be written over."""
    assert places(guest(devices=device), NFS) == Places(fixed=(source,))
    assert not only_disk(guest(devices=device)).file
    assert places(guest(devices=disk("<source dev='/srv/vms/a'/>", "block")), NFS).fixed == ()


def test_network_disks_are_shared_unless_their_server_is_the_host_itself() -> None:
    rbd = "<source protocol='rbd' name='vms/a'><host name='mon1'/></source>"
    nbd = "<source protocol='nbd' name='a'><host transport='unix' socket='/run/nbd'/></source>"
    assert only_disk(guest(devices=disk(rbd, "network"))) == Disk(
        "rbd:vms/a", shared=True, file=False
    )
    assert not only_disk(guest(devices=disk(nbd, "network"))).shared


def test_a_volume_is_shared_when_its_pool_is() -> None:
    volume = guest(devices=disk("<source pool='san' volume='a'/>", "volume"))
    assert not only_disk(volume).shared
    assert only_disk(volume, Storage(shared_pools=frozenset({"san"}))).shared


@pytest.mark.parametrize(
    ("driver", "rest", "safe"),
    [
        ("cache='none'", "", True),
        ("cache='directsync'", "", True),
        ("cache='writeback'", "", False),
        ("", "", False),
        ("cache='writeback'", "<readonly/>", True),
        ("cache='writeback'", "<shareable/>", True),
    ],
)
def test_a_cached_disk_is_safe_only_where_nothing_can_be_stale(
    driver: str, rest: str, safe: bool
) -> None:
    document = guest(devices=disk("<source file='/srv/vms/a'/>", driver=driver, rest=rest))
    assert only_disk(document).safe_cache is safe
    assert only_disk(document, Storage(drops_cache=True)).safe_cache


def test_an_empty_drive_is_no_disk() -> None:
    cdrom = "<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>"
    assert vm_of(guest(devices=cdrom), NFS).disks == ()


def test_disk_sizes_come_from_the_statistics() -> None:
    storage = Storage(sizes={"/srv/vms/a": 2**30})
    assert only_disk(guest(devices=disk("<source file='/srv/vms/a'/>")), storage).size == 2**30


HOST_DEVICES = [
    (
        "<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' "
        "slot='0x00' function='0x0'/></source></hostdev>",
        "pci 0000:3b:00:0",
    ),
    (
        "<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x81' "
        "slot='0x02' function='0x1'/></source></interface>",
        "network hostdev 0000:81:02:1",
    ),
    ("<filesystem type='mount'><source dir='/srv/x'/></filesystem>", "directory /srv/x"),
    ("<tpm model='tpm-tis'><backend type='passthrough'/></tpm>", "TPM"),
    ("<tpm model='tpm-tis'><backend type='external'/></tpm>", "TPM"),
    ("<disk type='nvme'><source type='pci'/></disk>", "nvme disk"),
    ("<serial type='dev'><source path='/dev/ttyS0'/></serial>", "serial port /dev/ttyS0"),
    (
        "<parallel type='dev'><source path='/dev/parport0'/></parallel>",
        "parallel port /dev/parport0",
    ),
    ("<input type='evdev'><source dev='/dev/input/event1'/></input>", "input /dev/input/event1"),
    ("<input type='passthrough'><source evdev='/dev/input/e'/></input>", "input /dev/input/e"),
    ("<smartcard mode='host'/>", "smartcard"),
]


@pytest.mark.parametrize(("device", "name"), HOST_DEVICES)
def test_devices_of_the_host_are_named(device: str, name: str) -> None:
    assert vm_of(guest(devices=device), NFS).host_devices == (name,)


def test_an_emulated_tpm_ties_to_no_host() -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    assert vm_of(guest(devices=tpm), NFS).host_devices == ()


EMULATED_TPM = "<tpm model='tpm-crb'><backend type='emulator'>{source}</backend></tpm>"
NVDIMM = "<memory model='nvdimm'><source><path>{path}</path></source><target/></memory>"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"os": "<nvram>/var/lib/nvram/a</nvram>"}, "firmware variables /var/lib/nvram/a"),
        ({"os": "<nvram type='file'><source file='/v/a'/></nvram>"}, "firmware variables /v/a"),
        ({"os": "<varstore path='/v/a.json'/>"}, "firmware variables /v/a.json"),
        ({"devices": EMULATED_TPM.format(source="")}, "what its emulated TPM holds"),
        ({"devices": NVDIMM.format(path="/var/pmem")}, "persistent memory /var/pmem"),
    ],
)
def test_state_that_no_cold_move_takes_along_is_told(fields: dict[str, str], words: str) -> None:
    """libvirt carries a definition, and deletes the TPM's files of one that it undefines."""
    assert vm_of(guest(**fields), NFS).left_behind == (words,)


@pytest.mark.parametrize(
    "fields",
    [
        {"os": "<nvram>/srv/vms/a.vars</nvram>"},
        {"os": "<nvram type='network'><source protocol='nbd' name='a'/></nvram>"},
        {"devices": EMULATED_TPM.format(source="<source type='dir' path='/srv/vms/tpm'/>")},
        {"devices": NVDIMM.format(path="/srv/vms/pmem")},
        {"devices": "<memory model='dimm'><target><size unit='MiB'>512</size></target></memory>"},
    ],
)
def test_state_that_every_host_reaches_goes_anywhere(fields: dict[str, str]) -> None:
    assert vm_of(guest(**fields), NFS).left_behind == ()


@pytest.mark.parametrize(
    ("cpu", "model"),
    [
        ("", ""),
        ("<cpu mode='host-passthrough' check='none'/>", "host-passthrough"),
        ("<cpu mode='maximum'/>", "host-passthrough"),
        ("<cpu mode='host-model'/>", "host-model"),
        ("<cpu mode='custom'><model fallback='forbid'>EPYC-Rome</model></cpu>", "EPYC-Rome"),
    ],
)
def test_the_cpu_model_says_where_the_vm_can_go(cpu: str, model: str) -> None:
    assert vm_of(guest(cpu=cpu), NFS).cpu_model == model


NOVA = (
    "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>"
    "<nova:name>web</nova:name></nova:instance>"
)
OVIRT = "<ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'><x/></ovirt-vm:vm>"
KUBEVIRT = "<kubevirt xmlns='http://kubevirt.io'><uid/></kubevirt>"
SOMEONE = "<libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'/>"


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [(NOVA, "OpenStack Nova"), (OVIRT, "oVirt"), (KUBEVIRT, "KubeVirt"), (SOMEONE, ""), ("", "")],
)
def test_other_management_systems_are_known_by_their_metadata(metadata: str, owner: str) -> None:
    assert vm_of(guest(metadata=metadata), NFS).owner == owner


def test_an_owner_is_known_by_what_it_writes_to_the_firmware() -> None:
    firmware = (
        "<sysinfo type='smbios'><system><entry name='product'>CloudStack KVM Hypervisor"
        "</entry></system></sysinfo>"
    )
    assert vm_of(guest(tuning=firmware), NFS).owner == "CloudStack"


def test_only_balancerds_own_namespace_gives_tags() -> None:
    theirs = "<b:policy xmlns:b='urn:balancerd:policyx' avoid='h1'/>"
    assert tagged("pin='h1 h2' apart=' db '", beside=theirs).tags == {"pin": "h1 h2", "apart": "db"}


def tagged(attributes: str, inside: str = "", beside: str = "") -> VM:
    ours = f"<b:policy xmlns:b='urn:balancerd:policy' {attributes}>{inside}</b:policy>"
    return vm_of(guest(metadata=ours + beside), NFS)


@pytest.mark.parametrize(
    ("attributes", "inside", "complaint"),
    [
        ("pin='h1'", "<avoid hosts='h2'/>", "tags are attributes, and there is something inside"),
        ("pin='h1'", "exclude", "tags are attributes, and there is something inside the element"),
        (f"pin='{'h' * 257}'", "", '"pin" or its value is longer than 256 characters'),
        (" ".join(f"a{n}='x'" for n in range(33)), "", "there are 33 tags, more than 32"),
        ("pine='h1'", "", 'there is no tag "pine"'),
        ("pin=' '", "", 'pin="": names no hosts'),
        ("exclude='true'", "", 'exclude="true": must be "yes", or left out'),
        ("move-cost='dear'", "", 'move-cost="dear": must be a number, zero or more'),
        ("move-cost='-1'", "", 'move-cost="-1": must be a number, zero or more'),
    ],
)
def test_what_cannot_be_read_of_the_tags_is_told_and_never_passed_over(
    attributes: str, inside: str, complaint: str
) -> None:
    """Dies if children of the element are ignored, or what is too long is cut."""
    found = tie(tagged(attributes, inside))
    assert found is not None
    assert found.kind is ExclusionKind.UNREADABLE_TAG
    assert found.detail.startswith(complaint)


def test_a_tag_given_by_two_elements_is_told() -> None:
    again = "<c:more xmlns:c='urn:balancerd:policy' pin='h2'/>"
    found = tie(tagged("pin='h1'", beside=again))
    assert found is not None
    assert found.detail == '"pin" is there twice'


def test_a_disk_names_the_shared_storage_that_it_and_its_backing_images_lie_on() -> None:
    chain = (
        "<backingStore type='file'><source file='/golden/base.qcow2'/>"
        "<backingStore type='volume'><source pool='rbd' volume='b'/></backingStore></backingStore>"
    )
    document = guest(devices=disk("<source file='/srv/vms/a.qcow2'/>", rest=chain))
    storage = Storage(shared=("/srv", "/srv/vms/", "/golden"), shared_pools=frozenset({"rbd"}))
    assert only_disk(document, storage).storage == ("/golden", "/srv/vms/", "rbd")
    assert storage.names() == ("/golden", "/srv", "/srv/vms/", "rbd")


def test_a_vm_has_a_machine_type() -> None:
    assert vm_of(guest(), NFS).machine == "pc-q35-7.2"


LAUGHS = (
    '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<domain><name>&b;</name></domain>"
)
FOREIGN_ENTITY = (
    '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]><domain><name>&x;</name></domain>'
)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (LAUGHS, "document type"),
        (FOREIGN_ENTITY, "document type"),
        ("<domain><name>&x;</name></domain>", "well-formed"),
        ("<domain><name>a</name>", "well-formed"),
        ("", "well-formed"),
        ("<domain><name> </name></domain>", "not a domain"),
        ("<network><name>a</name></network>", "not a domain"),
        ("<domain><name>a</name>" + " " * SIZE_AT_MOST + "</domain>", "longer than"),
        ("<a>" * 100 + "</a>" * 100, "deep"),
        ("<domain>" + "<a/>" * 30_000 + "</domain>", "elements"),
        ("<domain><name>\ud800</name></domain>", "not text"),
    ],
)
def test_a_hostile_or_broken_definition_is_refused_in_one_sentence(
    document: str, reason: str
) -> None:
    """Dies when the DOCTYPE handler is not set: the entities are expanded then."""
    with pytest.raises(XMLError, match=reason):
        vm_of(document, NFS)


def test_nonsense_where_numbers_belong_is_no_reason_to_fail() -> None:
    document = "<domain><name>a</name><memory>much</memory><vcpu>few</vcpu></domain>"
    vm = vm_of(document, NFS)
    assert (vm.memory, vm.vcpus) == (0, 1)


def test_a_vm_with_a_refused_definition_belongs_to_nobody_we_know() -> None:
    """So that it is excluded from every move: what ties it down is not known."""
    vm = unreadable("a", "u", 2**30, 2, "it declares a document type")
    assert vm.owner == "unknown: its definition could not be read, it declares a document type"


@given(st.text(alphabet="<>/='\" abdeimnor&;!-[]", max_size=120))
def test_whatever_is_read_is_an_element_or_a_refusal(document: str) -> None:
    """Dies when any other exception than XMLError gets out of the parser."""
    try:
        parse("<domain>" + document + "</domain>")
    except XMLError as error:
        assert "\n" not in str(error)
