"""Rules about VMs and hosts: at each move's target for as long as the VM is there, and at the end.

Soft rules forbid nothing: what is broken of them at the end is listed with its cost.
"""

from collections import Counter
from math import inf

from balancerd.core.check.replay import Replay
from balancerd.core.model import VM, Host
from balancerd.core.plan import Move
from balancerd.core.policies.rule import ConstraintRule, matches, meant


def check_rules(replay: Replay, move: Move) -> None:
    """Pins, avoidances and "apart" hold at the target, and it has what the VM needs."""
    for rule in replay.rules_of.get(move.vm, ()):
        if rule.weight is not None:
            continue
        if rule.kind in ("pin", "avoid", "one-of"):
            if matches(move.target, rule.hosts) == (rule.kind == "avoid"):
                replay.fault(move.number, f"{rule.name} keeps {move.vm} off {move.target}")
        elif rule.kind == "apart" and replay.is_charged(move.vm):
            _check_apart(replay, move, rule)
    _check_machine(replay, move)


def _check_apart(replay: Replay, move: Move, rule: ConstraintRule) -> None:
    """No more members than may be; two that were in one domain from the start may stay so."""
    hosts = replay.hosts_beside(move.target, rule)
    if move.source in hosts:
        return
    there = replay.together_with(move, hosts.__contains__, sorted(hosts))
    others = [vm for vm in sorted(there) if matches(vm, rule.vms)]
    if rule.at_most == 1:
        start = replay.snapshot.cluster.placement
        home = replay.domain(start[move.vm], rule)
        others = [vm for vm in others if replay.domain(start[vm], rule) != home]
    slack = rule.at_most - 1 - len(others)
    if rule.at_most > 1:
        replay.slack[rule.name] = min(replay.slack.get(rule.name, inf), slack / rule.at_most)
    if slack < 0:
        here = replay.domain(move.target, rule)
        replay.fault(
            move.number, f"{rule.name}: {move.vm} would meet {', '.join(others)} in {here}"
        )


def _check_machine(replay: Replay, move: Move) -> None:
    """The target has the CPU, the machine type and the storage that the VM has now."""
    cluster = replay.snapshot.cluster
    home = cluster.hosts[cluster.placement[move.vm]]
    missing = lacking(cluster.vms[move.vm], home, cluster.hosts[move.target])
    if missing:
        replay.fault(move.number, f"{move.target} does not have {missing}, as {move.vm} needs")


def lacking(vm: VM, home: Host, target: Host) -> str:
    """The first thing that a VM has at home and would not have on another host; "" for none."""
    missing = [
        place for disk in vm.disks for place in disk.storage if not _has(target.storage, place)
    ]
    same_cpu = home.cpu_model != "" and home.cpu_model == target.cpu_model
    if vm.cpu_model == "host-passthrough" and not same_cpu:
        missing.append(f"the CPU of {home.name}")
    if vm.machine in home.machines and target.machines and vm.machine not in target.machines:
        missing.append(vm.machine)
    return missing[0] if missing else ""


def _has(storage: tuple[str, ...], place: str) -> bool:
    """Whether one of the shared pools or paths is the place, or a folder that it lies in."""
    folders = [path.rstrip("/") + "/" for path in storage if path.startswith("/")]
    return place in storage or any(place.startswith(folder) for folder in folders)


def _ends(replay: Replay) -> dict[str, str]:
    """Where every VM that counts is once the plan is done, and what was under way before."""
    cluster = replay.snapshot.cluster
    end = dict(cluster.placement) | dict(cluster.flights)
    end |= {move.vm: move.target for move in replay.plan.moves}
    return {vm: host for vm, host in end.items() if replay.is_charged(vm) and host in cluster.hosts}


def check_groups_at_end(replay: Replay) -> None:
    """No "together" group ends in more places than it began in; a group travels as one."""
    start = dict(replay.snapshot.cluster.placement) | dict(replay.snapshot.cluster.flights)
    grouping = [
        rule for rule in replay.rules if rule.kind in ("together", "one-of") and rule.weight is None
    ]
    end = _ends(replay) if grouping else {}
    for rule in grouping:
        members = meant(end, rule.vms)
        began = {replay.domain(start[vm], rule) for vm in members}
        ended = {replay.domain(end[vm], rule) for vm in members}
        if len(ended) > max(1, len(began)):
            replay.violations.append(f"{rule.name}: the group ends in {len(ended)} places")


def soft_breaks(replay: Replay) -> tuple[str, ...]:
    """Each soft rule that is broken at the end, with what that costs."""
    soft = [rule for rule in replay.rules if rule.weight is not None]
    end = _ends(replay) if soft else {}
    found = []
    for rule in soft:
        amount = _amount(replay, rule, {vm: end[vm] for vm in meant(end, rule.vms)})
        if amount > 0:
            found.append(f"{rule.name} is broken, cost {amount * (rule.weight or 0.0):.4g}")
    return tuple(found)


def _amount(replay: Replay, rule: ConstraintRule, end: dict[str, str]) -> float:
    """How many VMs break a soft rule; of those that should be together, pairs over the others."""
    counts = Counter(replay.domain(host, rule) for host in end.values())
    if rule.kind == "apart":
        return float(sum(max(0, count - rule.at_most) for count in counts.values()))
    amount = 0.0
    if rule.kind in ("pin", "avoid", "one-of"):
        inside = sum(matches(host, rule.hosts) for host in end.values())
        amount += inside if rule.kind == "avoid" else len(end) - inside
    if rule.kind in ("together", "one-of") and len(end) > 1:
        apart = len(end) ** 2 - sum(count**2 for count in counts.values())
        amount += apart / 2 / (len(end) - 1)
    return amount
