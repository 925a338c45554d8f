"""A plan as a sequence: numbers, waits, each VM where its move expects it, hosts that are on."""

from collections.abc import Mapping

from balancerd.core.check.replay import Replay
from balancerd.core.model import WITH_DISKS, Method, PowerState
from balancerd.core.plain import as_dict
from balancerd.core.plan import Move, Sleep, Wake
from balancerd.core.policies.rule import matches


def check_sequence(replay: Replay) -> None:
    """Numbers, dependencies, and each VM where its move expects it."""
    place = as_dict(replay.snapshot.cluster.placement)
    cold = {move.vm for move in replay.plan.moves if move.method is Method.COLD}
    immovable = {exclusion.vm for exclusion in replay.snapshot.exclusions} - cold
    immovable |= set(replay.snapshot.cluster.flights)
    for position, action in enumerate(replay.plan.actions, start=1):
        if action.number != position:
            replay.fault(action.number, f"is number {position} in the plan")
        waits = 0
        for earlier in action.after:
            if not 0 < earlier < position:
                replay.fault(position, f"waits for {earlier}, which is not before it")
                continue
            waits |= 1 << earlier | replay.before[earlier]
        replay.before[position] = waits
        if isinstance(action, Move):
            _check_way(replay, action, place, immovable)
            _check_method(replay, action)
            _check_excluded(replay, action)
            place[action.vm] = action.target


def _check_way(replay: Replay, move: Move, place: Mapping[str, str], immovable: set[str]) -> None:
    if move.vm not in replay.snapshot.cluster.vms or move.vm in immovable:
        replay.fault(move.number, f"{move.vm} may not be moved")
    elif not replay.is_charged(move.vm) and move.method is not Method.COLD:
        replay.fault(move.number, f"{move.vm} does not run")
    if place.get(move.vm) != move.source:
        replay.fault(move.number, f"{move.vm} is on {place.get(move.vm)}, not {move.source}")
    if move.source == move.target:
        replay.fault(move.number, f"{move.vm} stays on {move.source}")
    earlier = [m for m in replay.moves_of.get(move.vm, ()) if m.number < move.number]
    if any(not replay.is_before(m.number, move.number) for m in earlier):
        replay.fault(move.number, f"does not wait for the earlier move of {move.vm}")


def _check_method(replay: Replay, move: Move) -> None:
    """Local disks are copied, and post-copy is used, only by leave."""
    vm, allowed = replay.snapshot.cluster.vms.get(move.vm), replay.policy.methods
    if vm is None:
        return
    if any(not disk.shared for disk in vm.disks) and move.method not in WITH_DISKS:
        replay.fault(move.number, f"{move.vm} has disks that only {move.source} has")
    if move.method is Method.STORAGE and not allowed.storage:
        replay.fault(move.number, "disks may not be copied")
    if move.method is Method.OVERLAY and not (
        allowed.overlay and vm.tags.get("overlay") == "yes" and any(d.based for d in vm.disks)
    ):
        replay.fault(move.number, f"of {move.vm}'s disks no overlay alone may be copied")
    if move.method is Method.POST_COPY and not (
        allowed.post_copy and vm.tags.get("post-copy") == "yes"
    ):
        replay.fault(move.number, f"{move.vm} may not be moved by post-copy")
    if move.method is Method.AUTO_CONVERGE and not allowed.auto_converge:
        replay.fault(move.number, f"{move.vm} may not be slowed down")


def _check_excluded(replay: Replay, move: Move) -> None:
    """No rule excludes the VM, or it on one of these hosts, or whatever is on them."""
    about = [rule for rule in replay.rules_of.get(move.vm, ()) if rule.kind == "exclude"]
    for rule in about + replay.closing:
        ends = (move.source, move.target)
        if not rule.hosts or any(matches(host, rule.hosts) for host in ends):
            replay.fault(move.number, f"{move.vm} or its hosts are excluded")


def check_power(replay: Replay) -> None:
    """Only known hosts that are on, or woken before, take part; only empty ones sleep."""
    hosts, unknown = replay.snapshot.cluster.hosts, replay.snapshot.unknown_hosts()
    woken = {a.host: a.number for a in replay.plan.actions if isinstance(a, Wake)}
    for move in replay.plan.moves:
        for host in (move.source, move.target):
            if host not in hosts or host in unknown:
                replay.fault(move.number, f"{host} is not known")
            elif hosts[host].power is not PowerState.ON and not (
                host in woken and replay.is_before(woken[host], move.number)
            ):
                replay.fault(move.number, f"{host} is {hosts[host].power}")
        if move.target in replay.snapshot.draining:
            replay.fault(move.number, f"{move.target} is draining")
    for host, number in woken.items():
        if host not in hosts or hosts[host].power is not PowerState.OFF:
            replay.fault(number, f"{host} is not off")
    _check_sleeps(replay)


def _check_sleeps(replay: Replay) -> None:
    hosts, unknown = replay.snapshot.cluster.hosts, replay.snapshot.unknown_hosts()
    sleeps = [action for action in replay.plan.actions if isinstance(action, Sleep)]
    for sleep in sleeps:
        host = hosts.get(sleep.host)
        if host is None or host.power is not PowerState.ON or sleep.host in unknown:
            replay.fault(sleep.number, f"{sleep.host} is not known to be on")
        elif not (replay.policy.power.sleep_idle and host.may_sleep):
            replay.fault(sleep.number, f"{sleep.host} may not sleep")
        if replay.residents.get(sleep.host) or replay.entering.get(sleep.host):
            replay.fault(sleep.number, f"{sleep.host} is not empty")
    on = sum(host.power is PowerState.ON and host.name not in unknown for host in hosts.values())
    if sleeps and on - len(sleeps) < replay.policy.power.keep_on:
        text = f"fewer than {replay.policy.power.keep_on} hosts stay on"
        replay.fault(sleeps[0].number, text)
