"""From raw counters to rates: what each VM and host asks for now, or why that is not known.

A counter that went backwards was reset (the VM was started again, or arrived from another host);
the first reading after that only sets a new base. A reading that cannot be true is a `Doubt`, a
value, and leaves the track as it was.
"""

from dataclasses import dataclass
from math import isfinite

from balancerd.core.model import Load
from balancerd.core.observation import HostCounters, VMCounters

# QEMU's own threads (migration, I/O) are billed to the VM beside its vCPUs: room for two cores.
VM_SLACK_CORES = 2.0
# Clocks of two readings differ a little; more than this above all cores is not a measurement.
HOST_SLACK = 0.10


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reading that is not believed, and why."""

    detail: str
    missing: bool = False  # not wrong, but not there


@dataclass(frozen=True, slots=True)
class Point:
    """A rate and the span of time it is the mean of; `at` is the span's end."""

    at: float
    span: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Track:
    """One subject's last counters and recent rates. `host` is where they were read."""

    host: str
    at: float
    counters: VMCounters | HostCounters
    points: tuple[Point, ...] = ()
    load: Load | None = None


def follow_vm(
    track: Track | None,
    host: str,
    at: float,
    counters: VMCounters,
    size: float,
    core: float,
    window: float,
) -> Track | Doubt:
    """The VM's track with one more reading.

    `size` is the most it can use and `core` what one core of its host is worth, both in reference
    cores; `window` is in seconds.
    """
    if counters.cpu_seconds is None:
        return Doubt("the host gives no CPU time for it", missing=True)
    values = (counters.cpu_seconds, counters.steal_seconds or 0.0, counters.memory_used or 0)
    if not all(isfinite(value) and value >= 0 for value in values):
        return Doubt(f"CPU time {counters.cpu_seconds}, memory {counters.memory_used}")
    if track is None or not isinstance(track.counters, VMCounters):
        return Track(host, at, counters)
    if at <= track.at:
        return track
    used = counters.cpu_seconds - (track.counters.cpu_seconds or 0.0)
    if track.host != host or used < 0:
        return Track(host, at, counters, track.points, track.load)
    span = at - track.at
    cpu = used / span * core
    if cpu > size + VM_SLACK_CORES * core:
        return Doubt(f"used {cpu:.1f} cores, but has only {size:.1f}")
    points = _recent(track.points, Point(at, span, min(cpu, size)), window)
    load = Load(
        cpu=points[-1].cpu,
        cpu_mean=_mean(points),
        memory=counters.memory_used or 0,
        steal=_steal(track.counters, counters, span, size / core),
        network=_rate(track.counters.network_bytes, counters.network_bytes, span),
        dirty_rate=_sane(counters.dirty_rate),
        block=_rate(track.counters.block_bytes, counters.block_bytes, span),
        readings=len(points),
        since=points[0].at - points[0].span,
    )
    return Track(host, at, counters, points, load)


def follow_host(
    track: Track | None,
    host: str,
    at: float,
    counters: HostCounters,
    cpu: float,
    core: float,
    window: float,
) -> Track | Doubt:
    """The host's track with one more reading; `cpu` is its capacity in reference cores."""
    values = (counters.cpu_busy, counters.memory_total, counters.memory_available)
    if not all(isfinite(value) and value >= 0 for value in values):
        return Doubt(f"CPU time {counters.cpu_busy}, memory {counters.memory_available}")
    if counters.memory_available > counters.memory_total or counters.memory_total == 0:
        return Doubt(f"{counters.memory_available} bytes free of {counters.memory_total}")
    if track is None or not isinstance(track.counters, HostCounters):
        return Track(host, at, counters)
    if at <= track.at:
        return track
    span = at - track.at
    busy = (counters.cpu_busy - track.counters.cpu_busy) / span * core
    if busy < 0:
        return Track(host, at, counters, (), None)
    if busy > cpu * (1 + HOST_SLACK):
        return Doubt(f"used {busy:.1f} cores of {cpu:.1f}")
    points = _recent(track.points, Point(at, span, min(busy, cpu)), window)
    load = Load(
        cpu=points[-1].cpu,
        cpu_mean=_mean(points),
        memory=counters.memory_total - counters.memory_available,
        readings=len(points),
        since=points[0].at - points[0].span,
    )
    return Track(host, at, counters, points, load)


def _sane(rate: float | None) -> float | None:
    """A rate that was sampled elsewhere, if it is one."""
    return rate if rate is not None and isfinite(rate) and rate >= 0 else None


def _recent(points: tuple[Point, ...], newest: Point, window: float) -> tuple[Point, ...]:
    """The points whose span reaches into the window that ends now."""
    begin = newest.at - window
    return (*(point for point in points if point.at > begin), newest)


def _mean(points: tuple[Point, ...]) -> float:
    """Mean over time, so that a long gap weighs as much as the many readings it swallowed."""
    return sum(point.cpu * point.span for point in points) / sum(point.span for point in points)


def _steal(before: VMCounters, after: VMCounters, span: float, vcpus: float) -> float:
    """Share of the time that the VM's vCPUs stood ready and were not run."""
    if before.steal_seconds is None or after.steal_seconds is None:
        return 0.0
    waited = max(after.steal_seconds - before.steal_seconds, 0.0)
    return min(waited / (span * max(vcpus, 1.0)), 1.0)


def _rate(before: int | None, after: int | None, span: float) -> float | None:
    """Bytes per second, or None where a counter is missing or was reset."""
    if before is None or after is None or after < before:
        return None
    return (after - before) / span
