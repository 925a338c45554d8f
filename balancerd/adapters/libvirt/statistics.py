"""libvirt's flat statistics as counters. What is missing is None, what is absurd stays as read."""

from collections.abc import Mapping
from typing import Any

import libvirt

from balancerd.core.observation import HostCounters, VMCounters
from balancerd.core.units import MIB

WANTED = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_DIRTYRATE
)

_MEASURED = libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED

Statistics = Mapping[str, Any]


def vm_counters(statistics: Statistics) -> VMCounters | None:
    """The counters of an active domain; None where there is not even CPU time."""
    cpu = statistics.get("cpu.time")
    resident = statistics.get("balloon.rss")
    if cpu is None and resident is None:
        return None
    return VMCounters(
        cpu_seconds=_seconds(cpu),
        steal_seconds=_seconds(_summed(statistics, "vcpu", ("delay",))),
        memory_used=None if resident is None else resident * 1024,
        network_bytes=_summed(statistics, "net", ("rx.bytes", "tx.bytes")),
        block_bytes=_summed(statistics, "block", ("rd.bytes", "wr.bytes")),
        dirty_rate=_dirty_rate(statistics),
        swapped=_kib(statistics, "balloon.swap_in", "balloon.swap_out"),
        ballooned=_ballooned(statistics),
    )


def host_counters(connection: libvirt.virConnect) -> HostCounters | None:
    """The host's counters; None where the driver has none (test://).

    libvirt does not tell the kernel's own estimate of available memory: it is what is free and
    what can be reclaimed at once.
    """
    try:
        cpu: Any = connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)
        memory: Any = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return None
        raise
    reclaimable = ("free", "buffers", "cached")
    return HostCounters(
        cpu_busy=(cpu.get("user", 0) + cpu.get("kernel", 0)) / 1e9,
        memory_total=memory.get("total", 0) * 1024,
        memory_available=sum(memory.get(name, 0) for name in reclaimable) * 1024,
    )


def disk_sizes(statistics: Statistics, which: str = "capacity") -> dict[str, int]:
    """Bytes by path, of the disks that tell both; "physical" is what their images take."""
    count = statistics.get("block.count", 0)
    rows = range(count if isinstance(count, int) else 0)
    return {
        statistics[f"block.{row}.path"]: statistics[f"block.{row}.{which}"]
        for row in rows
        if f"block.{row}.path" in statistics and f"block.{row}.{which}" in statistics
    }


def _dirty_rate(statistics: Statistics) -> float | None:
    """Bytes per second, of the last sample that was taken to its end."""
    rate = statistics.get("dirtyrate.megabytes_per_second")
    if rate is None or statistics.get("dirtyrate.calc_status") != _MEASURED:
        return None
    return float(rate * MIB)


def _kib(statistics: Statistics, *names: str) -> int | None:
    """The sum of amounts in KiB, in bytes; None where one is not told."""
    values = [statistics.get(name) for name in names]
    return None if None in values else sum(value or 0 for value in values) * 1024


def _ballooned(statistics: Statistics) -> int | None:
    current = _kib(statistics, "balloon.current")
    most = _kib(statistics, "balloon.maximum")
    return None if current is None or most is None else max(0, most - current)


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _summed(statistics: Statistics, group: str, names: tuple[str, ...]) -> int | None:
    """The sum over all "group.N.name"; None where there is not one of them."""
    values = [
        value
        for key, value in statistics.items()
        if key.startswith(group + ".") and key.partition(".")[2].partition(".")[2] in names
    ]
    return sum(values) if values else None
