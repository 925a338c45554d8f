"""The machine that balancerd runs on, through psutil: finer figures, and its own footprint."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from balancerd.core.observation import HostCounters

PRESSURE = Path("/proc/pressure/memory")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What balancerd itself uses: bytes, seconds of CPU time, counts."""

    rss: int
    cpu: float
    threads: int
    files: int


def runs_here(uri: str) -> bool:
    """Whether a libvirt URI means this machine's own hypervisor."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    return driver != "test" and transport in ("", "unix") and not parts.hostname


def counters() -> HostCounters:
    """This machine's counters. Finer than libvirt's: memory as the kernel itself estimates it."""
    cpu, memory = psutil.cpu_times(), psutil.virtual_memory()
    return HostCounters(
        cpu_busy=cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq,
        memory_total=memory.total,
        memory_available=memory.available,
        memory_stalled=_stalled(),
    )


def _stalled() -> float | None:
    """Seconds in which some task stood still for memory, swapping included; None where the kernel
    does not tell (no PSI)."""
    try:
        told = re.match(r"some .*total=(\d+)", PRESSURE.read_text())
    except OSError:
        return None
    return int(told[1]) / 1e6 if told else None


def footprint() -> Footprint:
    """What this process uses now."""
    me = psutil.Process()
    with me.oneshot():
        times = me.cpu_times()
        return Footprint(
            rss=me.memory_info().rss,
            cpu=times.user + times.system,
            threads=me.num_threads(),
            files=me.num_fds(),
        )
