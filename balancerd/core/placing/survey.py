"""From values to arrays: draws up the layout of a snapshot under a policy.

Most of a site is the same in the next snapshot: hosts, VMs, blocks, groups and reach are worked out
anew only where what they rest on changed. What the snapshot tells is put together once for it, with
what the past says once for a moment: a plan is made and begun on the same ground.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np

from balancerd.core.columns import Forecasts, Loads, loads_of, rows_where, taken
from balancerd.core.model import ABSURD_BYTES, ABSURD_CORES, Cluster, Host, Snapshot
from balancerd.core.outcome import Outcome
from balancerd.core.past.breakers import State, all_done, breakers
from balancerd.core.past.history import History, rests_until
from balancerd.core.past.objections import ANY, Objection, Objections, objections
from balancerd.core.placing.groups import Blocks, blocks_of, groups_of
from balancerd.core.placing.inventory import Guests, Hosts, guests_of, hosts_of
from balancerd.core.placing.layout import (
    UNSEEN_SHARE,
    UNSEEN_SPREAD,
    Bools,
    Floats,
    Ints,
    Layout,
)
from balancerd.core.placing.movable import felt, fixed_vms
from balancerd.core.placing.pools import lay_out_pools
from balancerd.core.placing.reach import reach
from balancerd.core.placing.room import big_vm
from balancerd.core.placing.seating import homes, landing_seat, lay_out_nodes
from balancerd.core.plain import as_dict
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.same import Alike, Same


def lay_out(snapshot: Snapshot, policy: Policy, history: History, now: float) -> Layout:
    """The layout of what was observed. A VM on a host that does not exist is left out."""
    return _with_past(Same(snapshot), Same(policy), Same(history), now).copy()


def ground(snapshot: Snapshot, policy: Policy) -> Layout:
    """The same without what was done before, to look at only: nobody changes this layout."""
    return _drawn_up(Same(snapshot), Same(policy))


@lru_cache(maxsize=1)
def _with_past(
    snapshot: Same[Snapshot], policy: Same[Policy], history: Same[History], now: float
) -> Layout:
    """With what was done before; nobody changes this layout."""
    layout = _drawn_up(snapshot, policy).copy()
    seen, by, past, block_of = snapshot.value, policy.value, history.value, layout.block_of
    fixed = fixed_vms(seen, by, past, now)
    layout.fixed = {block_of[vm]: fixed[vm] for vm in sorted(fixed, reverse=True) if vm in block_of}
    layout.barred = _barred(layout.host_row, by, past, now)
    layout.returning = _returning(block_of, layout.host_row, seen, by, past, now)
    layout.objected = _objected(block_of, layout.host_row, seen, by, past, now)
    return layout


@lru_cache(maxsize=1)
def _drawn_up(snapshot: Same[Snapshot], policy: Same[Policy]) -> Layout:
    """What depends neither on the past nor on the time; nobody changes this layout."""
    cluster = snapshot.value.cluster
    rules = rules_in_force(cluster, policy.value)
    hosts = hosts_of(_in_order(Same(cluster.hosts)), policy, Alike(rules))
    guests, place = _placed(guests_of(Same(cluster.vms)), hosts, cluster)
    blocks = blocks_of(guests.names, snapshot.value, rules)
    at = np.zeros(len(blocks.names), dtype=np.int64)
    at[blocks.home] = place
    demand = _Demand.of(guests, blocks, hosts.core[place], snapshot.value)
    layout = _composed(snapshot.value, policy.value, hosts, guests, blocks, demand, at)
    _charge(layout)
    if policy.value.objective is Objective.DEFRAGMENT:
        size = big_vm(layout)
        layout.big = size.vcpus, size.memory
    return layout


@lru_cache(maxsize=1)
def _in_order(hosts: Same[Mapping[str, Host]]) -> Alike[Host]:
    return Alike(tuple(hosts.value[name] for name in sorted(hosts.value)))


def _placed(guests: Guests, hosts: Hosts, cluster: Cluster) -> tuple[Guests, Ints]:
    """The VMs on hosts that there are, and the row of each one's host.

    One that comes from a host that there is not counts where it is going to; one of which nobody
    knows where it is counts nowhere.
    """
    row, placement = hosts.row, as_dict(cluster.placement)
    homes = map(placement.get, guests.names, repeat(""))
    place = np.array(list(map(row.get, homes, repeat(-1))), dtype=np.int64)
    if cluster.flights:
        for index in rows_where(place < 0).tolist():
            name = guests.names[index]
            target = cluster.flights.get(name, "") if name in placement else ""
            place[index] = row.get(target, -1)
    return guests.only(place >= 0), place[place >= 0]


@dataclass(frozen=True, eq=False, slots=True)
class _Demand:
    """What each block asks for. A VM of which nothing is known counts with a guess on the safe
    side."""

    now: Floats  # CPU at this moment, what it waits for included
    cpu: Floats  # expected
    variance: Floats
    wavering: Floats  # of the variance, what comes back by itself
    memory: Floats
    vcpus: Floats

    @classmethod
    def of(cls, guests: Guests, blocks: Blocks, cores: Floats, snapshot: Snapshot) -> "_Demand":
        """`cores` is what a core is worth where each VM is."""
        forecasts = Forecasts.of(snapshot.forecasts)
        rows = forecasts.rows(guests.names)
        cpu, spread = taken(forecasts.cpu, rows), taken(forecasts.spread, rows)
        known = (np.abs(cpu) < ABSURD_CORES) & (np.abs(spread) < ABSURD_CORES)
        cpu = np.where(known, np.maximum(cpu, 0.0), UNSEEN_SHARE * guests.sizes)
        spread = np.where(known, np.maximum(spread, 0.0), UNSEEN_SPREAD * guests.sizes)
        expected = blocks.summed(cpu)
        now = blocks.summed(_asked(guests, cores, snapshot))
        return cls(
            np.where(np.abs(now) < ABSURD_CORES, np.maximum(now, 0.0), expected),
            expected,
            blocks.summed(spread * spread),
            blocks.summed(np.where(np.append(forecasts.wavers, False)[rows], spread * spread, 0.0)),
            blocks.summed(guests.memory),
            blocks.summed(guests.vcpus),
        )


def _asked(guests: Guests, cores: Floats, snapshot: Snapshot) -> Floats:
    """CPU that each VM asks for now; NaN where that is not known.

    A VM that may use less than one whole core waits for that one, so what it waits for is a share
    of the core and not of its own size.
    """
    loads = loads_of(snapshot)
    rows = loads.rows(guests.names)
    with np.errstate(invalid="ignore"):  # nothing waits for cores without end: not known
        waits = taken(loads.steal, rows) * np.maximum(guests.sizes, cores)
    return taken(loads.cpu, rows) + waits


def _composed(
    snapshot: Snapshot,
    policy: Policy,
    hosts: Hosts,
    guests: Guests,
    blocks: Blocks,
    demand: _Demand,
    place: Ints,
) -> Layout:
    """The layout with nothing on its hosts yet but their overhead."""
    cluster, rules = snapshot.cluster, rules_in_force(snapshot.cluster, policy)
    found = reach(blocks, place, hosts, cluster.vms, rules)
    grouped = groups_of(Alike(rules), Same(blocks))
    now, absurd = _measured(hosts, snapshot)
    open_ = _open(hosts, snapshot) & ~absurd
    return Layout(
        snapshot=snapshot,
        policy=policy,
        hosts=hosts.names,
        host_row=hosts.row,
        cpu_capacity=hosts.cpu_capacity,
        memory_capacity=hosts.memory_capacity,
        vcpu_capacity=hosts.vcpu_capacity,
        receives=open_ & ~_among(hosts, snapshot.draining),
        gives=open_,
        peak=hosts.peak,
        curves=hosts.curves,
        domains=hosts.domains,
        used_now=now,
        used_cpu=_overhead(hosts, snapshot, 0),
        used_memory=_overhead(hosts, snapshot, 1),
        vms=guests.names,
        vm_sizes=guests.sizes,
        home=blocks.home,
        blocks=blocks.names,
        block_of=blocks.of,
        sizes=blocks.sizes,
        now=demand.now,
        cpu=demand.cpu,
        variance=demand.variance,
        wavering=demand.wavering,
        memory=demand.memory,
        vcpus=demand.vcpus,
        origin=place,
        signature=found.signature,
        rules=rules,
        allowed=found.allowed,
        reachable=found.reachable,
        aversion=found.aversion,
        needs=found.needs,
        bound=found.bound,
        groups=grouped.groups,
        groups_of=grouped.of,
        nodes=lay_out_nodes(hosts.values, blocks.names, snapshot, policy),
        pools=lay_out_pools(hosts.values, blocks.names, cluster.vms),
    )


def _measured(hosts: Hosts, snapshot: Snapshot) -> tuple[Floats, Bools]:
    """CPU of each host now, 0 where it is not known; and whether what is told of it is absurd."""
    loads = Loads.of(snapshot.host_loads)
    now = np.full(len(hosts.names), np.nan)
    told = [(hosts.row[name], row) for row, name in enumerate(loads.names) if name in hosts.row]
    now[[row for row, _ in told]] = loads.cpu[[row for _, row in told]]
    sane = (now >= 0) & (now < ABSURD_CORES)
    return np.where(sane, now, 0.0), ~sane & ~np.isnan(now)


def _overhead(hosts: Hosts, snapshot: Snapshot, which: int) -> Floats:
    values = np.zeros(len(hosts.names))
    for name, told in snapshot.overhead.items():
        if name in hosts.row:
            values[hosts.row[name]] = told[which]
    return np.where(np.abs(values) < ABSURD_BYTES, np.maximum(values, 0.0), 0.0)


def _open(hosts: Hosts, snapshot: Snapshot) -> Bools:
    """Hosts that VMs may leave or enter at all."""
    absurd = {
        name
        for name, (cpu, memory) in snapshot.overhead.items()
        if not (0 <= cpu < ABSURD_CORES and 0 <= memory < ABSURD_BYTES)
    }
    closed = snapshot.unknown_hosts() | absurd
    return hosts.open & ~_among(hosts, closed)


def _among(hosts: Hosts, names: frozenset[str] | set[str]) -> Bools:
    """Which hosts have one of these names."""
    among = np.zeros(len(hosts.names), dtype=np.bool_)
    among[[hosts.row[name] for name in names if name in hosts.row]] = True
    return among


def _barred(
    row: Mapping[str, int], policy: Policy, history: History, now: float
) -> dict[int, dict[int, float]]:
    """Pairs of hosts in back-off; a host in back-off is in it with every other."""
    barred: dict[int, dict[int, float]] = {}
    if all_done(history.moves):
        return barred
    found = breakers(history, policy.limits, now)
    pairs = list(found.pairs.items())
    for host, one in found.hosts.items():
        pairs += [(way, one) for other in row for way in ((host, other), (other, host))]
    for (source, target), one in pairs:
        if one.state is State.OPEN and source in row and target in row:
            until = barred.setdefault(row[source], {})
            until[row[target]] = max(one.until, until.get(row[target], 0.0))
    return barred


def _returning(
    block_of: Mapping[str, int],
    row: Mapping[str, int],
    snapshot: Snapshot,
    policy: Policy,
    history: History,
    now: float,
) -> dict[int, dict[int, float]]:
    """Where blocks came from: a VM goes back only after twice its rest, unless its host drains."""
    returning: dict[int, dict[int, float]] = {}
    for vm, moves in sorted(felt(Same(history), now, Same(policy.limits)).items()):
        last = moves[-1]
        if vm not in block_of or last.outcome is not Outcome.DONE or last.source not in row:
            continue
        rest = rests_until(moves, policy.limits) - last.at
        if last.at + 2.0 * rest > now and snapshot.cluster.placement[vm] not in snapshot.draining:
            returning.setdefault(block_of[vm], {})[row[last.source]] = last.at + 2.0 * rest
    return returning


def _objected(
    block_of: Mapping[str, int],
    row: Mapping[str, int],
    snapshot: Snapshot,
    policy: Policy,
    history: History,
    now: float,
) -> dict[int, dict[int, Objection]]:
    """Where blocks do not go because their hosts objected."""
    objected: dict[int, dict[int, Objection]] = {}
    found, placement = objections(history, policy.limits, now), snapshot.cluster.placement
    if found.hosts:
        closed = {source: _closed(found, source, row) for source in row}
        for vm in block_of:
            objected.setdefault(block_of[vm], {}).update(closed.get(placement[vm], {}))
    for (vm, target), said in sorted(found.moves.items()):
        if vm in block_of and target in row:
            objected.setdefault(block_of[vm], {})[row[target]] = said
    return objected


def _closed(found: Objections, source: str, row: Mapping[str, int]) -> dict[int, Objection]:
    """The hosts to which nothing goes from this one."""
    named = {target for start, target in found.hosts if start in (source, ANY)}
    targets = row.keys() - {source} if ANY in named else row.keys() & named - {source}
    said = {target: found.between(source, target) for target in sorted(targets)}
    return {row[target]: one for target, one in said.items() if one is not None}


def _charge(layout: Layout) -> None:
    """Put every block on its host, and those under way on their target too."""
    place = layout.place
    for used, amount in (
        (layout.used_cpu, layout.cpu),
        (layout.used_variance, layout.variance),
        (layout.used_memory, layout.memory),
        (layout.used_vcpus, layout.vcpus),
    ):
        np.add.at(used, place, amount)
    np.add.at(layout.used_count, place, layout.sizes)
    for block in sorted(layout.groups_of):
        for group, count in layout.groups_of[block]:
            domain = int(layout.domains[layout.groups[group].scope][place[block]])
            counts = layout.present[group]
            counts[domain] = counts.get(domain, 0) + count
    if layout.pools:
        layout.pools.settle(place)
    if layout.nodes:
        layout.nodes.settle(homes(layout.nodes, layout.snapshot, place.tolist()))
    for vm, target in sorted(layout.snapshot.cluster.flights.items()):
        if vm in layout.block_of and target in layout.host_row:
            _charge_flight(layout, layout.block_of[vm], layout.host_row[target])


def _charge_flight(layout: Layout, block: int, target: int) -> None:
    source = layout.place[block]
    if source == target:
        return
    nodes, snapshot = layout.nodes, layout.snapshot
    seat = landing_seat(nodes, snapshot, block, target) if nodes else None
    layout.charge(block, target, seat=seat)
    for group, count in layout.groups_of.get(block, ()):
        if layout.groups[group].kind.endswith("together"):  # where it will be is what counts
            domain = int(layout.domains[layout.groups[group].scope][source])
            layout.present[group][domain] -= count
    layout.leaving_cpu[source] += layout.cpu[block]
    layout.leaving_variance[source] += layout.variance[block]
    layout.leaving_memory[source] += layout.memory[block]
