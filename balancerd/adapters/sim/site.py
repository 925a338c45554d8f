"""What a scenario describes, built: hosts, links, VMs with demand, and where each VM starts."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, inf
from pathlib import Path
from types import MappingProxyType

import numpy as np

from balancerd.adapters.sim.generator import generate
from balancerd.adapters.sim.load import Floats, LoadSource, Recorded, read_trace_directory
from balancerd.adapters.sim.scenario import Flavour, LoadKind, Scenario
from balancerd.core.columns import rows_where
from balancerd.core.model import EMPTY, VM, Disk, Host, Link

CORE = "core"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "sim.balancerd")


class ScenarioError(Exception):
    """A scenario whose parts do not fit together: one sentence."""


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that stays as it is while a scenario runs, and the placement at its start.

    `flavours`, `vms` and the demand's columns are in one order; `placement` gives for each VM the
    index of its host.
    """

    scenario: Scenario
    hosts: tuple[Host, ...]
    links: tuple[Link, ...]
    vms: tuple[VM, ...]
    flavours: tuple[Flavour, ...]
    load: LoadSource
    placement: tuple[int, ...]


def build(scenario: Scenario, trace: Path | None = None, recorded: Recorded | None = None) -> Site:
    """The site of a scenario; `trace` goes before the load that the scenario names.

    LoadError where the load cannot be read, ScenarioError where the parts do not fit together.
    """
    names, demand = _load(scenario, trace, recorded)
    flavours = tuple(_flavours(scenario, len(names)))
    vms = tuple(map(partial(_vm, scenario.name), names, flavours))
    real = _hosts(scenario)
    _check_faults(scenario, real, names)
    limited = scenario.memory == "enforced"
    return Site(
        scenario=scenario,
        hosts=real if limited else _with_room_for_all(real, vms),
        links=tuple(_links(scenario, real)),
        vms=vms,
        flavours=flavours,
        load=demand(np.array([vm.size for vm in vms])),
        placement=_placed(scenario, real, vms),
    )


Demand = Callable[[Floats], LoadSource]  # from the sizes of the VMs


def _load(
    scenario: Scenario, trace: Path | None, recorded: Recorded | None
) -> tuple[Sequence[str], Demand]:
    """The VMs' names, and their demand once their sizes are known."""
    load = scenario.load
    if trace or load.kind is LoadKind.TRACE:
        if not (trace or load.path):
            raise ScenarioError(f"{scenario.name}: needs a trace directory (--trace DIR)")
        found = read_trace_directory(
            trace or Path(load.path), ceil(scenario.duration / load.step - 1e-9)
        )
        return found.names, partial(found.table, load.step)
    if load.kind is LoadKind.RECORDED:
        if recorded is None:
            raise ScenarioError(f"{scenario.name}: needs a record to take its load from")
        return recorded.names, lambda _: recorded.table
    return _numbered(scenario.vms.name, scenario.vm_count or 0), partial(_generated, scenario)


def _generated(scenario: Scenario, sizes: Floats) -> LoadSource:
    load = scenario.load
    return generate(sizes, scenario.start, scenario.duration, load.step, load.level, load.seed)


def _numbered(pattern: str, count: int, first: int = 0, step: int = 1) -> list[str]:
    return [pattern % number for number in range(first, first + count * step, step)]


def _flavours(scenario: Scenario, vms: int) -> Iterator[Flavour]:
    """The flavour of each VM: by the counts, or in as many equal blocks as there are flavours."""
    if scenario.vm_count not in (None, vms):
        raise ScenarioError(
            f"{scenario.name}: asks for {scenario.vm_count} VMs, but its load is for {vms}"
        )
    block = ceil(vms / len(scenario.flavours))
    left = vms
    for flavour in scenario.flavours:
        count = min(flavour.count or block, left)
        left -= count
        yield from [flavour] * count


def _vm(site: str, name: str, flavour: Flavour) -> VM:
    return VM(
        name=name,
        uuid=str(uuid.uuid5(_NAMESPACE, f"{site}/vm/{name}")),
        memory=flavour.memory,
        vcpus=flavour.vcpus,
        cpu=flavour.cpu,
        disks=tuple(_disks(name, flavour)),
        tags=MappingProxyType(dict(flavour.tags)) if flavour.tags else EMPTY,
    )


def _disks(name: str, flavour: Flavour) -> Iterator[Disk]:
    yield Disk(source=f"shared/{name}", shared=True)
    if flavour.local_disk:
        on_top, size = flavour.on_top, flavour.local_disk
        yield Disk(f"local/{name}", shared=False, size=size, allocated=on_top, based=bool(on_top))


def _hosts(scenario: Scenario) -> tuple[Host, ...]:
    """The hosts in the order of their names, dealt to the racks in blocks."""
    kinds = {
        name: kind
        for kind in scenario.hosts
        for name in _numbered(kind.name, kind.count, kind.first, kind.step)
    }
    if len(kinds) < sum(kind.count for kind in scenario.hosts):
        raise ScenarioError(f"{scenario.name}: two hosts have one name")
    network, sleeps = scenario.network, any(kind.power_curve for kind in scenario.hosts)
    return tuple(
        Host(
            name=name,
            uuid=str(uuid.uuid5(_NAMESPACE, f"{scenario.name}/host/{name}")),
            cpu=kind.cores * kind.speed,
            cores=kind.cores,
            memory=kind.memory,
            rack=network.rack_name % (index * network.racks // len(kinds)) if network.racks else "",
            cpu_model=kind.cpu_model,
            power_curve=kind.power_curve,
            can_sleep=sleeps,
        )
        for index, (name, kind) in enumerate(sorted(kinds.items()))
    )


def _check_faults(scenario: Scenario, hosts: Iterable[Host], vms: Iterable[str]) -> None:
    known_hosts, known_vms = {host.name for host in hosts}, set(vms)
    for fault in scenario.faults:
        if fault.host and fault.host not in known_hosts:
            raise ScenarioError(f'{scenario.name}: a fault strikes "{fault.host}", not a host')
        if fault.vm and fault.vm not in known_vms:
            raise ScenarioError(f'{scenario.name}: a fault strikes "{fault.vm}", not a VM')


def _with_room_for_all(hosts: tuple[Host, ...], vms: Sequence[VM]) -> tuple[Host, ...]:
    """Memory left out of the game: every host shows room for all VMs twice over."""
    memory = max(2 * sum(vm.memory for vm in vms), max(host.memory for host in hosts))
    return tuple(replace(host, memory=memory) for host in hosts)


def _links(scenario: Scenario, hosts: Iterable[Host]) -> Iterator[Link]:
    network = scenario.network
    for host in hosts:
        yield Link(host.name, host.rack or CORE, float(network.host))
    for rack in _numbered(network.rack_name, network.racks):
        yield Link(rack, CORE, float(network.rack))


def _placed(scenario: Scenario, hosts: Sequence[Host], vms: Sequence[VM]) -> tuple[int, ...]:
    """The index of each VM's first host, by what it asks for and not by any load.

    ScenarioError where a VM fits nowhere.
    """
    rule, limited = scenario.placement, scenario.memory == "enforced"
    room = [host.memory * rule.memory_limit if limited else inf for host in hosts]
    free = _Room(np.array([host.cpu for host in hosts]), np.array(room))
    if rule.rule == "random":
        return _at_random(vms, free, np.random.default_rng(rule.seed))
    return _best_fit(hosts, vms, free)


@dataclass(frozen=True, slots=True)
class _Room:
    """What is left on each host while VMs are placed: reference cores and bytes."""

    cpu: Floats
    memory: Floats

    def take(self, vm: VM, host: int) -> None:
        self.cpu[host] -= vm.size
        self.memory[host] -= vm.memory


def _nowhere(vm: VM) -> ScenarioError:
    return ScenarioError(f"{vm.name}: fits on no host at the start")


def _at_random(vms: Sequence[VM], free: _Room, random: np.random.Generator) -> tuple[int, ...]:
    """Each VM on any host with room in memory; CPU is shared, however many want it."""
    placement = []
    for vm in vms:
        candidates = rows_where(free.memory >= vm.memory)
        if not len(candidates):
            raise _nowhere(vm)
        placement.append(int(random.choice(candidates)))
        free.take(vm, placement[-1])
    return tuple(placement)


def _best_fit(hosts: Sequence[Host], vms: Sequence[VM], free: _Room) -> tuple[int, ...]:
    """Largest VM first, onto the host in use that it leaves fullest; where it fits on none, onto
    the empty host that does most work per watt."""
    cost = np.array([host.watts(1.0) / host.cpu for host in hosts])
    used = np.zeros(len(hosts), dtype=bool)
    placement = [0] * len(vms)
    for index in sorted(range(len(vms)), key=lambda i: (-vms[i].size, -vms[i].memory, i)):
        vm = vms[index]
        fits = (free.cpu >= vm.size - 1e-9) & (free.memory >= vm.memory)
        if not fits.any():
            raise _nowhere(vm)
        opened = fits & used
        rank = np.where(opened, free.cpu, inf) if opened.any() else np.where(fits, cost, inf)
        placement[index] = chosen = int(rank.argmin())
        used[chosen] = True
        free.take(vm, chosen)
    return tuple(placement)
