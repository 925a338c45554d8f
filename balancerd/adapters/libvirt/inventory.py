"""The VMs' definitions, read only where something speaks for a change.

A definition is asked of each domain by itself, and such a call can hang: for as long as a migration
comes in, or for ever behind a QEMU that does not answer. So an incoming domain is not asked, and
one that let a reading hang is left alone for an hour.
"""

import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from balancerd.adapters.libvirt.definition import Storage, unreadable, vm_of
from balancerd.adapters.libvirt.errors import code, sentence
from balancerd.adapters.libvirt.states import Job
from balancerd.adapters.libvirt.statistics import disk_sizes
from balancerd.adapters.libvirt.xml import XMLError
from balancerd.core.model import VM

REFRESH_SECONDS = 600.0  # a definition is read anew after so long, events or not
AVOID_SECONDS = 3600.0
STUCK = "its QEMU does not answer"

EVENTS = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_DISK_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB,
)
# What a changed definition shows in the statistics, in case an event was missed.
_FINGERPRINT = ("vcpu.current", "vcpu.maximum", "balloon.maximum", "block.count", "net.count")

Statistics = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Definition:
    """A VM as it was last defined, and by what to tell that this still holds."""

    vm: VM
    fingerprint: tuple[object, ...]
    read_at: float


class Inventory:
    """What is remembered of one host's VMs. One reader at a time; events at any time."""

    def __init__(self, avoid: Mapping[str, float] | None = None) -> None:
        self._definitions: dict[str, _Definition] = {}
        self._avoid = dict(avoid or {})  # UUID to the time until which it is left alone
        self._asking = ""  # the UUID that is asked for its definition now
        self._changed: set[str] = set()
        self._changed_lock = threading.Lock()

    def watch(self, connection: libvirt.virConnect) -> None:
        """Ask a new connection for the events after which a definition is read anew."""
        for event in EVENTS:
            with suppress(libvirt.libvirtError):  # a driver without it is read all the same
                connection.domainEventRegisterAny(None, event, self._note_change, None)

    def _note_change(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, *_details: object
    ) -> None:
        with self._changed_lock:
            self._changed.add(domain.UUIDString())

    def forget_changed(self) -> None:
        """Drop what events have told to be out of date."""
        with self._changed_lock:
            changed, self._changed = self._changed, set()
        for uuid in changed:
            self._definitions.pop(uuid, None)

    def keep(self, uuids: Collection[str]) -> None:
        """Drop the VMs that are not among these."""
        self._definitions = {k: v for k, v in self._definitions.items() if k in uuids}

    def after_hang(self) -> "Inventory":
        """An inventory to go on with while a call on this one hangs: it avoids who let it hang."""
        avoid = dict(self._avoid)
        if self._asking:
            avoid[self._asking] = time.monotonic() + AVOID_SECONDS
        return Inventory(avoid)

    def vm(
        self, domain: libvirt.virDomain, job: Job, statistics: Statistics, storage: Storage
    ) -> VM:
        """The VM as it is defined. libvirtError when it, or its host, is gone."""
        uuid, now = domain.UUIDString(), time.monotonic()
        sizes = disk_sizes(statistics)
        fingerprint = (domain.ID(), *map(statistics.get, _FINGERPRINT), *sorted(sizes.items()))
        known = self._definitions.get(uuid)
        if job is Job.UNTOLD:
            return _held(known.vm) if known else _sketch(domain, statistics, STUCK)
        if known and known.fingerprint == fingerprint and now < known.read_at + REFRESH_SECONDS:
            return known.vm
        if job is Job.INCOMING:
            return _sketch(domain, statistics, "it is arriving")
        if now < self._avoid.get(uuid, 0.0):
            return known.vm if known else _sketch(domain, statistics, "its host hung on it")
        taken = disk_sizes(statistics, "physical")
        vm = self._read(domain, statistics, replace(storage, sizes=sizes, allocated=taken))
        self._definitions[uuid] = _Definition(vm, fingerprint, now)
        return vm

    def _read(self, domain: libvirt.virDomain, statistics: Statistics, storage: Storage) -> VM:
        self._asking = domain.UUIDString()
        try:
            return vm_of(domain.XMLDesc(0), storage)
        except XMLError as error:
            return _sketch(domain, statistics, str(error))
        except libvirt.libvirtError as error:
            gone = code(error) == libvirt.VIR_ERR_NO_DOMAIN
            if gone or not domain.connect().isAlive():  # type: ignore[no-untyped-call]
                raise
            return _sketch(domain, statistics, sentence(error))
        finally:
            self._asking = ""


def _held(vm: VM) -> VM:
    """A VM as it was last defined, which nobody can move now: so its owner is one nobody knows."""
    return replace(vm, owner=f"unknown: {STUCK}")


def _sketch(domain: libvirt.virDomain, statistics: Statistics, reason: str) -> VM:
    """What the statistics tell of a VM whose definition cannot be had."""
    memory = statistics.get("balloon.maximum", 0) * 1024
    vcpus = statistics.get("vcpu.current", 1)
    return unreadable(domain.name(), domain.UUIDString(), memory, vcpus, reason)
