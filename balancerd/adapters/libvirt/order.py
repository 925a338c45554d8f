"""What is asked of libvirt for one migration: its flags and parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import libvirt

from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.core.model import Method
from balancerd.core.units import MIB

# Peer to peer: the migration lives on when balancerd dies. Never VIR_MIGRATE_UNSAFE.
_ALWAYS = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST
_LIVE = _ALWAYS | libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
_FLAGS = {
    Method.PRE_COPY: _LIVE,
    Method.AUTO_CONVERGE: _LIVE | libvirt.VIR_MIGRATE_AUTO_CONVERGE,
    Method.POST_COPY: _LIVE | libvirt.VIR_MIGRATE_POSTCOPY,
    Method.STORAGE: _LIVE | libvirt.VIR_MIGRATE_NON_SHARED_DISK,
    Method.OVERLAY: _LIVE | libvirt.VIR_MIGRATE_NON_SHARED_INC,
    Method.COLD: _ALWAYS | libvirt.VIR_MIGRATE_OFFLINE,
}


@dataclass(frozen=True, slots=True)
class Order:
    """One migration as it was ordered. Bytes per second (0: without a cap) and seconds."""

    vm: str
    uuid: str  # "": not known, the name has to do
    source: HostConfig
    target: HostConfig
    method: Method
    bandwidth: int
    downtime: float
    encrypted: bool = False
    hand_over: bool = False  # it arrives paused, and waits to be resumed


def flags_of(order: Order, *, persistent: bool) -> int:
    """The flags of the call.

    A VM that is defined on its source shall be defined on its target and nowhere else; one that is
    not stays so, lest it be started twice after a reboot.
    """
    flags = _FLAGS[order.method]
    flags |= libvirt.VIR_MIGRATE_TLS if order.encrypted else 0
    flags |= libvirt.VIR_MIGRATE_PAUSED if order.hand_over else 0
    if persistent:
        return flags | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    return flags & ~libvirt.VIR_MIGRATE_PERSIST_DEST


def parameters_of(order: Order, disks: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """The parameters of the call; `disks` are the only ones whose content is to be copied.

    libvirt lets each disk have the whole bandwidth of the call: so that is divided among them until
    `mirrors` does it better.
    """
    parameters: dict[str, Any] = {}
    if order.bandwidth and order.method is not Method.COLD:
        bandwidth = mebibytes(order.bandwidth // max(1, len(disks)))
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = bandwidth
    if order.bandwidth and order.method is Method.POST_COPY:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = mebibytes(order.bandwidth)
    if order.target.migration_uri:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = order.target.migration_uri
    if order.encrypted and order.target.tls_name:
        parameters[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = order.target.tls_name
    if disks:
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(disks)
    return parameters


def mebibytes(bandwidth: int) -> int:
    """Bytes per second in libvirt's MiB/s, rounded down but never to 0, which means no limit."""
    return max(1, bandwidth // MIB)


def milliseconds(seconds: float) -> int:
    """Seconds in libvirt's milliseconds, at least one."""
    return max(1, round(seconds * 1000))
