"""Which hosts each block may go to, whatever they carry: pins, avoidances, and what VMs need.

Blocks about which the same is said have the same *signature*, and it is worked out once for each.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from balancerd.core.model import VM, Host
from balancerd.core.placing.groups import Blocks
from balancerd.core.placing.inventory import Hosts
from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.placing.needs import NOTHING, Needs, lacks, needs_of
from balancerd.core.policies.rule import ConstraintRule, meant
from balancerd.core.same import Alike, Same

# A rule, and how many VMs of the block it is about.
Key = tuple[tuple[tuple[int, int], ...], Needs]
ABOUT_PLACES = ("pin", "avoid", "one-of")


@dataclass(frozen=True, eq=False, slots=True)
class Reach:
    """By block its signature; by signature (rows) and host (columns) what the rules say."""

    signature: Ints
    allowed: Bools  # pins and avoidances leave it open
    reachable: Bools  # nothing about the VMs rules it out
    aversion: Floats  # what soft pins and avoidances cost there
    needs: tuple[Needs, ...]  # by signature
    bound: Ints  # blocks that pins or avoidances keep off some host


def reach(
    blocks: Blocks,
    place: Ints,
    hosts: Hosts,
    vms: Mapping[str, VM],
    rules: tuple[ConstraintRule, ...],
) -> Reach:
    """The reach of every block from the host that it is on.

    It is worked out anew only where a block has come to a host of another make.
    """
    makes = hosts.makes[place].tobytes()
    return _reach(Same(blocks), makes, Same(hosts), Same(vms), Alike(rules))


@lru_cache(maxsize=1)
def _reach(
    blocks: Same[Blocks],
    makes: bytes,
    hosts: Same[Hosts],
    vms: Same[Mapping[str, VM]],
    rules: Alike[ConstraintRule],
) -> Reach:
    """`makes`: of each block's host, as `Hosts.makes` has it."""
    homes = [hosts.value.values[row] for row in np.frombuffer(makes, dtype=np.int64).tolist()]
    signature, keys = _signatures(blocks.value.names, homes, vms.value, rules.value)
    allowed, open_, aversion = _by_signature(keys, hosts.value, rules.value)
    return Reach(
        signature,
        allowed,
        allowed & open_,
        aversion,
        tuple(needs for _, needs in keys),
        np.flatnonzero(~np.asarray(allowed.all(axis=1))[signature]),
    )


def _signatures(
    blocks: Sequence[Sequence[str]],
    homes: Sequence[Host],
    vms: Mapping[str, VM],
    rules: Sequence[ConstraintRule],
) -> tuple[Ints, tuple[Key, ...]]:
    """The signature of every block, and what each signature stands for."""
    about = _about(vms, rules)
    numbers: dict[Key, int] = {}
    signature = np.zeros(len(blocks), dtype=np.int64)
    known: dict[Hashable, int] = {}  # signatures of VMs by themselves that no rule is about
    for index, (block, home) in enumerate(zip(blocks, homes, strict=True)):
        vm = vms[block[0]]
        alone = len(block) == 1 and block[0] not in about
        machine = vm.machine if vm.machine in home.machines else ""
        alike = (vm.cpu_model, machine, home.cpu_model, *(disk.storage for disk in vm.disks))
        if alone and alike in known:
            signature[index] = known[alike]
            continue
        needs = needs_of([vms[vm] for vm in block], home)
        key = (_counted(block, about), needs)
        signature[index] = numbers.setdefault(key, len(numbers))
        if alone:
            known[alike] = int(signature[index])
    return signature, tuple(numbers)


def _counted(
    block: Sequence[str], about: Mapping[str, Sequence[int]]
) -> tuple[tuple[int, int], ...]:
    """The rules about a block's VMs, each with how many of them it is about."""
    if len(block) == 1:
        return tuple((number, 1) for number in about.get(block[0], ()))
    counts = Counter(number for vm in block for number in about.get(vm, ()))
    return tuple(sorted(counts.items()))


def _by_signature(
    keys: Sequence[Key], hosts: Hosts, rules: Sequence[ConstraintRule]
) -> tuple[Bools, Bools, Floats]:
    """By signature and host: whether pins and avoidances leave it open, whether all else does, and
    what soft ones cost there."""
    allowed = np.ones((len(keys), len(hosts.names)), dtype=np.bool_)
    open_, aversion = allowed.copy(), np.zeros(allowed.shape)
    wanted = [_wanted(rule, hosts.row) for rule in rules]
    for row, (counted, needs) in enumerate(keys):
        for number, count in counted:
            rule, right = rules[number], wanted[number]
            if rule.kind == "exclude":
                open_[row] &= right
            elif rule.weight is None:
                allowed[row] &= right
            else:
                aversion[row] += rule.weight * count * ~right
        if needs != NOTHING:
            open_[row] &= _fitting(needs, hosts.values)
    return allowed, open_, aversion


def _about(vms: Mapping[str, VM], rules: Sequence[ConstraintRule]) -> Mapping[str, list[int]]:
    """The rules about where single VMs may be, by VM."""
    about: defaultdict[str, list[int]] = defaultdict(list)
    for number, rule in enumerate(rules):
        if rule.kind in ABOUT_PLACES or (rule.kind == "exclude" and rule.vms and rule.hosts):
            for vm in meant(vms, rule.vms):
                about[vm].append(number)
    return about


def _wanted(rule: ConstraintRule, rows: Mapping[str, int]) -> Bools:
    """The hosts where a rule wants its VMs, or at least does not mind them."""
    inwards = rule.kind in ("pin", "one-of")
    wanted = np.full(len(rows), not inwards)
    if rule.kind in (*ABOUT_PLACES, "exclude"):
        wanted[[rows[name] for name in meant(rows, rule.hosts)]] = inwards
    return wanted


def _fitting(needs: Needs, hosts: Sequence[Host]) -> Bools:
    return np.array([not lacks(host, needs) for host in hosts], dtype=np.bool_)
