"""Rules that no placement can keep, found before planning and named.

Complete for one rule together with all pins and avoidances: an "apart" group fails exactly if some
of its members have too few domains among them (Hall's theorem), a "together" group if no domain is
open to all of its members and large enough. Pairs of rules are compared where they can be opposed.
Whether everything at once can be kept is the planner's question. Soft rules contradict nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import inf

from balancerd.core.model import VM, Cluster, Host
from balancerd.core.moving.graphs import overcrowded
from balancerd.core.placing.groups import domains_of, scope_of
from balancerd.core.placing.inventory import guests_of
from balancerd.core.placing.layout import CHARGED, memory_capacity
from balancerd.core.plan import Refusal
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import (
    ConstraintRule,
    hosts_meant,
    is_pattern,
    meant,
    vms_meant,
)
from balancerd.core.policies.tags import rules_in_force
from balancerd.core.same import Alike, Same
from balancerd.core.units import counted, format_size


def contradictions(cluster: Cluster, policy: Policy) -> tuple[Refusal, ...]:
    """What cannot be kept on this site, as refusals that name the rules.

    One that names a VM as well means that nothing good can come of moving it.
    """
    return _contradictions(Same(cluster.hosts), Same(cluster.vms), Same(policy))


@lru_cache(maxsize=1)
def _contradictions(
    hosts: Same[Mapping[str, Host]], vms: Same[Mapping[str, VM]], policy: Same[Policy]
) -> tuple[Refusal, ...]:
    """Wherever the VMs are and whatever they do."""
    site = _Site(Cluster(hosts.value, vms.value, {}), policy.value)
    return tuple(
        Refusal(vm, "", "contradiction", detail, "change one of the rules")
        for search in _SEARCHES
        for vm, detail in search(site)
    )


Found = Iterator[tuple[str, str]]  # VM or "", what contradicts what


@dataclass(slots=True)
class _Domain:
    """Hosts that count as one place for a rule, and what VMs may take of their memory."""

    hosts: set[str] = field(default_factory=set)
    room: float = 0.0


@dataclass
class _Site:
    """What the searches look up."""

    cluster: Cluster
    policy: Policy

    @cached_property
    def rules(self) -> tuple[ConstraintRule, ...]:
        """Every rule in force."""
        return rules_in_force(self.cluster, self.policy)

    @cached_property
    def hosts(self) -> tuple[tuple[str, ...], ...]:
        """By rule the hosts that it means."""
        return hosts_meant(Alike(self.rules), Alike(tuple(sorted(self.cluster.hosts))))

    @cached_property
    def members(self) -> list[list[str]]:
        """By rule the VMs that it means and that cost a host anything."""
        vms = Same(self.cluster.vms)
        charged = frozenset(guests_of(vms).names)
        return [
            [vm for vm in named if vm in charged] for named in vms_meant(Alike(self.rules), vms)
        ]

    @cached_property
    def hard(self) -> list[tuple[ConstraintRule, list[str]]]:
        """The hard rules about VMs, each with its members."""
        pairs = zip(self.rules, self.members, strict=True)
        return [(rule, members) for rule, members in pairs if rule.vms and rule.weight is None]

    @cached_property
    def places(self) -> Mapping[str, tuple[frozenset[str], list[str]]]:
        """For VMs that rules keep off some hosts: the hosts that are left, and the rules' names."""
        places: dict[str, tuple[frozenset[str], list[str]]] = {}
        everywhere, nobody = frozenset(self.cluster.hosts), list[str]()
        for rule, members, hosts in zip(self.rules, self.members, self.hosts, strict=True):
            if rule.kind not in ("pin", "avoid", "one-of") or rule.weight is not None:
                continue
            inside = everywhere.difference(hosts) if rule.kind == "avoid" else frozenset(hosts)
            for vm in members:
                left, names = places.get(vm, (everywhere, nobody))
                places[vm] = inside if left is everywhere else left & inside, [*names, rule.name]
        return places

    @cached_property
    def room(self) -> Mapping[str, float]:
        """Bytes that VMs may take of each host; endless where memory does not count."""
        hosts = self.cluster.hosts
        if not self.policy.capacity.enforce_memory:
            return dict.fromkeys(hosts, inf)
        spare = dict.fromkeys(hosts, 1.0)
        for rule, named in zip(self.rules, self.hosts, strict=True):
            for host in named if rule.kind == "headroom" else ():
                spare[host] = min(spare[host], 1.0 - (rule.share or 0.0))
        return {name: spare[name] * memory_capacity(hosts[name], self.policy) for name in hosts}

    def domains(self, rule: ConstraintRule) -> Mapping[int, _Domain]:
        """A rule's domains by their numbers."""
        scope = scope_of(rule)
        if scope not in self._domains:
            found: dict[int, _Domain] = {}
            for name, number in self.numbers(rule).items():
                domain = found.setdefault(number, _Domain())
                domain.hosts.add(name)
                domain.room += self.room[name]
            self._domains[scope] = found
        return self._domains[scope]

    def numbers(self, rule: ConstraintRule) -> Mapping[str, int]:
        """The number of the domain that each host lies in for a rule."""
        scope = scope_of(rule)
        if scope not in self._numbers:
            names = sorted(self.cluster.hosts)
            hosts = [self.cluster.hosts[name] for name in names]
            numbers = domains_of(hosts, [rule])[scope].tolist()
            self._numbers[scope] = dict(zip(names, numbers, strict=True))
        return self._numbers[scope]

    @cached_property
    def _domains(self) -> dict[str, Mapping[int, _Domain]]:
        return {}

    @cached_property
    def _numbers(self) -> dict[str, Mapping[str, int]]:
        return {}


def _no_such_hosts(site: _Site) -> Found:
    """A rule about hosts that are not there does not say what was meant."""
    hosts = site.cluster.hosts
    if hosts.keys() >= {glob for rule in site.rules for glob in rule.hosts}:
        return
    for rule in site.rules:
        for glob in rule.hosts:
            if glob in hosts:
                continue
            if not is_pattern(glob):
                yield "", f"{rule.name}: no host is called {glob}"
            elif not meant(hosts, (glob,)):
                yield "", f"{rule.name}: no host matches {glob}"


def _nowhere(site: _Site) -> Found:
    """VMs to which pins and avoidances leave no host, or only hosts that are too small."""
    least = min(site.room.values(), default=0.0) if site.places else 0.0
    for vm, (left, names) in sorted(site.places.items()):
        size = site.cluster.vms[vm].memory
        if not left:
            yield vm, f"{', '.join(names)}: together they leave {vm} no host"
        elif size > least and size > (room := max(map(site.room.__getitem__, left))):
            most = f"the largest host left to it has room for {format_size(room)}"
            yield vm, f"{', '.join(names)}: {vm} needs {format_size(size)}, {most}"


def _crowded(site: _Site) -> Found:
    """Groups to keep apart whose members have too few domains among them."""
    for rule, members in site.hard:
        if rule.kind != "apart":
            continue
        domains = site.domains(rule)
        if len(members) > rule.at_most * len(domains):
            room = counted(len(domains), rule.scope)
            most = f", {rule.at_most} in each" if rule.at_most > 1 else ""
            yield "", f"{rule.name}: {len(members)} VMs to keep apart, {room}{most}"
            continue
        choices = {vm: _open(site, vm, rule) for vm in members if vm in site.places}
        if all(len(open_) * rule.at_most >= len(members) for open_ in choices.values()):
            continue  # whoever comes last still finds a domain
        tight, left = overcrowded(choices, rule.at_most)
        if tight and left:  # without any, the pins alone contradict each other
            hosts = sorted(host for number in left for host in domains[number].hosts)
            where = f"may only be on {', '.join(hosts)}"
            yield "", f"{rule.name}: {', '.join(tight)} {where}, {counted(len(left), rule.scope)}"


def _open(site: _Site, vm: str, rule: ConstraintRule) -> frozenset[int]:
    """The domains of a rule with a host that pins and avoidances leave to a VM."""
    return frozenset(map(site.numbers(rule).__getitem__, site.places[vm][0]))


def _unhoused(site: _Site) -> Found:
    """Groups that belong together, for which no domain is open to all or large enough."""
    for rule, members in site.hard:
        if rule.kind not in ("together", "one-of") or len(members) < 2:
            continue
        domains = site.domains(rule)
        size = sum(site.cluster.vms[vm].memory for vm in members)
        open_ = set(domains)
        for vm in members:
            if vm in site.places:
                open_ &= _open(site, vm, rule)
        if not open_ and all(vm not in site.places or site.places[vm][0] for vm in members):
            yield members[0], f"{rule.name}: no {_place(rule)} is open to all of its VMs"
        elif open_ and size > (room := max(domains[number].room for number in open_)):
            most = f"the largest {_place(rule)} open to them has room for {format_size(room)}"
            yield members[0], f"{rule.name}: its VMs need {format_size(size)}, {most}"


def _place(rule: ConstraintRule) -> str:
    return "group of hosts" if rule.kind == "one-of" else rule.scope


def _opposed(site: _Site) -> Found:
    """VMs that one rule keeps together and another apart."""
    apart_of: dict[str, list[int]] = {}
    for number, (rule, members) in enumerate(site.hard):
        for vm in members if rule.kind == "apart" else ():
            apart_of.setdefault(vm, []).append(number)
    for number, (rule, members) in enumerate(site.hard):
        if rule.kind != "together":
            continue
        counts = Counter(other for vm in members for other in apart_of.get(vm, ()))
        for other, count in sorted(counts.items()):
            apart = site.hard[other][0]
            if count > apart.at_most and (rule.scope, apart.scope) != ("rack", "host"):
                both = [vm for vm in members if other in apart_of.get(vm, ())]
                names = [site.hard[n][0].name for n in sorted((number, other))]
                for vm in both:
                    yield vm, f"{' and '.join(names)}: {', '.join(both)} both together and apart"


def _too_few_hosts(site: _Site) -> Found:
    """What the policy asks of the number of hosts."""
    power, capacity, count = site.policy.power, site.policy.capacity, len(site.cluster.hosts)
    charged = sum(vm.state in CHARGED for vm in site.cluster.vms.values())
    if power.sleep_idle and power.reserve >= count > 0:
        yield "", f"power.reserve: {power.reserve} hosts in reserve, of {counted(count, 'host')}"
    if power.sleep_idle and power.keep_on > count > 0:
        yield "", f"power.keep_on: {power.keep_on} hosts to keep on, of {counted(count, 'host')}"
    if capacity.vms_per_host is not None and charged > capacity.vms_per_host * count:
        most = capacity.vms_per_host * count
        yield "", f"capacity.vms_per_host: {charged} VMs, {counted(count, 'host')} take {most}"


_SEARCHES = (_no_such_hosts, _nowhere, _crowded, _unhoused, _opposed, _too_few_hosts)
