"""The copies of disks that run beside a migration, and what each of them may send.

libvirt gives every disk the whole bandwidth of the migration, and does not pass on to them what
that is changed to. So they are told one by one, each by what it has left: then all end at once, and
together they are never above the cap. (QEMU sends 16 MiB of a disk at a time, then waits for as
long as those may take.)
"""

from collections.abc import Mapping
from typing import Any

import libvirt

from balancerd.adapters.libvirt.xml import attribute, parse
from balancerd.core.units import MIB

# Bytes per second of each: what the VM still writes has to go, and with less the pauses would be so
# long that they look like a stall.
LEAST = MIB // 2

_BYTES = libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES


def divided(bandwidth: int, left: Mapping[str, int]) -> dict[str, int]:
    """Bytes per second of each disk, by what it has left; evenly where none has anything."""
    parts = left if any(left.values()) else dict.fromkeys(left, 1)
    whole = sum(parts.values())
    return {disk: max(LEAST, bandwidth * part // whole) for disk, part in parts.items()}


def share_out(domain: libvirt.virDomain, bandwidth: int) -> None:
    """Divide a bandwidth, in bytes per second, among the disks that are copied now."""
    for disk, rate in divided(bandwidth, _left(domain)).items():
        try:
            domain.blockJobSetSpeed(disk, rate, _BYTES)
        except libvirt.libvirtError:
            if domain.blockJobInfo(disk):  # else it has just ended
                raise


def _left(domain: libvirt.virDomain) -> dict[str, int]:
    """Bytes that are still to be copied, by the names of the disks."""
    disks = parse(domain.XMLDesc(0)).iterfind("devices/disk")
    names = filter(None, (attribute(disk.find("target"), "dev") for disk in disks))
    jobs: dict[str, Any] = {name: domain.blockJobInfo(name) for name in names}
    return {name: max(0, job["end"] - job["cur"]) for name, job in jobs.items() if job}
