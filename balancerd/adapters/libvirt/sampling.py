"""How fast VMs write their memory: measured one at a time, and each but rarely.

QEMU looks at a sample of the pages twice, a second apart, which costs the VM nothing that could be
noticed. The result appears in the statistics of the next reading. A VM with a job is left alone.
Calls have a lane of their own: one that hangs keeps neither a reading nor an act waiting.
"""

import time
from collections.abc import Iterable

import libvirt

from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.jobs import read_job
from balancerd.adapters.libvirt.lane import Lane
from balancerd.adapters.libvirt.states import Job
from balancerd.adapters.libvirt.workers import Workers
from balancerd.ports import BackendError

PAUSE_SECONDS = 30.0  # between two VMs of one host
AGAIN_SECONDS = 3600.0  # between two samples of one VM
SAMPLE_SECONDS = 1  # between the two looks

_RUNNING = libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING


class Turns:
    """Whose turn it is: whoever has waited longest, and nobody again within the hour."""

    def __init__(self) -> None:
        self._sampled: dict[str, float] = {}  # by UUID

    def next(self, uuids: Iterable[str], now: float) -> str | None:
        """Who of those on the host is to be sampled now; None if nobody is."""
        self._sampled = {uuid: self._sampled.get(uuid, float("-inf")) for uuid in sorted(uuids)}
        uuid = min(self._sampled, key=lambda uuid: self._sampled[uuid], default=None)
        if uuid is None or now < self._sampled[uuid] + AGAIN_SECONDS:
            return None
        self._sampled[uuid] = now
        return uuid


def sample(domain: libvirt.virDomain) -> bool:
    """Have a VM's writing measured; False where it has a job."""
    if read_job(domain)[0] is not Job.NONE:
        return False
    domain.startDirtyRateCalc(SAMPLE_SECONDS)
    return True


class Sampler:
    """Samples one host's VMs, one after the other."""

    def __init__(self, config: HostConfig, workers: Workers) -> None:
        self._lane = Lane(config.name, config.uri, workers)
        self._turns = Turns()
        self._next = 0.0

    def begin(self) -> None:
        """Have a VM sampled if one is due, and do not wait for it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PAUSE_SECONDS
        try:
            self._lane.start("sample", self._sample)
        except BackendError:
            return  # the host is away or busy: its readings tell

    def close(self) -> None:
        """Close the connection. May block."""
        self._lane.close()

    def _sample(self, connection: libvirt.virConnect) -> None:
        domains = {domain.UUIDString(): domain for domain in connection.listAllDomains(_RUNNING)}
        uuid = self._turns.next(domains, time.monotonic())
        if uuid is not None:
            sample(domains[uuid])
