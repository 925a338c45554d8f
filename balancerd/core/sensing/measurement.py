"""Loads, forecasts and overheads out of readings, and what is remembered for the next ones."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from balancerd.core.columns import Bools, Floats, Forecasts, Ints, Loads
from balancerd.core.model import Host
from balancerd.core.observation import HostReading
from balancerd.core.plain import as_dict
from balancerd.core.policies.tables import Detection
from balancerd.core.sensing.counters import Doubt, seen_hosts, seen_vms
from balancerd.core.sensing.forecast import MEMORY, Pasts, crowd, expect, remember
from balancerd.core.sensing.load import Tracks, follow
from balancerd.core.sensing.profile import Profile, inflated
from balancerd.core.sensing.whereabouts import Whereabouts


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier observations taught; empty at the first start.

    Counters need their last reading; a host that is asleep or silent cannot tell its facts and VMs.
    """

    hosts: Mapping[str, Host] = field(default_factory=dict)
    readings: Mapping[str, HostReading] = field(default_factory=dict)  # last good one per host
    host_tracks: Tracks = field(default_factory=Tracks.none)
    vm_tracks: Tracks = field(default_factory=Tracks.none)
    pasts: Pasts = field(default_factory=lambda: Pasts.of({}))
    profile: Profile = field(default_factory=Profile.none)
    where: Whereabouts = field(default_factory=Whereabouts.nothing)
    shown: Mapping[str, Host] = field(default_factory=dict)  # of the last snapshot
    overhead: Mapping[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the readings tell of demand. Doubts are readings that are not believed, by name."""

    loads: Loads
    host_loads: Loads
    forecasts: Forecasts
    overhead: dict[str, tuple[float, int]]
    vm_tracks: Tracks
    host_tracks: Tracks
    pasts: Pasts
    profile: Profile
    vm_doubts: dict[str, Doubt]
    host_doubts: dict[str, Doubt]


@dataclass(frozen=True, slots=True)
class Showing:
    """What hosts show, and where VMs are by that. `silent` hosts are not believed."""

    hosts: Mapping[str, Host]
    good: Mapping[str, HostReading]  # of now
    readings: tuple[HostReading, ...]  # those that `where` was made of
    where: Whereabouts
    silent: Collection[str]


def measure(known: Known, showing: Showing, detection: Detection) -> Measured:
    """Loads of VMs and hosts; silent hosts have none."""
    where, window = showing.where, detection.window
    host_tracks, host_doubts = _follow_hosts(known, showing, window)
    vm_tracks, vm_doubts = _follow_vms(known, showing, window)
    changed = _changed_hosts(known.where.read_on, where.read_on)
    if changed:
        host_tracks = host_tracks.forget(changed)
    rated = ~np.isnan(vm_tracks.loads.cpu)
    loads = vm_tracks.loads.only(rated)
    unmeasured = {*showing.silent, *host_doubts}
    host_loads = host_tracks.loads.only(
        ~np.isnan(host_tracks.loads.cpu)
        & np.array([name not in unmeasured for name in host_tracks.names], dtype=np.bool_)
    )
    carried = _Carried.by(host_loads, loads, where, rated)
    overhead = _overheads(host_loads, carried)
    overhead |= {n: known.overhead.get(n, (0.0, 0)) for n in changed if n in overhead}
    pasts, profile = _remembered(known, vm_tracks)
    return Measured(
        loads=loads,
        host_loads=_reckoned(changed, host_loads, carried, overhead),
        forecasts=_forecasts(where, pasts, profile, detection),
        overhead=overhead,
        vm_tracks=vm_tracks,
        host_tracks=host_tracks,
        pasts=pasts,
        profile=profile,
        vm_doubts=vm_doubts,
        host_doubts=host_doubts,
    )


def _follow_hosts(known: Known, showing: Showing, window: float) -> tuple[Tracks, dict[str, Doubt]]:
    """Every host's track; a host that was away starts a new one when it comes back."""
    good = showing.good
    readings = {n: (r.at, r.counters) for n, r in good.items() if r.counters is not None}
    seen, doubts = seen_hosts(readings, showing.hosts)
    tracks, more = follow(known.host_tracks, seen, window)
    return tracks, doubts | more


def _follow_vms(known: Known, showing: Showing, window: float) -> tuple[Tracks, dict[str, Doubt]]:
    """The track of every VM that is placed; only the copy that runs tells of its demand."""
    seen, doubts = seen_vms(showing.where, showing.readings, showing.hosts)
    tracks, more = follow(known.vm_tracks, seen, window)
    return tracks, doubts | more


def _remembered(known: Known, tracks: Tracks) -> tuple[Pasts, Profile]:
    """Each VM's past and profile with its newest rate; VMs that are gone are forgotten."""
    pasts, profile = known.pasts.among(tracks.names), known.profile.among(tracks.names)
    points = tracks.points
    if not len(points.at) or np.isnan(points.at[-1]).all():
        return pasts, profile
    at, newest = points.at[-1], points.cpu[-1]
    cpu = np.where(np.isnan(at), np.nan, newest)
    return remember(pasts, at, newest), profile.read(float(np.fmax.reduce(at)), cpu)


def _forecasts(
    where: Whereabouts, pasts: Pasts, profile: Profile, detection: Detection
) -> Forecasts:
    """What is expected of each VM; its spread holds the part that a host's VMs have in common."""
    sizes = where.sizes
    turn = None
    if len(pasts.at) and not np.isnan(pasts.at).all():
        now = float(np.fmax.reduce(pasts.at))
        turn = profile.turn(now - MEMORY, now, now + detection.horizon)
    others = crowd(pasts.level, sizes)
    usual = profile.of_a_day()
    back_to = usual if detection.waver_share else None
    forecasts = expect(pasts, sizes, detection.trusted_after, others, turn, back_to)
    per_host = len(where.names) / max(where.peopled, 1)
    variance = inflated(forecasts.spread**2, profile.together.share, per_host)
    return replace(forecasts, spread=np.sqrt(variance), usual=usual)


@dataclass(frozen=True, slots=True)
class _Carried:
    """Sums over the VMs of each host that has a load: CPU now and in the mean, memory."""

    cpu: Floats
    cpu_mean: Floats
    memory: Ints

    @classmethod
    def by(cls, hosts: Loads, vms: Loads, where: Whereabouts, rated: Bools) -> "_Carried":
        """`rated` are the VMs of which there are loads."""
        nowhere = len(hosts)
        rows = [hosts.row.get(sight.host, nowhere) for sight in where.sights]
        place = np.array(rows, dtype=np.int64)[where.host[rated]]
        memory = np.zeros(nowhere + 1, dtype=np.int64)
        np.add.at(memory, place, vms.memory)
        return cls(
            np.bincount(place, vms.cpu, nowhere + 1)[:nowhere].astype(np.float64),
            np.bincount(place, vms.cpu_mean, nowhere + 1)[:nowhere].astype(np.float64),
            memory[:nowhere],
        )


def _overheads(hosts: Loads, carried: _Carried) -> dict[str, tuple[float, int]]:
    """What each host uses beyond its VMs: CPU in reference cores (window mean), memory in bytes."""
    cpu = np.maximum(hosts.cpu_mean - carried.cpu_mean, 0.0).tolist()
    memory = np.maximum(hosts.memory - carried.memory, 0).tolist()
    return dict(zip(hosts.names, zip(cpu, memory, strict=True), strict=True))


def _changed_hosts(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[str]:
    """Hosts that VMs came to or left since the last observation; none at the first one."""
    if not before or before is after or before == after:
        return frozenset()
    before = as_dict(before)
    moved = {vm for vm, host in after.items() if before.get(vm) != host}
    moved |= before.keys() - after.keys()
    return frozenset(host for vm in moved for host in (before.get(vm), after.get(vm)) if host)


def _reckoned(
    changed: Collection[str],
    hosts: Loads,
    carried: _Carried,
    overhead: Mapping[str, tuple[float, int]],
) -> Loads:
    """Loads of hosts, of those whose VMs just changed the sum of what is there now.

    Measured figures still hold those that left: a host that was relieved would seem overloaded
    until the window has passed, and be relieved again.
    """
    rows = [hosts.row[name] for name in sorted(changed) if name in hosts]
    if not rows:
        return hosts
    cpu, mean, memory = hosts.cpu.copy(), hosts.cpu_mean.copy(), hosts.memory.copy()
    cores, bytes_ = zip(*(overhead[hosts.names[row]] for row in rows), strict=True)
    cpu[rows] = carried.cpu[rows] + np.array(cores)
    mean[rows] = carried.cpu_mean[rows] + np.array(cores)
    memory[rows] = carried.memory[rows] + np.array(bytes_, dtype=np.int64)
    return replace(hosts, cpu=cpu, cpu_mean=mean, memory=memory)
