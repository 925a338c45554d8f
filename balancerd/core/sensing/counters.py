"""What one observation shows of the counters of VMs and hosts, and what of it is not believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import Bools, Floats, Ints
from balancerd.core.model import Host
from balancerd.core.observation import HostCounters, VMCounters, VMReading
from balancerd.core.units import MIB

# QEMU's own threads (migration, I/O) are billed to the VM beside its vCPUs: room for two cores.
VM_SLACK_CORES = 2.0
# A guest that swaps so many bytes a second lacks all that its balloon holds.
SWAPPING = float(MIB)
# Clocks of two readings differ a little; more than this above all cores is not a measurement.
HOST_SLACK = 0.10


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reading that is not believed, and why."""

    detail: str
    missing: bool = False  # not wrong, but not there


@dataclass(frozen=True, slots=True)
class Seen:
    """What one observation shows of the counters of many subjects.

    `told`: whose counters may be taken in. CPU seconds become reference cores by `core`; more than
    `most` of them cannot be, and what is above `size` does not count.
    """

    names: tuple[str, ...]
    told: Bools
    place: tuple[str, ...]  # the host on which the counters were read
    at: Floats
    cpu_seconds: Floats
    steal_seconds: Floats
    memory: Ints
    network: Floats
    block: Floats
    dirty_rate: Floats
    strained_seconds: Floats  # for which it stood still for want of memory, or as good as that
    lacking: Floats  # bytes that it lacks while it does
    core: Floats
    size: Floats
    most: Floats
    forgets: bool  # a counter that went backwards voids what was measured before


def core_of(host: Host) -> float:
    """What one core of the host is worth in reference cores."""
    return host.cpu / host.cores if host.cores else 1.0


_NOTHING = VMCounters(None)


def seen_vms(
    vms: Sequence[tuple[str, str, VMReading | None]],
    times: Mapping[str, float],
    hosts: Mapping[str, Host],
) -> tuple[Seen, dict[str, Doubt]]:
    """The counters of VMs, given as name, host and, where the VM runs and can be read, reading.

    `times` says when each host was read. Beside them, what cannot be believed by itself.
    """
    counters = [r.counters or _NOTHING if r else _NOTHING for _, _, r in vms]
    told = np.array([reading is not None for _, _, reading in vms], dtype=np.bool_)
    cpu = _column([c.cpu_seconds for c in counters])
    steal = _column([c.steal_seconds for c in counters])
    dirty = _column([c.dirty_rate for c in counters])
    memory = _column([c.memory_used or 0 for c in counters])
    steal_told = np.array([c.steal_seconds is not None for c in counters], dtype=np.bool_)
    good = _sane(cpu) & _sane(memory) & (_sane(steal) | ~steal_told)
    doubts = {vms[row][0]: _vm_doubt(vms[row][2]) for row in np.flatnonzero(told & ~good).tolist()}
    cores = {name: core_of(host) for name, host in hosts.items()}
    core = _column([cores[host] for _, host, _ in vms])
    size = _column([r.vm.size if r else 0.0 for _, _, r in vms])
    return Seen(
        names=tuple(name for name, _, _ in vms),
        told=told & good,
        place=tuple(host for _, host, _ in vms),
        at=_column([times.get(host) for _, host, _ in vms]),
        cpu_seconds=cpu,
        steal_seconds=steal,
        memory=np.where(good, memory, 0.0).astype(np.int64),
        network=_column([c.network_bytes for c in counters]),
        block=_column([c.block_bytes for c in counters]),
        dirty_rate=np.where(_sane(dirty), dirty, np.nan),
        strained_seconds=_column([c.swapped for c in counters]) / SWAPPING,
        lacking=_column([c.ballooned for c in counters]),
        core=core,
        size=size,
        most=size + VM_SLACK_CORES * core,
        forgets=False,
    ), doubts


def _vm_doubt(reading: VMReading | None) -> Doubt:
    counters = reading.counters if reading else None
    if counters is None:
        return Doubt("the host gives no statistics for it", missing=True)
    if counters.cpu_seconds is None:
        return Doubt("the host gives no CPU time for it", missing=True)
    return Doubt(f"CPU time {counters.cpu_seconds}, memory {counters.memory_used}")


def seen_hosts(
    readings: Mapping[str, tuple[float, HostCounters]], hosts: Mapping[str, Host]
) -> tuple[Seen, dict[str, Doubt]]:
    """The counters of hosts, each with the time it was read; and what cannot be believed."""
    names = tuple(readings)
    counters = [found for _, found in readings.values()]
    busy = _column([c.cpu_busy for c in counters])
    total = _column([c.memory_total for c in counters])
    free = _column([c.memory_available for c in counters])
    # Huge pages are never free, used or not; what VMs have of them is reckoned by itself.
    pools = _column([sum(pages.memory for pages in hosts[n].huge_pages) for n in names])
    good = _sane(busy) & _sane(total) & _sane(free) & (free <= total) & (total > 0)
    size = _column([hosts[name].cpu for name in names])
    nothing = np.full(len(names), np.nan)
    memory = np.where(good, np.maximum(total - pools - free, 0.0), 0.0)
    return Seen(
        names=names,
        told=good,
        place=names,
        at=_column([at for at, _ in readings.values()]),
        cpu_seconds=busy,
        steal_seconds=nothing,
        memory=memory.astype(np.int64),
        network=nothing,
        block=nothing,
        dirty_rate=nothing,
        strained_seconds=_column([c.memory_stalled for c in counters]),
        lacking=memory,
        core=_column([core_of(hosts[name]) for name in names]),
        size=size,
        most=size * (1 + HOST_SLACK),
        forgets=True,
    ), {names[row]: _host_doubt(counters[row]) for row in np.flatnonzero(~good).tolist()}


def _host_doubt(counters: HostCounters) -> Doubt:
    free, total = counters.memory_available, counters.memory_total
    if free > total or total == 0:
        return Doubt(f"{free} bytes free of {total}")
    return Doubt(f"CPU time {counters.cpu_busy}, memory {free}")


def _column(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)


def _sane(column: Floats) -> Bools:
    return np.isfinite(column) & (column >= 0)
