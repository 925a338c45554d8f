"""What one observation shows of the counters of VMs and hosts, and what of it is not believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from balancerd.core.columns import Bools, Floats, Ints, rows_where
from balancerd.core.model import Host
from balancerd.core.observation import COUNTERS, Counters, HostCounters, HostReading, VMReadings
from balancerd.core.same import Same
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
    core = _cores(Same(where), Same(hosts))
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
        for row in rows_where(where.told & ~good).tolist()
    }


@lru_cache(maxsize=1)
def _cores(where: Same[Whereabouts], hosts: Same[Mapping[str, Host]]) -> Floats:
    """What a core is worth on each VM's host."""
    found = [core_of(hosts.value[sight.host]) for sight in where.value.sights]
    return _column(found)[where.value.host]


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
    by = _facts_of(names, Same(hosts))
    counters = [found for _, found in readings.values()]
    busy = _column([c.cpu_busy for c in counters])
    total = _column([c.memory_total for c in counters])
    free = _column([c.memory_available for c in counters])
    good = _sane(busy) & _sane(total) & _sane(free) & (free <= total) & (total > 0)
    memory = np.where(good, np.maximum(total - by.pools - free, 0.0), 0.0)
    return Seen(
        names=names,
        told=good,
        place=names,
        at=_column([at for at, _ in readings.values()]),
        cpu_seconds=busy,
        steal_seconds=by.nothing,
        memory=memory.astype(np.int64),
        network=by.nothing,
        block=by.nothing,
        dirty_rate=by.nothing,
        strained_seconds=_column([c.memory_stalled for c in counters]),
        lacking=memory,
        core=by.core,
        size=by.size,
        most=by.most,
        forgets=True,
    ), {names[row]: _host_doubt(counters[row]) for row in rows_where(~good).tolist()}


@dataclass(frozen=True, eq=False, slots=True)
class _Facts:
    """What is known of hosts beside their counters, and stays the same from look to look."""

    core: Floats
    size: Floats
    most: Floats
    # Huge pages are never free, used or not; what VMs have of them is reckoned by itself.
    pools: Floats
    nothing: Floats  # what is not told of any


@lru_cache(maxsize=1)
def _facts_of(names: tuple[str, ...], hosts: Same[Mapping[str, Host]]) -> _Facts:
    found = [hosts.value[name] for name in names]
    size = _column([host.cpu for host in found])
    return _Facts(
        core=_column([core_of(host) for host in found]),
        size=size,
        most=size * (1 + HOST_SLACK),
        pools=_column([sum(pages.memory for pages in host.huge_pages) for host in found]),
        nothing=np.full(len(found), np.nan),
    )


def _host_doubt(counters: HostCounters) -> Doubt:
    free, total = counters.memory_available, counters.memory_total
    if free > total or total == 0:
        return Doubt(f"{free} bytes free of {total}")
    return Doubt(f"CPU time {counters.cpu_busy}, memory {free}")


def _column(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)


def _sane(column: Floats) -> Bools:
    return np.isfinite(column) & (column >= 0)
