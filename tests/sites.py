"""Sites as one line of text, so that a test shows what it is about.

`site("h1 16c 64G: a 8c 16G, b 4c 8G | h2 16c 64G:")` is a snapshot of two hosts, with two VMs on
the first that use 8 and 4 cores of CPU and hold 16 and 8 GiB of memory. An empty host is `h2 16c
64G:`. A host's name may carry its rack: `r1/h2`. Everything is known, on, and steady.
"""

from dataclasses import replace
from typing import Any

from balancerd.core.model import VM, Cluster, Forecast, Host, Load, Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Move, Plan, Sleep, Wake
from balancerd.core.planner import plan
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule
from balancerd.core.units import GIB

NOW = 1_000_000.0


def site(text: str, **changes: Any) -> Snapshot:
    """The snapshot that the text describes; `changes` are fields of it."""
    hosts: dict[str, Host] = {}
    vms: dict[str, VM] = {}
    placement: dict[str, str] = {}
    cpu: dict[str, float] = {}
    for part in text.split("|"):
        head, _, guests = part.partition(":")
        label, cores, memory = head.split()
        rack, _, name = label.rpartition("/")
        hosts[name] = Host(name, _cores(cores), _size(memory), rack=rack, can_sleep=True)
        for guest in filter(None, (guest.strip() for guest in guests.split(","))):
            vm, cores, memory = guest.split()
            vms[vm] = VM(vm, _size(memory))
            placement[vm], cpu[vm] = name, _cores(cores)
    loads = {name: Load(cpu[name], cpu[name], vms[name].memory) for name in vms}
    totals = {h: sum(cpu[v] for v in vms if placement[v] == h) for h in hosts}
    snapshot = Snapshot(
        at=NOW,
        cluster=Cluster(hosts, vms, placement),
        loads=loads,
        host_loads={name: Load(total, total, 0) for name, total in totals.items()},
        forecasts={name: Forecast(cpu[name], 0.0) for name in vms},
    )
    return replace(snapshot, **changes)


def _cores(text: str) -> float:
    return float(text.removesuffix("c"))


def _size(text: str) -> int:
    return int(float(text.removesuffix("G")) * GIB)


def rule(kind: str, vms: str = "", hosts: str = "", scope: str = "host") -> ConstraintRule:
    """A rule about globs written with spaces between them; named after its kind and VMs."""
    return ConstraintRule.model_validate(
        {
            "kind": kind,
            "vms": tuple(vms.split()),
            "hosts": tuple(hosts.split()),
            "scope": scope,
            "name": f"{kind} {vms}".strip(),
        }
    )


def policy(objective: str = "quiet", *rules: ConstraintRule, **tables: dict[str, Any]) -> Policy:
    """A policy with tables of changed keys: `policy("pack", power={"reserve": 0})`."""
    return Policy.model_validate(
        {
            "summary": "for tests",
            "name": "tested",
            "objective": Objective(objective),
            "constraint": rules,
            **tables,
        }
    )


def changed(snapshot: Snapshot, host: str = "", vm: str = "", **fields: Any) -> Snapshot:
    """The snapshot with some fields of one host or VM changed."""
    cluster = snapshot.cluster
    if host:
        hosts = {**cluster.hosts, host: replace(cluster.hosts[host], **fields)}
        return replace(snapshot, cluster=replace(cluster, hosts=hosts))
    vms = {**cluster.vms, vm: replace(cluster.vms[vm], **fields)}
    return replace(snapshot, cluster=replace(cluster, vms=vms))


def under_way(snapshot: Snapshot, **flights: str) -> Snapshot:
    """The snapshot with VMs being moved to targets."""
    return replace(snapshot, cluster=replace(snapshot.cluster, flights=flights))


def done(snapshot: Snapshot, *moves: Move) -> Snapshot:
    """The snapshot once some moves were carried out, loads and all."""
    cluster = snapshot.cluster
    for move in moves:
        begun = cluster.begin(move.vm, move.target, move.numa)
        cluster = begun.finish(move.vm, move.target)
    totals = dict.fromkeys(cluster.hosts, 0.0)
    for vm, host in cluster.placement.items():
        totals[host] += snapshot.loads[vm].cpu
    loads = {host: Load(total, total, 0) for host, total in totals.items()}
    return replace(snapshot, cluster=cluster, host_loads=loads)


def planned(snapshot: Snapshot, rules: Policy, history: History | None = None) -> Plan:
    """The plan, of which the checker has to approve."""
    made = plan(snapshot, rules, history or History(), NOW)
    assert made.certificate is not None
    assert made.certificate.violations == ()
    return made


def told(plan: Plan) -> list[str]:
    """A plan's actions in short: "a h1>h2", "wake h3", "sleep h4"."""
    words = []
    for action in plan.actions:
        match action:
            case Move():
                words.append(f"{action.vm} {action.source}>{action.target}")
            case Wake():
                words.append(f"wake {action.host}")
            case Sleep():
                words.append(f"sleep {action.host}")
    return words
