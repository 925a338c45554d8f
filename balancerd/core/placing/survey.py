"""From values to arrays: draws up the layout of a snapshot under a policy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from balancerd.core.columns import Forecasts, Loads, taken
from balancerd.core.model import ABSURD_BYTES, ABSURD_CORES, Host, PowerState, Snapshot
from balancerd.core.past.breakers import State, breakers
from balancerd.core.past.history import History, Outcome, rests_until
from balancerd.core.past.objections import ANY, Objection, Objections, objections
from balancerd.core.placing.groups import blocks_of, domains_of, groups_of
from balancerd.core.placing.layout import (
    CHARGED,
    UNSEEN_SHARE,
    UNSEEN_SPREAD,
    Bools,
    Floats,
    Ints,
    Layout,
    is_sane,
    memory_capacity,
)
from balancerd.core.placing.movable import fixed_vms
from balancerd.core.placing.pools import lay_out_pools
from balancerd.core.placing.reach import Reach, reach
from balancerd.core.placing.room import big_vm
from balancerd.core.placing.seating import homes, landing_seat, lay_out_nodes
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, meant
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.same import Same
from balancerd.core.sensing.counters import core_of


def lay_out(snapshot: Snapshot, policy: Policy, history: History, now: float) -> Layout:
    """The layout of what was observed. A VM on a host that does not exist is left out."""
    drawn = _drawn_once(Same(snapshot), Same(policy))
    fixed, block_of = fixed_vms(snapshot, policy, history, now), drawn.block_of
    return replace(
        drawn.copy(),
        fixed={block_of[vm]: fixed[vm] for vm in sorted(fixed, reverse=True) if vm in block_of},
        barred=_barred(drawn.host_row, policy, history, now),
        returning=_returning(block_of, drawn.host_row, snapshot, policy, history, now),
        objected=_objected(block_of, drawn.host_row, snapshot, policy, history, now),
    )


@lru_cache(maxsize=1)
def _drawn_once(snapshot: Same[Snapshot], policy: Same[Policy]) -> Layout:
    """What does not depend on the past or the time. What is planned on a snapshot is looked at
    again on the same one as it starts; nobody changes this layout."""
    return _drawn_up(snapshot.value, policy.value)


def _drawn_up(snapshot: Snapshot, policy: Policy) -> Layout:
    cluster = snapshot.cluster
    hosts = tuple(sorted(cluster.hosts))
    row = {name: index for index, name in enumerate(hosts)}
    values = [cluster.hosts[name] for name in hosts]
    vms = [
        name
        for name in sorted(cluster.vms)
        if cluster.placement.get(name) in row and cluster.vms[name].state in CHARGED
    ]
    rules = rules_in_force(cluster, policy)
    blocks = blocks_of(vms, snapshot, rules)
    block_of = {vm: index for index, block in enumerate(blocks) for vm in block}
    place = np.array([row[cluster.placement[block[0]]] for block in blocks], dtype=np.int64)
    home = np.array([block_of[vm] for vm in vms], dtype=np.int64)
    cores = _floats(core_of(host) for host in values)
    cpu, variance, memory, vcpus = _demands(vms, home, len(blocks), snapshot)
    groups, memberships = groups_of(rules, block_of)
    found = reach(blocks, place, values, cluster.vms, rules)
    spare = 1.0 - _kept_free(row, rules)
    now_used, absurd = _measured(hosts, snapshot)
    open_ = _open(values, snapshot, rules) & ~absurd
    count = len(hosts)
    layout = Layout(
        snapshot=snapshot,
        policy=policy,
        hosts=hosts,
        host_row=row,
        cpu_capacity=spare * _floats(host.cpu if is_sane(host) else 0.0 for host in values),
        memory_capacity=spare
        * _floats(memory_capacity(host, policy) if is_sane(host) else 0.0 for host in values),
        vcpu_capacity=_floats(
            (host.cores or host.cpu) * policy.capacity.cpu_overcommit if is_sane(host) else 0.0
            for host in values
        ),
        receives=open_ & _not_draining(hosts, snapshot),
        gives=open_,
        peak=_floats(host.power_curve[-1] if host.power_curve else 1.0 for host in values),
        curves=_curves(values),
        domains=domains_of(values, rules),
        used_now=now_used,
        used_cpu=_overhead(hosts, snapshot, 0),
        used_variance=np.zeros(count),
        used_memory=_overhead(hosts, snapshot, 1),
        used_vcpus=np.zeros(count),
        used_count=np.zeros(count, dtype=np.int64),
        leaving_cpu=np.zeros(count),
        leaving_variance=np.zeros(count),
        leaving_memory=np.zeros(count),
        blocks=blocks,
        block_of=block_of,
        now=_now(vms, home, cores[place[home]], cpu, snapshot),
        cpu=cpu,
        variance=variance,
        memory=memory,
        vcpus=vcpus,
        origin=place,
        place=place.copy(),
        signature=found.signature,
        fixed={},
        barred={},
        returning={},
        objected={},
        rules=rules,
        allowed=found.allowed,
        reachable=found.reachable,
        aversion=found.aversion,
        needs=found.needs,
        bound=_bound(found),
        groups=groups,
        groups_of=memberships,
        present=[{} for _ in groups],
        nodes=lay_out_nodes(values, blocks, snapshot, policy),
        pools=lay_out_pools(values, blocks, cluster.vms),
    )
    _charge(layout)
    if policy.objective is Objective.DEFRAGMENT:
        size = big_vm(layout)
        layout.big = size.vcpus, size.memory
    return layout


def _bound(found: Reach) -> Ints:
    """Blocks that pins or avoidances keep off some host."""
    free = np.asarray(found.allowed.all(axis=1))
    return np.flatnonzero(~free[found.signature])


def _floats(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def _measured(hosts: Sequence[str], snapshot: Snapshot) -> tuple[Floats, Bools]:
    """CPU of each host now, 0 where it is not known; and whether what is told of it is absurd."""
    loads = Loads.of(snapshot.host_loads)
    now = taken(loads.cpu, loads.rows(tuple(hosts)))
    sane = (now >= 0) & (now < ABSURD_CORES)
    return np.where(sane, now, 0.0), ~sane & ~np.isnan(now)


def _overhead(hosts: Sequence[str], snapshot: Snapshot, which: int) -> Floats:
    values = _floats(snapshot.overhead.get(name, (0.0, 0))[which] for name in hosts)
    return np.where(np.abs(values) < ABSURD_BYTES, np.maximum(values, 0.0), 0.0)


def _open(hosts: Sequence[Host], snapshot: Snapshot, rules: Sequence[ConstraintRule]) -> Bools:
    """Hosts that VMs may leave or enter at all."""
    names = snapshot.cluster.hosts
    barred = {
        name
        for rule in rules
        if rule.kind == "exclude" and not rule.vms
        for name in meant(names, rule.hosts)
    }
    absurd = {
        name
        for name, (cpu, memory) in snapshot.overhead.items()
        if not (0 <= cpu < ABSURD_CORES and 0 <= memory < ABSURD_BYTES)
    }
    closed = snapshot.unknown_hosts() | barred | absurd
    return np.array(
        [h.power is PowerState.ON and is_sane(h) and h.name not in closed for h in hosts],
        dtype=np.bool_,
    )


def _kept_free(row: Mapping[str, int], rules: Sequence[ConstraintRule]) -> Floats:
    """The share of each host that "headroom" rules keep free; of several the largest."""
    shares = np.zeros(len(row))
    for rule in rules:
        if rule.kind == "headroom":
            rows = [row[name] for name in meant(row, rule.hosts)]
            shares[rows] = np.maximum(shares[rows], rule.share or 0.0)
    return shares


def _not_draining(hosts: Sequence[str], snapshot: Snapshot) -> Bools:
    return np.array([name not in snapshot.draining for name in hosts], dtype=np.bool_)


def _curves(hosts: Sequence[Host]) -> tuple[tuple[Floats, Ints], ...]:
    """The different power curves, each with the rows of the hosts that have it."""
    rows: dict[tuple[float, ...], list[int]] = {}
    for row, host in enumerate(hosts):
        if host.power_curve:
            rows.setdefault(host.power_curve, []).append(row)
    return tuple((_floats(curve), np.array(found)) for curve, found in rows.items())


def _demands(
    vms: Sequence[str], home: Ints, count: int, snapshot: Snapshot
) -> tuple[Floats, Floats, Floats, Floats]:
    """CPU, variance of CPU, memory and vCPUs of each block; `home` is the block of each VM.

    A VM of which nothing is known counts with a guess on the safe side.
    """
    values = [snapshot.cluster.vms[name] for name in vms]
    forecasts = Forecasts.of(snapshot.forecasts)
    rows = forecasts.rows(tuple(vms))
    cpu, spread = taken(forecasts.cpu, rows), taken(forecasts.spread, rows)
    known = (np.abs(cpu) < ABSURD_CORES) & (np.abs(spread) < ABSURD_CORES)
    sizes = _floats(vm.size for vm in values)
    cpu = np.where(known, np.maximum(cpu, 0.0), UNSEEN_SHARE * sizes)
    spread = np.where(known, np.maximum(spread, 0.0), UNSEEN_SPREAD * sizes)
    memory = _floats(min(max(0, vm.memory), ABSURD_BYTES) for vm in values)
    vcpus = _floats(vm.vcpus for vm in values)
    sums = [_summed(home, x, count) for x in (cpu, spread * spread, memory, vcpus)]
    return sums[0], sums[1], sums[2], sums[3]


def _summed(home: Ints, values: Floats, count: int) -> Floats:
    return np.bincount(home, values, count).astype(np.float64)


def _now(
    vms: Sequence[str], home: Ints, cores: Floats, expected: Floats, snapshot: Snapshot
) -> Floats:
    """CPU each block asks for now, what it waits for included; else what is expected of it.

    `cores` is what a core is worth where each VM is: a VM that may use less than one whole core
    waits for that one, so what it waits for is a share of the core and not of its own size.
    """
    loads = Loads.of(snapshot.loads)
    rows = loads.rows(tuple(vms))
    sizes = _floats(snapshot.cluster.vms[name].size for name in vms)
    asked = taken(loads.cpu, rows) + taken(loads.steal, rows) * np.maximum(sizes, cores)
    sums = _summed(home, asked, len(expected))
    return np.where(np.abs(sums) < ABSURD_CORES, np.maximum(sums, 0.0), expected)


def _barred(
    row: Mapping[str, int], policy: Policy, history: History, now: float
) -> dict[int, dict[int, float]]:
    """Pairs of hosts in back-off; a host in back-off is in it with every other."""
    barred: dict[int, dict[int, float]] = {}
    if all(move.outcome is Outcome.DONE for move in history.moves):
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
    for vm, moves in sorted(history.felt(now, policy.limits).items()):
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
            objected.setdefault(block_of[vm], {}).update(closed[placement[vm]])
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
    sizes = np.array([len(block) for block in layout.blocks], dtype=np.int64)
    np.add.at(layout.used_count, place, sizes)
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
