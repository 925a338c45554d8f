"""Rules about VMs among each other: which VMs move as one, and which belong to which group."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from balancerd.core.model import Host, Snapshot
from balancerd.core.placing.layout import Floats, Group, Ints
from balancerd.core.policies.rule import ConstraintRule, matches, meant
from balancerd.core.same import Alike, Same

AMONG_VMS = ("apart", "together", "one-of")


@dataclass(frozen=True, eq=False, slots=True)
class Blocks:
    """The sets in which VMs move: the names in each block, and the block of each name."""

    names: tuple[tuple[str, ...], ...]
    of: dict[str, int]
    home: Ints  # the same by VM, in their own order
    sizes: Ints  # by block, how many VMs it is

    @classmethod
    def named(cls, names: tuple[tuple[str, ...], ...], vms: Sequence[str]) -> "Blocks":
        """The blocks of these names, made of these VMs."""
        of = {vm: index for index, block in enumerate(names) for vm in block}
        home = np.array([of[vm] for vm in vms], dtype=np.int64)
        return cls(names, of, home, np.bincount(home, minlength=len(names)))

    def summed(self, values: Floats) -> Floats:
        """What the VMs have, by block."""
        return np.bincount(self.home, values, len(self.names)).astype(np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """The groups, and for each block those that it belongs to, with how many of its VMs."""

    groups: list[Group]
    of: dict[int, tuple[tuple[int, int], ...]]


def blocks_of(vms: tuple[str, ...], snapshot: Snapshot, rules: Sequence[ConstraintRule]) -> Blocks:
    """Sets of VMs on one host that "together" rules tie to each other; VMs under way stay alone."""
    tying = [r for r in rules if r.kind == "together" and r.scope == "host" and r.weight is None]
    if not tying:
        return _alone(Same(vms))
    cluster = snapshot.cluster
    return _tied(Same(vms), Same(cluster.placement), Same(cluster.flights), Alike(tuple(tying)))


@lru_cache(maxsize=1)
def _alone(vms: Same[tuple[str, ...]]) -> Blocks:
    return Blocks.named(tuple((vm,) for vm in vms.value), vms.value)


@lru_cache(maxsize=1)
def _tied(
    vms: Same[tuple[str, ...]],
    placement: Same[Mapping[str, str]],
    flights: Same[Mapping[str, str]],
    rules: Alike[ConstraintRule],
) -> Blocks:
    leader: dict[str, str] = {}

    def find(vm: str) -> str:
        while leader.get(vm, vm) != vm:
            vm = leader[vm]
        return vm

    here = set(vms.value) - flights.value.keys()
    for rule in rules.value:
        first: dict[str, str] = {}
        for vm in meant(here, rule.vms):
            a, b = find(first.setdefault(placement.value[vm], vm)), find(vm)
            leader[max(a, b)] = min(a, b)
    blocks: defaultdict[str, list[str]] = defaultdict(list)
    for vm in vms.value:
        blocks[find(vm)].append(vm)
    return Blocks.named(tuple(tuple(blocks[vm]) for vm in sorted(blocks)), vms.value)


@lru_cache(maxsize=1)
def groups_of(rules: Alike[ConstraintRule], blocks: Same[Blocks]) -> Groups:
    """The groups that rules make of the VMs of these blocks."""
    groups: list[Group] = []
    block_of, counts = blocks.value.of, defaultdict[int, Counter[int]](Counter)
    for rule in rules.value:
        if rule.kind not in AMONG_VMS:
            continue
        for vm in meant(block_of, rule.vms):
            counts[block_of[vm]][len(groups)] += 1
        groups.append(_group(rule))
    return Groups(groups, {block: tuple(sorted(count.items())) for block, count in counts.items()})


def _group(rule: ConstraintRule) -> Group:
    kind = "apart" if rule.kind == "apart" else "together"
    scope = scope_of(rule)
    if rule.weight is None:
        return Group(rule.name, kind, scope, rule.at_most)
    return Group(rule.name, f"rather {kind}", scope, rule.at_most, rule.weight)


def scope_of(rule: ConstraintRule) -> str:
    """What a rule's domains are called: hosts, racks, or the groups of hosts that it names."""
    return " | ".join(rule.hosts) if rule.kind == "one-of" else rule.scope


def domains_of(hosts: Sequence[Host], rules: Sequence[ConstraintRule]) -> dict[str, Ints]:
    """By scope the number of the domain that each host lies in.

    What has no rack, or is in none of a rule's groups, is a domain of its own. A host in two
    groups counts to the first.
    """
    domains = {
        "host": np.arange(len(hosts), dtype=np.int64),
        "rack": _numbered([host.rack and f"rack {host.rack}" for host in hosts]),
    }
    for rule in rules:
        if rule.kind == "one-of" and scope_of(rule) not in domains:
            domains[scope_of(rule)] = _numbered(
                [next((g for g in rule.hosts if matches(h.name, (g,))), "") for h in hosts]
            )
    return domains


def _numbered(names: Sequence[str]) -> Ints:
    """Equal names get equal numbers; those without a name one each."""
    numbers: dict[str | int, int] = {}
    return np.array(
        [numbers.setdefault(name or row, len(numbers)) for row, name in enumerate(names)],
        dtype=np.int64,
    )
