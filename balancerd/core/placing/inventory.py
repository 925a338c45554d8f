"""What a site is made of, as arrays: its hosts and VMs, whatever the VMs do and wherever they are.

A site changes by its placement and its loads. Its hosts and VMs mostly stay from one snapshot to
the next, and what is said of them here is worked out once for as long as they do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from balancerd.core.model import ABSURD_BYTES, VM, Host, PowerState
from balancerd.core.placing.groups import domains_of
from balancerd.core.placing.layout import (
    CHARGED,
    Bools,
    Floats,
    Ints,
    is_sane,
    memory_capacity,
)
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule, meant
from balancerd.core.same import Alike, Same
from balancerd.core.sensing.counters import core_of


@dataclass(frozen=True, eq=False, slots=True)
class Hosts:
    """All hosts, a row each, in order of their names."""

    values: tuple[Host, ...]
    names: tuple[str, ...]
    row: dict[str, int]
    core: Floats  # what one core is worth, reference cores
    cpu_capacity: Floats  # that VMs may take: reference cores; nothing where it cannot be believed
    memory_capacity: Floats  # bytes
    vcpu_capacity: Floats
    open: Bools  # on, of a size to believe, and not excluded by a rule
    peak: Floats  # W at full load; 1.0 without a power curve
    curves: tuple[tuple[Floats, Ints], ...]  # each power curve, and the hosts that have it
    domains: dict[str, Ints]  # scope -> the domain each host lies in
    makes: Ints  # hosts of the same number have the same CPU and machine types


@lru_cache(maxsize=1)
def hosts_of(values: Alike[Host], policy: Same[Policy], rules: Alike[ConstraintRule]) -> Hosts:
    """The hosts, given in order of their names, under a policy and the rules in force."""
    hosts, by = values.value, policy.value
    row = {host.name: index for index, host in enumerate(hosts)}
    spare = 1.0 - _kept_free(row, rules.value)
    return Hosts(
        values=hosts,
        names=tuple(row),
        row=row,
        core=_floats(core_of(host) for host in hosts),
        cpu_capacity=spare * _floats(host.cpu if is_sane(host) else 0.0 for host in hosts),
        memory_capacity=spare
        * _floats(memory_capacity(host, by) if is_sane(host) else 0.0 for host in hosts),
        vcpu_capacity=_floats(
            (host.cores or host.cpu) * by.capacity.cpu_overcommit if is_sane(host) else 0.0
            for host in hosts
        ),
        open=_open(hosts, row, rules.value),
        peak=_floats(host.power_curve[-1] if host.power_curve else 1.0 for host in hosts),
        curves=_curves(hosts),
        domains=domains_of(hosts, rules.value),
        makes=_makes(hosts),
    )


@dataclass(frozen=True, eq=False, slots=True)
class Guests:
    """The VMs that cost their hosts memory, in order of their names."""

    names: tuple[str, ...]
    sizes: Floats  # the most CPU that each can use, reference cores
    memory: Floats  # bytes
    vcpus: Floats

    def only(self, kept: Bools) -> "Guests":
        """Those that are kept, in the same order."""
        if kept.all():
            return self
        names = tuple(name for name, keep in zip(self.names, kept.tolist(), strict=True) if keep)
        return Guests(names, self.sizes[kept], self.memory[kept], self.vcpus[kept])


@lru_cache(maxsize=1)
def guests_of(vms: Same[Mapping[str, VM]]) -> Guests:
    """The VMs of a site by themselves."""
    names = tuple(name for name in sorted(vms.value) if vms.value[name].state in CHARGED)
    values = [vms.value[name] for name in names]
    return Guests(
        names,
        _floats(vm.size for vm in values),
        _floats(min(max(0, vm.memory), ABSURD_BYTES) for vm in values),
        _floats(vm.vcpus for vm in values),
    )


def _floats(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def _kept_free(row: Mapping[str, int], rules: Sequence[ConstraintRule]) -> Floats:
    """The share of each host that "headroom" rules keep free; of several the largest."""
    shares = np.zeros(len(row))
    for rule in rules:
        if rule.kind == "headroom":
            rows = [row[name] for name in meant(row, rule.hosts)]
            shares[rows] = np.maximum(shares[rows], rule.share or 0.0)
    return shares


def _open(hosts: Sequence[Host], row: Mapping[str, int], rules: Sequence[ConstraintRule]) -> Bools:
    open_ = np.array([h.power is PowerState.ON and is_sane(h) for h in hosts], dtype=np.bool_)
    for rule in rules:
        if rule.kind == "exclude" and not rule.vms:
            open_[[row[name] for name in meant(row, rule.hosts)]] = False
    return open_


def _curves(hosts: Sequence[Host]) -> tuple[tuple[Floats, Ints], ...]:
    """The different power curves, each with the rows of the hosts that have it."""
    rows: dict[tuple[float, ...], list[int]] = {}
    for row, host in enumerate(hosts):
        if host.power_curve:
            rows.setdefault(host.power_curve, []).append(row)
    return tuple((_floats(curve), np.array(found)) for curve, found in rows.items())


def _makes(hosts: Sequence[Host]) -> Ints:
    """The row of the first host that has the same CPU and runs the same machine types."""
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    return np.array(
        [first.setdefault((h.cpu_model, h.machines), row) for row, h in enumerate(hosts)],
        dtype=np.int64,
    )
