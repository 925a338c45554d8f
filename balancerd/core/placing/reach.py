"""Which hosts each block may go to, whatever they carry: pins, avoidances, and what VMs need.

Blocks about which the same is said have the same *signature*, and it is worked out once for each.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import attrgetter

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.model import VM, Host
from balancerd.core.placing.groups import Blocks
from balancerd.core.placing.inventory import Hosts
from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.placing.needs import NOTHING, Needs, lacks, needs_of
from balancerd.core.policies.rule import ConstraintRule, hosts_meant, vms_meant
from balancerd.core.same import Alike, Same

Counts = tuple[tuple[int, int], ...]  # a rule, and how many VMs of the block it is about
Key = tuple[Counts, Needs]
INWARDS = ("pin", "one-of")  # where VMs are to be, not where they are not
ABOUT_PLACES = (*INWARDS, "avoid")


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
        rows_where(~np.asarray(allowed.all(axis=1))[signature]),
    )


def _signatures(
    blocks: Sequence[Sequence[str]],
    homes: Sequence[Host],
    vms: Mapping[str, VM],
    rules: tuple[ConstraintRule, ...],
) -> tuple[Ints, tuple[Key, ...]]:
    """The signature of every block, and what each signature stands for."""
    about, needs = _about(vms, rules), _Needed(vms)
    numbers: dict[tuple[Counts, int], int] = {}
    counted = [about.get(b[0], ()) if len(b) == 1 else _counted(b, about) for b in blocks]
    needed = map(needs.number, blocks, homes)
    signature = [numbers.setdefault(key, len(numbers)) for key in zip(counted, needed, strict=True)]
    keys = tuple((counts, needs.found[number]) for counts, number in numbers)
    return np.array(signature, dtype=np.int64), keys


_storage = attrgetter("storage")


class _Needed:
    """The different needs that there are, by number: VMs that are alike need the same."""

    def __init__(self, vms: Mapping[str, VM]) -> None:
        self.found: list[Needs] = []
        self._vms = vms
        self._numbers: dict[Needs, int] = {}
        self._alike: dict[Hashable, int] = {}

    def number(self, block: Sequence[str], home: Host) -> int:
        """The number of what a block on that host needs."""
        vm = self._vms[block[0]]
        if len(block) > 1:
            return self._add([self._vms[name] for name in block], home)
        machine = vm.machine if vm.machine in home.machines else ""
        alike = (vm.cpu_model, machine, home.cpu_model, *map(_storage, vm.disks))
        if alike not in self._alike:
            self._alike[alike] = self._add([vm], home)
        return self._alike[alike]

    def _add(self, vms: Sequence[VM], home: Host) -> int:
        needs = needs_of(vms, home)
        if needs not in self._numbers:
            self._numbers[needs] = len(self.found)
            self.found.append(needs)
        return self._numbers[needs]


def _counted(block: Sequence[str], about: Mapping[str, Counts]) -> Counts:
    """The rules about the VMs of a large block, each with how many of them it is about."""
    counts = Counter(number for vm in block for number, _ in about.get(vm, ()))
    return tuple(sorted(counts.items()))


def _by_signature(
    keys: Sequence[Key], hosts: Hosts, rules: tuple[ConstraintRule, ...]
) -> tuple[Bools, Bools, Floats]:
    """By signature and host: whether pins and avoidances leave it open, whether all else does, and
    what soft ones cost there."""
    named = [
        [hosts.row[name] for name in names]
        for names in hosts_meant(Alike(rules), Alike(hosts.names))
    ]
    allowed = np.ones((len(keys), len(hosts.names)), dtype=np.bool_)
    open_, aversion = allowed.copy(), np.zeros(allowed.shape)
    within: list[list[list[int]]] = [[] for _ in keys]
    for row, (counts, needs) in enumerate(keys):
        for number, count in counts:
            rule, inwards = rules[number], rules[number].kind in INWARDS
            if rule.weight is not None:
                aversion[row] += rule.weight * count * (_among(named[number], hosts) != inwards)
            elif inwards:
                within[row].append(named[number])
            else:
                (open_ if rule.kind == "exclude" else allowed)[row, named[number]] = False
        if needs is not NOTHING:
            open_[row] &= _fitting(needs, hosts.values)
    _narrow(allowed, within)
    return allowed, open_, aversion


def _narrow(allowed: Bools, within: Sequence[Sequence[Sequence[int]]]) -> None:
    """Leave each row only the columns that are in all sets given for it; a turn for each set."""
    for turn in range(max(map(len, within), default=0)):
        rows = [row for row, sets in enumerate(within) if len(sets) > turn]
        columns = [within[row][turn] for row in rows]
        left = np.zeros((len(rows), allowed.shape[1]), dtype=np.bool_)
        line = np.repeat(np.arange(len(rows)), [len(some) for some in columns])
        left[line, np.fromiter(chain.from_iterable(columns), dtype=np.int64)] = True
        allowed[rows] &= left


def _among(rows: Sequence[int], hosts: Hosts) -> Bools:
    among = np.zeros(len(hosts.names), dtype=np.bool_)
    among[rows] = True
    return among


def _about(vms: Mapping[str, VM], rules: tuple[ConstraintRule, ...]) -> Mapping[str, Counts]:
    """The rules about where single VMs may be, by VM, each about it alone."""
    about: dict[str, Counts] = {}
    for number, names in enumerate(vms_meant(Alike(rules), Same(vms))):
        rule = rules[number]
        if rule.kind in ABOUT_PLACES or (rule.kind == "exclude" and rule.vms and rule.hosts):
            for vm in names:
                about[vm] = (*about.get(vm, ()), (number, 1))
    return about


def _fitting(needs: Needs, hosts: Sequence[Host]) -> Bools:
    return np.array([not lacks(host, needs) for host in hosts], dtype=np.bool_)
