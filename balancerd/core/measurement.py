"""Loads, forecasts and overheads out of readings, and what is remembered for the next ones."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from balancerd.core.forecast import Past, crowd, expect, remember
from balancerd.core.load import Doubt, Track, follow_host, follow_vm
from balancerd.core.model import VM, Forecast, Host, Load, VMState
from balancerd.core.observation import HostReading
from balancerd.core.policy import Detection
from balancerd.core.whereabouts import Whereabouts


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier observations taught; empty at the first start.

    Counters need their last reading; a host that is asleep or silent cannot tell its facts and VMs.
    """

    hosts: Mapping[str, Host] = field(default_factory=dict)
    readings: Mapping[str, HostReading] = field(default_factory=dict)  # last good one per host
    host_tracks: Mapping[str, Track] = field(default_factory=dict)
    vm_tracks: Mapping[str, Track] = field(default_factory=dict)
    pasts: Mapping[str, Past] = field(default_factory=dict)
    placement: Mapping[str, str] = field(default_factory=dict)
    overhead: Mapping[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the readings tell of demand. Doubts are readings that are not believed, by name."""

    loads: dict[str, Load]
    host_loads: dict[str, Load]
    forecasts: dict[str, Forecast]
    overhead: dict[str, tuple[float, int]]
    vm_tracks: dict[str, Track]
    host_tracks: dict[str, Track]
    pasts: dict[str, Past]
    vm_doubts: dict[str, Doubt]
    host_doubts: dict[str, Doubt]


def measure(
    known: Known,
    good: Mapping[str, HostReading],
    hosts: Mapping[str, Host],
    where: Whereabouts,
    silent: Collection[str],
    detection: Detection,
) -> Measured:
    """Loads of VMs and hosts. `good` readings are of now; `silent` hosts have no load."""
    vms, placement = where.vms, where.placement
    host_tracks, host_doubts = _follow_hosts(known, good, hosts, detection.window)
    vm_tracks, vm_doubts = _follow_vms(known, good, hosts, where, detection.window)
    pasts = _remembered(known, vm_tracks)
    loads = {name: track.load for name in vms if (track := vm_tracks.get(name)) and track.load}
    changed = _changed_hosts(known.placement, placement)
    host_tracks |= {n: _forgetful(host_tracks[n]) for n in changed if n in host_tracks}
    host_loads = {
        name: track.load
        for name, track in host_tracks.items()
        if track.load and name in hosts and name not in silent and name not in host_doubts
    }
    overhead = _overheads(host_loads, loads, placement)
    overhead |= {n: known.overhead.get(n, (0.0, 0)) for n in changed if n in overhead}
    host_loads |= _reckoned(changed & host_loads.keys(), host_loads, loads, placement, overhead)
    return Measured(
        loads=loads,
        host_loads=host_loads,
        forecasts=_forecasts(vms, pasts, detection.trusted_after),
        overhead=overhead,
        vm_tracks=vm_tracks,
        host_tracks=host_tracks,
        pasts=pasts,
        vm_doubts=vm_doubts,
        host_doubts=host_doubts,
    )


def _follow_hosts(
    known: Known, good: Mapping[str, HostReading], hosts: Mapping[str, Host], window: float
) -> tuple[dict[str, Track], dict[str, Doubt]]:
    """Every host's track; a host that was away starts a new one when it comes back."""
    tracks: dict[str, Track] = {}
    doubts: dict[str, Doubt] = {}
    for name, reading in good.items():
        if reading.counters is None:
            continue
        host = hosts[name]
        old = known.host_tracks.get(name)
        track = follow_host(old, name, reading.at, reading.counters, host.cpu, _core(host), window)
        if isinstance(track, Doubt):
            doubts[name] = track
            if old:
                tracks[name] = old
        else:
            tracks[name] = track
    return tracks, doubts


def _core(host: Host) -> float:
    """What one core of the host is worth in reference cores."""
    return host.cpu / host.cores if host.cores else 1.0


def _follow_vms(
    known: Known,
    good: Mapping[str, HostReading],
    hosts: Mapping[str, Host],
    where: Whereabouts,
    window: float,
) -> tuple[dict[str, Track], dict[str, Doubt]]:
    """The track of every VM that is placed; only the copy that runs tells of its demand."""
    tracks: dict[str, Track] = {}
    doubts: dict[str, Doubt] = {}
    for name, host in where.placement.items():
        old = known.vm_tracks.get(name)
        reading = good.get(host)
        copy = next(c for c in where.copies[name] if c.host == host)
        if reading is None or copy.reading.state is not VMState.RUNNING:
            if old:
                tracks[name] = old
            continue
        counters = copy.reading.counters
        track: Track | Doubt = Doubt("the host gives no statistics for it", missing=True)
        if counters is not None:
            size, core = copy.reading.vm.size, _core(hosts[host])
            track = follow_vm(old, host, reading.at, counters, size, core, window)
        if isinstance(track, Doubt):
            doubts[name] = track
            if old:
                tracks[name] = old
        else:
            tracks[name] = track
    return tracks, doubts


def _remembered(known: Known, tracks: Mapping[str, Track]) -> dict[str, Past]:
    """Each VM's past with its newest point; VMs that are gone are forgotten."""
    pasts: dict[str, Past] = {}
    for name, track in tracks.items():
        old = known.pasts.get(name)
        if track.points:
            pasts[name] = remember(old, track.points[-1].at, track.points[-1].cpu)
        elif old:
            pasts[name] = old
    return pasts


def _forecasts(
    vms: Mapping[str, VM], pasts: Mapping[str, Past], trusted_after: float
) -> dict[str, Forecast]:
    others = crowd((past.level, vms[name].size) for name, past in pasts.items() if name in vms)
    return {
        name: expect(pasts.get(name), vm.size, trusted_after, others) for name, vm in vms.items()
    }


def _overheads(
    host_loads: Mapping[str, Load], loads: Mapping[str, Load], placement: Mapping[str, str]
) -> dict[str, tuple[float, int]]:
    """What each host uses beyond its VMs: CPU in reference cores (window mean), memory in bytes."""
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, int] = defaultdict(int)
    for vm, load in loads.items():
        cpu[placement[vm]] += load.cpu_mean
        memory[placement[vm]] += load.memory
    return {
        host: (max(load.cpu_mean - cpu[host], 0.0), max(load.memory - memory[host], 0))
        for host, load in host_loads.items()
    }


def _changed_hosts(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[str]:
    """Hosts that VMs came to or left since the last observation; none at the first one."""
    moved = {vm for vm in before.keys() | after.keys() if before.get(vm) != after.get(vm)}
    return frozenset(
        host for vm in moved for host in (before.get(vm), after.get(vm)) if before and host
    )


def _forgetful(track: Track) -> Track:
    """The track of a host whose VMs changed: what was measured before tells nothing of now."""
    return replace(track, points=())


def _reckoned(
    changed: Iterable[str],
    host_loads: Mapping[str, Load],
    loads: Mapping[str, Load],
    placement: Mapping[str, str],
    overhead: Mapping[str, tuple[float, int]],
) -> dict[str, Load]:
    """Loads of hosts whose VMs just changed: the sum of those that are there now.

    Measured figures still hold those that left: a host that was relieved would seem overloaded
    until the window has passed, and be relieved again.
    """
    here: dict[str, list[Load]] = {host: [] for host in changed}
    for vm, load in loads.items():
        if placement[vm] in here:
            here[placement[vm]].append(load)
    return {
        host: replace(
            host_loads[host],
            cpu=sum(load.cpu for load in found) + overhead[host][0],
            cpu_mean=sum(load.cpu_mean for load in found) + overhead[host][0],
            memory=sum(load.memory for load in found) + overhead[host][1],
        )
        for host, found in here.items()
    }
