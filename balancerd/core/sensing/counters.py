"""What one observation shows of the counters of VMs and hosts, and what of it is not believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import Bools, Floats, Ints
from balancerd.core.model import Host
from balancerd.core.observation import COUNTERS, Counters, HostCounters, HostReading, VMReadings
from balancerd.core.sensing.whereabouts import Whereabouts
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


def seen_vms(
    where: Whereabouts, readings: Sequence[HostReading], hosts: Mapping[str, Host]
) -> tuple[Seen, dict[str, Doubt]]:
    """The counters of VMs, out of the readings that say where they are; beside them, what cannot
    be believed by itself."""
    found = dict(zip(COUNTERS, _counters(where, readings), strict=True))
    cpu, steal, dirty = found["cpu_seconds"], found["steal_seconds"], found["dirty_rate"]
    memory = np.where(np.isnan(found["memory_used"]), 0.0, found["memory_used"])
    good = _sane(cpu) & _sane(memory) & (_sane(steal) | np.isnan(steal))
    core = _column([core_of(hosts[sight.host]) for sight in where.sights])[where.host]
    return Seen(
        names=where.names,
        told=where.told & good,
        place=where.place,
        at=_column([reading.at for reading in readings])[where.host],
        cpu_seconds=cpu,
        steal_seconds=steal,
        memory=np.where(good, memory, 0.0).astype(np.int64),
        network=found["network_bytes"],
        block=found["block_bytes"],
        dirty_rate=np.where(_sane(dirty), dirty, np.nan),
        strained_seconds=found["swapped"] / SWAPPING,
        lacking=found["ballooned"],
        core=core,
        size=where.sizes,
        most=where.sizes + VM_SLACK_CORES * core,
        forgets=False,
    ), {
        where.names[row]: _vm_doubt({name: column[row] for name, column in found.items()})
        for row in np.flatnonzero(where.told & ~good).tolist()
    }


def _counters(where: Whereabouts, readings: Sequence[HostReading]) -> Counters:
    """COUNTERS × VMs, in the order of their names."""
    read = [VMReadings.of(reading.vms).counters for reading in readings]
    nothing: Counters = np.empty((len(COUNTERS), 0))
    return np.concatenate([nothing, *read], axis=1)[:, where.row]


def _vm_doubt(counters: Mapping[str, float]) -> Doubt:
    if all(np.isnan(value) for value in counters.values()):
        return Doubt("the host gives no statistics for it", missing=True)
    if np.isnan(counters["cpu_seconds"]):
        return Doubt("the host gives no CPU time for it", missing=True)
    return Doubt(f"CPU time {counters['cpu_seconds']}, memory {counters['memory_used']:.0f}")


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
