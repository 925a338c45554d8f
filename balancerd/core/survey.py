"""From values to arrays: draws up the layout of a snapshot under a policy."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from balancerd.core.history import History, Outcome, barred_until, rests_until
from balancerd.core.layout import (
    CHARGED,
    Bools,
    Floats,
    Group,
    Ints,
    Layout,
    demand,
    is_sane,
    memory_capacity,
)
from balancerd.core.model import Host, PowerState, Snapshot
from balancerd.core.movable import fixed_vms
from balancerd.core.policy import ConstraintRule, Policy, matches, meant

Key = tuple[tuple[int, ...], str | None]


def lay_out(snapshot: Snapshot, policy: Policy, history: History, now: float) -> Layout:
    """The layout of what was observed. A VM on a host that does not exist is left out."""
    cluster = snapshot.cluster
    hosts = tuple(sorted(cluster.hosts))
    row = {name: index for index, name in enumerate(hosts)}
    values = [cluster.hosts[name] for name in hosts]
    vms = [
        name
        for name in sorted(cluster.vms)
        if cluster.placement.get(name) in row and cluster.vms[name].state in CHARGED
    ]
    blocks = _blocks(vms, snapshot, policy)
    block_of = {vm: index for index, block in enumerate(blocks) for vm in block}
    place = np.array([row[cluster.placement[block[0]]] for block in blocks], dtype=np.int64)
    cpu, variance, memory, vcpus = _demands(blocks, snapshot)
    domains = _domains(values)
    groups, groups_of = _groups(policy, block_of)
    signature, allowed, reachable = _reach(blocks, place, values, snapshot, policy)
    fixed = fixed_vms(snapshot, policy, history, now)
    count = len(hosts)
    layout = Layout(
        snapshot=snapshot,
        policy=policy,
        hosts=hosts,
        host_row=row,
        cpu_capacity=_floats(host.cpu if is_sane(host) else 0.0 for host in values),
        memory_capacity=_floats(
            memory_capacity(host, policy) if is_sane(host) else 0.0 for host in values
        ),
        vcpu_capacity=_floats(
            (host.cores or host.cpu) * policy.capacity.cpu_overcommit for host in values
        ),
        receives=_open(values, snapshot, policy) & _not_draining(hosts, snapshot),
        gives=_open(values, snapshot, policy),
        peak=_floats(host.watts(1.0) or 1.0 for host in values),
        curves=_curves(values),
        domains=domains,
        used_now=_measured(hosts, snapshot),
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
        now=_now(blocks, cpu, snapshot),
        cpu=cpu,
        variance=variance,
        memory=memory,
        vcpus=vcpus,
        origin=place,
        place=place.copy(),
        signature=signature,
        fixed={block_of[vm]: fixed[vm] for vm in sorted(fixed, reverse=True) if vm in block_of},
        barred=_barred(row, policy, history, now),
        returning=_returning(block_of, row, snapshot, policy, history, now),
        allowed=allowed,
        reachable=reachable,
        groups=groups,
        groups_of=groups_of,
        present=[{} for _ in groups],
    )
    _charge(layout)
    return layout


def _floats(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def _measured(hosts: Sequence[str], snapshot: Snapshot) -> Floats:
    loads = snapshot.host_loads
    return _floats(loads[name].cpu if name in loads else 0.0 for name in hosts)


def _overhead(hosts: Sequence[str], snapshot: Snapshot, which: int) -> Floats:
    values = _floats(snapshot.overhead.get(name, (0.0, 0))[which] for name in hosts)
    return np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0)


def _open(hosts: Sequence[Host], snapshot: Snapshot, policy: Policy) -> Bools:
    """Hosts that VMs may leave or enter at all."""
    unknown = snapshot.unknown_hosts()
    barred = [rule.hosts for rule in policy.constraint if rule.kind == "exclude" and not rule.vms]
    return np.array(
        [
            host.power is PowerState.ON
            and is_sane(host)
            and host.name not in unknown
            and not any(matches(host.name, globs) for globs in barred)
            for host in hosts
        ],
        dtype=np.bool_,
    )


def _not_draining(hosts: Sequence[str], snapshot: Snapshot) -> Bools:
    return np.array([name not in snapshot.draining for name in hosts], dtype=np.bool_)


def _curves(hosts: Sequence[Host]) -> tuple[tuple[Floats, Ints], ...]:
    """The different power curves, each with the rows of the hosts that have it."""
    rows: dict[tuple[float, ...], list[int]] = {}
    for row, host in enumerate(hosts):
        if host.power_curve:
            rows.setdefault(host.power_curve, []).append(row)
    return tuple((_floats(curve), np.array(found)) for curve, found in rows.items())


def _domains(hosts: Sequence[Host]) -> dict[str, Ints]:
    """The domain of each host: itself, or its rack; a host without a rack is a rack of its own."""
    racks: dict[str, int] = {}
    for host in hosts:
        racks.setdefault(host.rack or f"\0{host.name}", len(racks))
    return {
        "host": np.arange(len(hosts), dtype=np.int64),
        "rack": np.array([racks[h.rack or f"\0{h.name}"] for h in hosts], dtype=np.int64),
    }


def _blocks(vms: Sequence[str], snapshot: Snapshot, policy: Policy) -> tuple[tuple[str, ...], ...]:
    """Sets of VMs on one host that "together" rules tie to each other; VMs under way stay alone."""
    placement, flights = snapshot.cluster.placement, snapshot.cluster.flights
    leader: dict[str, str] = {}

    def find(vm: str) -> str:
        while leader.get(vm, vm) != vm:
            vm = leader[vm]
        return vm

    for rule in policy.constraint:
        if rule.kind != "together" or rule.scope != "host":
            continue
        first: dict[str, str] = {}
        members = set(meant(snapshot.cluster.vms, rule.vms))
        for vm in vms:
            if vm not in flights and vm in members:
                a, b = find(first.setdefault(placement[vm], vm)), find(vm)
                leader[max(a, b)] = min(a, b)
    blocks: defaultdict[str, list[str]] = defaultdict(list)
    for vm in vms:
        blocks[find(vm)].append(vm)
    return tuple(tuple(blocks[vm]) for vm in sorted(blocks))


def _demands(
    blocks: Sequence[Sequence[str]], snapshot: Snapshot
) -> tuple[Floats, Floats, Floats, Floats]:
    """CPU, variance of CPU, memory and vCPUs of each block."""
    sums = np.zeros((4, len(blocks)))
    vms, forecasts = snapshot.cluster.vms, snapshot.forecasts
    for index, block in enumerate(blocks):
        for name in block:
            vm = vms[name]
            cpu, spread = demand(vm, forecasts.get(name))
            sums[0, index] += cpu
            sums[1, index] += spread * spread
            sums[2, index] += max(0, vm.memory)
            sums[3, index] += vm.vcpus
    return sums[0], sums[1], sums[2], sums[3]


def _now(blocks: Sequence[Sequence[str]], cpu: Floats, snapshot: Snapshot) -> Floats:
    """CPU each block asks for now, what it waits for included; else what is expected of it."""
    loads, vms = snapshot.loads, snapshot.cluster.vms
    now = cpu.copy()
    for index, block in enumerate(blocks):
        if all(vm in loads and np.isfinite(loads[vm].cpu + loads[vm].steal) for vm in block):
            asked = (loads[vm].cpu + loads[vm].steal * vms[vm].size for vm in block)
            now[index] = max(0.0, sum(asked))
    return now


def _groups(
    policy: Policy, block_of: Mapping[str, int]
) -> tuple[list[Group], dict[int, tuple[tuple[int, int], ...]]]:
    """The rules about VMs among each other, and which blocks belong to them."""
    groups: list[Group] = []
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for index, rule in enumerate(policy.constraint):
        if rule.kind not in ("apart", "together"):
            continue
        for vm in meant(block_of, rule.vms):
            counts[block_of[vm]][len(groups)] += 1
        groups.append(Group(rule.name or f"constraint[{index}]", rule.kind, rule.scope))
    return groups, {block: tuple(sorted(count.items())) for block, count in counts.items()}


def _reach(
    blocks: Sequence[Sequence[str]],
    place: Ints,
    hosts: Sequence[Host],
    snapshot: Snapshot,
    policy: Policy,
) -> tuple[Ints, list[Bools], list[Bools]]:
    """Blocks of equal signature can go to the same hosts, which is worked out once for each."""
    rules = [
        (index, rule)
        for index, rule in enumerate(policy.constraint)
        if rule.kind in ("pin", "avoid") or (rule.kind == "exclude" and rule.vms and rule.hosts)
    ]
    numbers: dict[Key, int] = {}
    signature = np.zeros(len(blocks), dtype=np.int64)
    vms = snapshot.cluster.vms
    rules_of: defaultdict[str, set[int]] = defaultdict(set)
    for number, rule in rules:
        for vm in meant(vms, rule.vms):
            rules_of[vm].add(number)
    for index, block in enumerate(blocks):
        about = tuple(sorted({number for vm in block for number in rules_of.get(vm, ())}))
        model = None
        if any(vms[vm].cpu_model == "host-passthrough" for vm in block):
            model = hosts[place[index]].cpu_model
        signature[index] = numbers.setdefault((about, model), len(numbers))
    allowed = [_allowed(key, hosts, policy.constraint) for key in numbers]
    reachable = [
        bools & _unbarred(key, hosts, policy.constraint)
        for bools, key in zip(allowed, numbers, strict=True)
    ]
    return signature, allowed, reachable


def _allowed(key: Key, hosts: Sequence[Host], rules: Sequence[ConstraintRule]) -> Bools:
    """Hosts in every pin and in no avoidance of a signature."""
    allowed = np.ones(len(hosts), dtype=np.bool_)
    for index in key[0]:
        rule = rules[index]
        if rule.kind in ("pin", "avoid"):
            inside = np.array([matches(host.name, rule.hosts) for host in hosts], dtype=np.bool_)
            allowed &= inside if rule.kind == "pin" else ~inside
    return allowed


def _unbarred(key: Key, hosts: Sequence[Host], rules: Sequence[ConstraintRule]) -> Bools:
    """Hosts that no exclusion closes, and whose CPU is the one the VM was started on."""
    open_ = np.ones(len(hosts), dtype=np.bool_)
    for index in key[0]:
        if rules[index].kind == "exclude":
            globs = rules[index].hosts
            open_ &= np.array([not matches(host.name, globs) for host in hosts], dtype=np.bool_)
    if key[1] is not None:
        same = [bool(key[1]) and host.cpu_model == key[1] for host in hosts]
        open_ &= np.array(same, dtype=np.bool_)
    return open_


def _barred(
    row: Mapping[str, int], policy: Policy, history: History, now: float
) -> dict[int, dict[int, float]]:
    """Pairs of hosts in back-off."""
    barred: dict[int, dict[int, float]] = {}
    for (source, target), moves in sorted(history.by_pair().items()):
        until = barred_until(moves, policy.limits)
        if until > now and source in row and target in row:
            barred.setdefault(row[source], {})[row[target]] = until
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
    for vm, moves in sorted(history.by_vm().items()):
        last = moves[-1]
        if vm not in block_of or last.outcome is not Outcome.DONE or last.source not in row:
            continue
        rest = rests_until(moves, policy.limits) - last.at
        if last.at + 2.0 * rest > now and snapshot.cluster.placement[vm] not in snapshot.draining:
            returning.setdefault(block_of[vm], {})[row[last.source]] = last.at + 2.0 * rest
    return returning


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
    for vm, target in sorted(layout.snapshot.cluster.flights.items()):
        if vm in layout.block_of and target in layout.host_row:
            _charge_flight(layout, layout.block_of[vm], layout.host_row[target])


def _charge_flight(layout: Layout, block: int, target: int) -> None:
    source = layout.place[block]
    if source == target:
        return
    layout.charge(block, target)
    for group, count in layout.groups_of.get(block, ()):
        if layout.groups[group].kind == "together":  # where it will be is what counts
            domain = int(layout.domains[layout.groups[group].scope][source])
            layout.present[group][domain] -= count
    layout.leaving_cpu[source] += layout.cpu[block]
    layout.leaving_variance[source] += layout.variance[block]
    layout.leaving_memory[source] += layout.memory[block]
