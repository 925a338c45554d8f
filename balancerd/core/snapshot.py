"""From readings of single hosts to one picture of the site, with what is not known named.

`Known` carries over from cycle to cycle what counters need (the last reading) and what a host that
is asleep or silent cannot tell now (its facts, its VMs).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from balancerd.core.forecast import Past, crowd, expect, remember
from balancerd.core.load import Doubt, Track, follow_host, follow_vm
from balancerd.core.model import (
    VM,
    Cluster,
    Exclusion,
    ExclusionKind,
    Forecast,
    Gap,
    GapKind,
    Host,
    Link,
    Load,
    PowerState,
    Snapshot,
    SplitBrain,
    VMState,
)
from balancerd.core.observation import HostReading, Observation, VMReading
from balancerd.core.policy import Detection

# States in which a VM holds memory on its host.
ACTIVE = frozenset(
    {
        VMState.RUNNING,
        VMState.PAUSED,
        VMState.INCOMING,
        VMState.OUTGOING,
        VMState.POSTCOPY_FAILED,
        VMState.OTHER,
    }
)
# Which of several copies of a VM says where it is; the first in this order that is found.
_PRECEDENCE = (
    VMState.RUNNING,
    VMState.OUTGOING,
    VMState.POSTCOPY_FAILED,
    VMState.PAUSED,
    VMState.OTHER,
    VMState.CRASHED,
    VMState.SHUTOFF,
    VMState.INCOMING,
    VMState.MIGRATED,
)
_RANK = {state: rank for rank, state in enumerate(_PRECEDENCE)}


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier observations taught; empty at the first start."""

    hosts: Mapping[str, Host] = field(default_factory=dict)
    readings: Mapping[str, HostReading] = field(default_factory=dict)  # last good one per host
    host_tracks: Mapping[str, Track] = field(default_factory=dict)
    vm_tracks: Mapping[str, Track] = field(default_factory=dict)
    pasts: Mapping[str, Past] = field(default_factory=dict)
    placement: Mapping[str, str] = field(default_factory=dict)
    overhead: Mapping[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copy:
    """One VM as one host shows it; not fresh: as it showed it when it last answered."""

    host: str
    reading: VMReading
    fresh: bool


def assemble(
    observation: Observation,
    known: Known,
    power: Mapping[str, PowerState],
    detection: Detection,
    links: tuple[Link, ...] = (),
    draining: frozenset[str] = frozenset(),
) -> tuple[Snapshot, Known]:
    """One snapshot out of an observation, and what is to be remembered for the next one.

    `power` holds the state of hosts that gave no reading and whose power driver was asked.
    """
    now = observation.at
    hosts, gaps = _hosts(observation, known, power, detection)
    silent = {gap.name for gap in gaps}
    good = {r.host: r for r in observation.readings if not r.error and r.facts is not None}
    readings = {**known.readings, **good}
    shown = {name: readings[name] for name in hosts if name in readings and _carries(hosts[name])}
    copies, ambiguous = _copies(shown.values(), good.keys())
    vms, placement, flights = _place(copies)
    host_tracks, doubts = _follow_hosts(known, good, hosts, detection.window)
    gaps += [
        Gap("host", name, GapKind.ABSURD, doubt.detail, now)
        for name, doubt in doubts.items()
        if name not in silent
    ]
    vm_tracks, vm_doubts = _follow_vms(known, good, hosts, placement, copies, detection.window)
    pasts = _remember(known, vm_tracks)
    loads = {name: track.load for name in vms if (track := vm_tracks.get(name)) and track.load}
    unknown = {gap.name for gap in gaps}
    changed = _changed(known.placement, placement)
    host_tracks |= {n: _forgetful(host_tracks[n]) for n in changed if n in host_tracks}
    host_loads = {
        name: track.load
        for name, track in host_tracks.items()
        if track.load and name in hosts and name not in unknown
    }
    overhead = _overhead(host_loads, loads, placement)
    overhead |= {n: known.overhead.get(n, (0.0, 0)) for n in changed if n in overhead}
    host_loads |= _reckoned(changed & host_loads.keys(), host_loads, loads, placement, overhead)
    gaps += _vm_gaps(vms, vm_doubts, vm_tracks, placement, unknown, detection, now)
    cluster = Cluster(
        MappingProxyType(hosts),
        MappingProxyType(vms),
        MappingProxyType(placement),
        MappingProxyType(flights),
        links,
    )
    snapshot = Snapshot(
        at=now,
        cluster=cluster,
        loads=MappingProxyType(loads),
        host_loads=MappingProxyType(host_loads),
        forecasts=MappingProxyType(_forecasts(vms, pasts, detection.trusted_after)),
        overhead=MappingProxyType(overhead),
        gaps=tuple(gaps),
        exclusions=tuple(_exclusions(copies, vms, placement, ambiguous, unknown, vm_doubts)),
        split_brains=tuple(_split_brains(good.values())),
        draining=draining & hosts.keys(),
    )
    facts = {**known.hosts, **{name: r.facts for name, r in good.items() if r.facts}}
    return snapshot, Known(
        facts, readings, host_tracks, vm_tracks, pasts, placement, {**known.overhead, **overhead}
    )


def freeze_reason(snapshot: Snapshot, detection: Detection) -> str:
    """Why nothing may be done on what this snapshot shows; "" when something may."""
    if snapshot.split_brains:
        split = snapshot.split_brains[0]
        return f"{split.vm} ({split.uuid}) runs on {' and '.join(split.hosts)} at once"
    asked = [h for h in snapshot.cluster.hosts.values() if h.power is not PowerState.OFF]
    unknown = snapshot.unknown_hosts()
    if len(unknown) > detection.unknown_hosts * len(asked):
        return f"{len(unknown)} of {len(asked)} hosts are not known: {', '.join(sorted(unknown))}"
    return ""


def _carries(host: Host) -> bool:
    """Whether VMs last seen on the host are still to be reckoned with."""
    return host.power is not PowerState.OFF


def _hosts(
    observation: Observation,
    known: Known,
    power: Mapping[str, PowerState],
    detection: Detection,
) -> tuple[dict[str, Host], list[Gap]]:
    """Every host that was asked, with the gaps of those that did not answer well."""
    hosts: dict[str, Host] = {}
    gaps: list[Gap] = []
    for reading in sorted(observation.readings, key=lambda r: r.host):
        name = reading.host
        facts = reading.facts or known.hosts.get(name)
        if reading.error or reading.facts is None:
            state = power.get(name, PowerState.UNKNOWN)
            hosts[name] = replace(facts or Host(name, 0.0, 0), power=state)
            if state in (PowerState.UNKNOWN, PowerState.ON):
                since = known.readings[name].at if name in known.readings else observation.at
                gaps.append(Gap("host", name, GapKind.UNREACHABLE, reading.error, since))
            continue
        hosts[name] = reading.facts
        gap = _distrust(reading, observation.at, detection.stale_after)
        if gap:
            gaps.append(gap)
    return hosts, gaps + _twins(observation)


def _distrust(reading: HostReading, now: float, stale_after: float) -> Gap | None:
    """Why a reading that arrived is not believed."""
    facts = reading.facts
    age = now - reading.at
    if age > stale_after:
        return Gap("host", reading.host, GapKind.STALE, f"last read {age:.0f} s ago", reading.at)
    if reading.counters is None:
        return Gap("host", reading.host, GapKind.NO_STATS, "no CPU or memory figures", reading.at)
    if facts is not None and not (0 < facts.cpu < 1e6 and 0 < facts.memory < 2**60):
        detail = f"{facts.cpu} cores, {facts.memory} bytes"
        return Gap("host", reading.host, GapKind.ABSURD, detail, reading.at)
    return None


def _twins(observation: Observation) -> list[Gap]:
    """Hosts that claim the same UUID: libvirt takes them for one machine, so neither is touched."""
    by_uuid: dict[str, list[HostReading]] = defaultdict(list)
    for reading in observation.readings:
        if reading.facts is not None and reading.facts.uuid:
            by_uuid[reading.facts.uuid].append(reading)
    return [
        Gap("host", r.host, GapKind.DUPLICATE_UUID, f"{uuid} is also another host's", r.at)
        for uuid, readings in sorted(by_uuid.items())
        if len(readings) > 1
        for r in readings
    ]


def _copies(
    readings: Iterable[HostReading], fresh: Collection[str]
) -> tuple[dict[str, list[Copy]], frozenset[str]]:
    """All copies of each VM, and the VMs whose name stands for more than one UUID.

    Those are told apart as "name@host", so that each still counts on its host.
    """
    by_name: dict[str, list[Copy]] = defaultdict(list)
    for reading in readings:
        for vm in reading.vms:
            by_name[vm.vm.name].append(Copy(reading.host, vm, reading.host in fresh))
    copies: dict[str, list[Copy]] = {}
    ambiguous: set[str] = set()
    for name, found in by_name.items():
        if len(found) == 1 or len({copy.reading.vm.uuid for copy in found}) == 1:
            copies[name] = found
            continue
        for copy in found:
            apart = f"{name}@{copy.host}"
            renamed = replace(copy.reading, vm=replace(copy.reading.vm, name=apart))
            copies.setdefault(apart, []).append(replace(copy, reading=renamed))
            ambiguous.add(apart)
    return copies, frozenset(ambiguous)


def _place(
    copies: Mapping[str, Sequence[Copy]],
) -> tuple[dict[str, VM], dict[str, str], dict[str, str]]:
    """VMs, where each is, and where those under way are going."""
    vms: dict[str, VM] = {}
    placement: dict[str, str] = {}
    flights: dict[str, str] = {}
    for name in sorted(copies):
        found = copies[name]
        main = found[0] if len(found) == 1 else min(found, key=lambda c: _standing(c))
        vm = main.reading.vm
        vms[name] = vm if vm.state is main.reading.state else replace(vm, state=main.reading.state)
        placement[name] = main.host
        if len(found) > 1:
            flights.update(_flight(name, main, found))
    return vms, placement, flights


def _standing(copy: Copy) -> tuple[bool, int, str]:
    """What one host shows now goes before what another one showed before it fell silent."""
    active = copy.reading.state in ACTIVE
    return (not (copy.fresh and active), _RANK[copy.reading.state], copy.host)


def _flight(name: str, main: Copy, found: Sequence[Copy]) -> dict[str, str]:
    """Where a VM is going: the host that holds the other active half of it."""
    halves = [c for c in found if c is not main and c.reading.state in ACTIVE]
    return {name: min(halves, key=_standing).host} if halves else {}


def _split_brains(readings: Iterable[HostReading]) -> list[SplitBrain]:
    """UUIDs that run on more than one host, whatever name they go by there.

    Hosts of one UUID may be one machine that was configured twice; what they both show is no proof.
    """
    running: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for reading in readings:
        machine = (reading.facts.uuid if reading.facts else "") or reading.host
        for vm in reading.vms:
            if vm.state is VMState.RUNNING and vm.vm.uuid:
                running[vm.vm.uuid].append((vm.vm.name, reading.host, machine))
    return [
        SplitBrain(min(found)[0], uuid, tuple(sorted(host for _, host, _ in found)))
        for uuid, found in sorted(running.items())
        if len({machine for _, _, machine in found}) > 1
    ]


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
    placement: Mapping[str, str],
    copies: Mapping[str, Sequence[Copy]],
    window: float,
) -> tuple[dict[str, Track], dict[str, Doubt]]:
    """The track of every VM that is placed; only the copy that runs tells of its demand."""
    tracks: dict[str, Track] = {}
    doubts: dict[str, Doubt] = {}
    for name, host in placement.items():
        old = known.vm_tracks.get(name)
        reading = good.get(host)
        copy = next(c for c in copies[name] if c.host == host)
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


def _remember(known: Known, tracks: Mapping[str, Track]) -> dict[str, Past]:
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


def _overhead(
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


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[str]:
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


def _vm_gaps(
    vms: Mapping[str, VM],
    doubts: Mapping[str, Doubt],
    tracks: Mapping[str, Track],
    placement: Mapping[str, str],
    unknown: set[str],
    detection: Detection,
    now: float,
) -> list[Gap]:
    """Running VMs whose demand is not known well: no figures, absurd ones, or too few yet."""
    gaps: list[Gap] = []
    for name, vm in vms.items():
        if vm.state is not VMState.RUNNING or placement[name] in unknown:
            continue
        if name in doubts:
            kind = GapKind.NO_STATS if doubts[name].missing else GapKind.ABSURD
            gaps.append(Gap("vm", name, kind, doubts[name].detail, now))
            continue
        load = tracks[name].load if name in tracks else None
        seen = now - load.since if load else 0.0
        if seen < detection.warm_up:
            gaps.append(Gap("vm", name, GapKind.WARMING_UP, f"seen for {seen:.0f} s", now - seen))
    return gaps


def _exclusions(
    copies: Mapping[str, Sequence[Copy]],
    vms: Mapping[str, VM],
    placement: Mapping[str, str],
    ambiguous: frozenset[str],
    unknown: set[str],
    doubts: Mapping[str, Doubt],
) -> Iterable[Exclusion]:
    """VMs that no plan may move, each with its first reason."""
    for name, vm in vms.items():
        if name in ambiguous:
            yield Exclusion(name, ExclusionKind.AMBIGUOUS_NAME, "another VM has the same name")
        elif vm.state is not VMState.RUNNING:
            yield Exclusion(name, ExclusionKind.NOT_RUNNING, vm.state.value)
        elif placement[name] in unknown:
            yield Exclusion(name, ExclusionKind.HOST_GAP, placement[name])
        elif any(copy.reading.job for copy in copies[name]):
            yield Exclusion(name, ExclusionKind.FOREIGN_JOB, "a migration is under way")
        elif name in doubts:
            yield Exclusion(name, _exclusion_kind(doubts[name]), doubts[name].detail)
        elif reason := _rooted(vm):
            yield reason


def _exclusion_kind(doubt: Doubt) -> ExclusionKind:
    return ExclusionKind.NO_STATS if doubt.missing else ExclusionKind.ABSURD


def _rooted(vm: VM) -> Exclusion | None:
    """What ties a VM to its host by its own definition."""
    if vm.owner:
        return Exclusion(vm.name, ExclusionKind.OTHER_OWNER, vm.owner)
    if vm.host_devices:
        return Exclusion(vm.name, ExclusionKind.HOST_DEVICE, ", ".join(vm.host_devices))
    local = [disk.source for disk in vm.disks if not disk.shared]
    if local:
        return Exclusion(vm.name, ExclusionKind.LOCAL_STORAGE, ", ".join(local))
    unsafe = [disk.source for disk in vm.disks if not disk.safe_cache]
    if unsafe:
        return Exclusion(vm.name, ExclusionKind.UNSAFE_CACHE, ", ".join(unsafe))
    return None
