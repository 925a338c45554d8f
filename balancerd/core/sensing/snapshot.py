"""From readings of single hosts to one picture of the site, with what is not known named."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.model import (
    ABSURD_BYTES,
    ABSURD_CORES,
    Cluster,
    Exclusion,
    ExclusionKind,
    Gap,
    GapKind,
    Host,
    Link,
    PowerState,
    Snapshot,
    VMState,
)
from balancerd.core.moving.tie import ties
from balancerd.core.observation import HostReading, Observation, VMReadings
from balancerd.core.policies.tables import Detection
from balancerd.core.same import Same, kept
from balancerd.core.sensing.counters import Doubt
from balancerd.core.sensing.measurement import Known, Measured, Showing, measure
from balancerd.core.sensing.whereabouts import Whereabouts, whereabouts

# A member of an enumeration is looked up slowly, and these are asked for once for every host.
_UNKNOWN, _OFF = PowerState.UNKNOWN, PowerState.OFF
_SHOULD_ANSWER = (_UNKNOWN, PowerState.ON)


def assemble(
    observation: Observation,
    known: Known,
    power: Mapping[str, PowerState],
    detection: Detection,
    links: tuple[Link, ...] = (),
    draining: frozenset[str] = frozenset(),
    doubted: frozenset[str] = frozenset(),
) -> tuple[Snapshot, Known]:
    """One snapshot out of an observation, and what is to be remembered for the next one.

    `power` holds the state of hosts that gave no reading and whose power driver was asked;
    `doubted` are those whose driver is not believed.
    """
    now = observation.at
    found, gaps = _hosts(observation, known, power, detection)
    hosts = kept(_doubting(found, doubted), known.shown)
    answers = (r for r in observation.readings if not r.error and r.facts is not None)
    good = {reading.host: _by_columns(reading) for reading in answers}
    readings = {**known.readings, **good}
    shown = tuple(
        readings[name]
        for name, host in hosts.items()
        if name in readings and (name in good or _carries(host))
    )
    where = whereabouts(shown, good.keys(), known.where)
    silent = {gap.name for gap in gaps}
    measured = measure(known, Showing(hosts, good, shown, where, silent), detection)
    gaps += [
        Gap("host", name, GapKind.ABSURD, doubt.detail, now)
        for name, doubt in measured.host_doubts.items()
        if name not in silent
    ]
    unknown = {gap.name for gap in gaps}
    snapshot = Snapshot(
        at=now,
        cluster=_cluster(hosts, where, links),
        loads=measured.loads,
        host_loads=measured.host_loads,
        forecasts=measured.forecasts,
        overhead=MappingProxyType(measured.overhead),
        gaps=(*gaps, *_vm_gaps(where, measured, unknown, detection, now)),
        exclusions=tuple(
            _exclusions(where, measured.vm_doubts, unknown, _maybe_off(where, hosts, readings))
        ),
        split_brains=where.split_brains,
        draining=draining & hosts.keys(),
    )
    return snapshot, Known(
        hosts={**known.hosts, **{name: r.facts for name, r in good.items() if r.facts}},
        readings=readings,
        host_tracks=measured.host_tracks,
        vm_tracks=measured.vm_tracks,
        pasts=measured.pasts,
        profile=measured.profile,
        where=where,
        shown=hosts,
        overhead={**known.overhead, **measured.overhead},
    )


def _by_columns(reading: HostReading) -> HostReading:
    if isinstance(reading.vms, VMReadings):
        return reading
    return replace(reading, vms=VMReadings.of(reading.vms))


def _cluster(hosts: Mapping[str, Host], where: Whereabouts, links: tuple[Link, ...]) -> Cluster:
    ways = (where.placement, where.flights, links, where.landing)
    return Cluster(hosts, where.vms, *ways)


def freeze_reason(snapshot: Snapshot, detection: Detection) -> str:
    """Why nothing may be done on what this snapshot shows; "" when something may."""
    if snapshot.split_brains:
        split = snapshot.split_brains[0]
        return f"{split.vm} ({split.uuid}) runs on {' and '.join(split.hosts)} at once"
    unknown = snapshot.unknown_hosts()
    if not unknown:
        return ""
    asked = [h for h in snapshot.cluster.hosts.values() if h.power is not PowerState.OFF]
    if len(unknown) > detection.unknown_hosts * len(asked):
        return f"{len(unknown)} of {len(asked)} hosts are not known: {', '.join(sorted(unknown))}"
    return ""


def _doubting(hosts: dict[str, Host], doubted: frozenset[str]) -> dict[str, Host]:
    """The hosts, each with whether its power driver is believed now; what is recalled may say
    otherwise."""
    off = [name for name, host in hosts.items() if host.driver_doubted != (name in doubted)]
    told = {name: replace(hosts[name], driver_doubted=name in doubted) for name in off}
    return {**hosts, **told} if told else hosts


def _carries(host: Host) -> bool:
    """Whether VMs last seen on the host are still to be reckoned with."""
    return host.power is not _OFF


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
            state = power.get(name, _UNKNOWN)
            host = facts or Host(name, 0.0, 0)
            hosts[name] = host if host.power is state else replace(host, power=state)
            if state in _SHOULD_ANSWER:
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
    if facts is not None and not (0 < facts.cpu < ABSURD_CORES and 0 < facts.memory < ABSURD_BYTES):
        detail = f"{facts.cpu} cores, {facts.memory} bytes"
        return Gap("host", reading.host, GapKind.ABSURD, detail, reading.at)
    return None


def _twins(observation: Observation) -> list[Gap]:
    """Hosts that claim the same UUID: libvirt takes them for one machine, so neither is touched."""
    told = [r for r in observation.readings if r.facts and r.facts.uuid]
    uuids = [r.facts.uuid for r in told if r.facts]
    if len(set(uuids)) == len(uuids):
        return []
    by_uuid: dict[str, list[HostReading]] = defaultdict(list)
    for uuid, reading in zip(uuids, told, strict=True):
        by_uuid[uuid].append(reading)
    return [
        Gap("host", r.host, GapKind.DUPLICATE_UUID, f"{uuid} is also another host's", r.at)
        for uuid in sorted(uuid for uuid, readings in by_uuid.items() if len(readings) > 1)
        for r in by_uuid[uuid]
    ]


def _vm_gaps(
    where: Whereabouts,
    measured: Measured,
    unknown: Collection[str],
    detection: Detection,
    now: float,
) -> Iterable[Gap]:
    """Running VMs whose demand is not known well: no figures, absurd ones, or too few yet."""
    loads = measured.vm_tracks.loads
    known_for = np.where(np.isnan(loads.cpu), 0.0, now - loads.since)
    rows = rows_where(known_for < detection.warm_up).tolist()
    fresh = {loads.names[row]: float(known_for[row]) for row in rows}
    for name in sorted(measured.vm_doubts.keys() | fresh.keys()):
        if where.vms[name].state is not VMState.RUNNING or where.placement[name] in unknown:
            continue
        doubt = measured.vm_doubts.get(name)
        if doubt:
            kind = GapKind.NO_STATS if doubt.missing else GapKind.ABSURD
            yield Gap("vm", name, kind, doubt.detail, now)
        else:
            known = fresh[name]
            yield Gap("vm", name, GapKind.WARMING_UP, f"seen for {known:.0f} s", now - known)


def _exclusions(
    where: Whereabouts,
    doubts: Mapping[str, Doubt],
    unknown: Collection[str],
    maybe_off: Mapping[str, Exclusion],
) -> Iterable[Exclusion]:
    """VMs that no plan may move, each with its first reason."""
    placement, tied = where.placement, ties(Same(where.vms))
    away = {name for name, host in placement.items() if host in unknown} if unknown else set()
    told = where.ambiguous | maybe_off.keys() | tied.keys() | away | where.busy | doubts.keys()
    for name in sorted(told):
        if name in where.ambiguous:
            yield Exclusion(name, ExclusionKind.AMBIGUOUS_NAME, "another VM has the same name")
        elif name in where.twice:
            yield Exclusion(name, ExclusionKind.DEFINED_TWICE, "several hosts have its definition")
        elif name in maybe_off:
            yield maybe_off[name]
        elif name in tied:
            yield tied[name]
        elif name in away:
            yield Exclusion(name, ExclusionKind.HOST_GAP, placement[name])
        elif name in where.busy:
            yield Exclusion(name, ExclusionKind.FOREIGN_JOB, "a migration is under way")
        else:
            yield Exclusion(name, _exclusion_kind(doubts[name]), doubts[name].detail)


def _maybe_off(
    where: Whereabouts, hosts: Mapping[str, Host], readings: Mapping[str, HostReading]
) -> dict[str, Exclusion]:
    """VMs that are shut off and may be defined on a host that is off as well, which nobody can ask.

    Nothing changes there while it is off: what it had when it was last read it still has. Of one
    that was not read since balancerd was started nothing is known.
    """
    if not where.shut_off:
        return {}
    dark = [name for name in sorted(hosts) if not _carries(hosts[name])]
    unread = next((name for name in dark if name not in readings), "")
    had = {
        vm.vm.name: name
        for name in dark
        if name in readings
        for vm in VMReadings.of(readings[name].vms).shown
    }
    found: dict[str, Exclusion] = {}
    for name in where.shut_off:
        if name in had:
            detail = f"{had[name]}, which is off, had it when it was last read"
            found[name] = Exclusion(name, ExclusionKind.DEFINED_TWICE, detail)
        elif unread:
            detail = f"it may be defined on {unread}, too, which is off: wake that to have it asked"
            found[name] = Exclusion(name, ExclusionKind.HOST_GAP, detail)
    return found


def _exclusion_kind(doubt: Doubt) -> ExclusionKind:
    return ExclusionKind.NO_STATS if doubt.missing else ExclusionKind.ABSURD
