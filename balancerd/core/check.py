"""The independent checker: replays a plan and says whether it keeps every rule all the way.

It shares no code with the planner, and only uses plain dictionaries and sets. It does not trust the
order in which a plan is written: for each move it charges the target with everything that *can* be
there together with the VM under any order that the `after` numbers allow, so a plan that
passes holds however long its migrations take.

What a rule already breaks at the start is not held against the plan, as long as no move adds to it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, sqrt

from balancerd.core.model import PowerState, Snapshot, VMState
from balancerd.core.plan import Certificate, Move, Plan, Sleep, Wake
from balancerd.core.policy import ConstraintRule, Policy, matches, meant

TOLERANCE = 1e-6
Inside = Callable[[str], bool]


def check(snapshot: Snapshot, policy: Policy, plan: Plan) -> Certificate:
    """What the replay of a plan finds; a certificate without violations is a sound plan."""
    replay = _Replay(snapshot, policy, plan)
    replay.check_sequence()
    replay.check_power()
    for move in plan.moves:
        if not replay.violations:
            replay.check_landing(move)
            replay.check_rules(move)
    if not replay.violations:
        replay.check_groups_at_end()
    slack = {name: value for name, value in sorted(replay.slack.items()) if value < inf}
    return Certificate(2 * len(plan.moves), tuple(replay.violations), slack)


@dataclass(slots=True)
class _Replay:
    """A plan's moves by the hosts they touch, and what was found so far."""

    snapshot: Snapshot
    policy: Policy
    plan: Plan
    violations: list[str] = field(default_factory=list)
    slack: dict[str, float] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)  # number -> bits of all it waits for
    entering: dict[str, list[Move]] = field(default_factory=dict)  # by target host
    moves_of: dict[str, list[Move]] = field(default_factory=dict)  # by VM, in order
    residents: dict[str, list[str]] = field(default_factory=dict)  # by host, at the start
    rules_of: dict[str, list[tuple[int, ConstraintRule]]] = field(default_factory=dict)  # by VM

    def __post_init__(self) -> None:
        cluster = self.snapshot.cluster
        for vm in sorted(cluster.placement):
            if self._is_charged(vm):
                for host in {cluster.placement[vm], cluster.flights.get(vm, "")} - {""}:
                    self.residents.setdefault(host, []).append(vm)
        moving = {move.vm for move in self.plan.moves}
        for index, rule in enumerate(self.policy.constraint):
            for vm in meant(moving, rule.vms):
                self.rules_of.setdefault(vm, []).append((index, rule))
        for move in self.plan.moves:
            self.entering.setdefault(move.target, []).append(move)
            self.moves_of.setdefault(move.vm, []).append(move)

    def _is_charged(self, vm: str) -> bool:
        gone = (VMState.SHUTOFF, VMState.MIGRATED, VMState.CRASHED)
        value = self.snapshot.cluster.vms.get(vm)
        return value is not None and value.state not in gone

    def _fault(self, number: int, text: str) -> None:
        self.violations.append(f"action {number}: {text}")

    # --- the plan as a sequence

    def check_sequence(self) -> None:
        """Numbers, dependencies, and each VM where its move expects it."""
        place = dict(self.snapshot.cluster.placement)
        immovable = {exclusion.vm for exclusion in self.snapshot.exclusions}
        immovable |= set(self.snapshot.cluster.flights)
        for position, action in enumerate(self.plan.actions, start=1):
            if action.number != position:
                self._fault(action.number, f"is number {position} in the plan")
            waits = 0
            for earlier in action.after:
                if not 0 < earlier < position:
                    self._fault(position, f"waits for {earlier}, which is not before it")
                    continue
                waits |= 1 << earlier | self.before[earlier]
            self.before[position] = waits
            if isinstance(action, Move):
                self._check_way(action, place, immovable)
                place[action.vm] = action.target

    def _check_way(self, move: Move, place: Mapping[str, str], immovable: set[str]) -> None:
        if move.vm not in self.snapshot.cluster.vms or move.vm in immovable:
            self._fault(move.number, f"{move.vm} may not be moved")
        elif not self._is_charged(move.vm):
            self._fault(move.number, f"{move.vm} does not run")
        if place.get(move.vm) != move.source:
            self._fault(move.number, f"{move.vm} is on {place.get(move.vm)}, not {move.source}")
        if move.source == move.target:
            self._fault(move.number, f"{move.vm} stays on {move.source}")
        earlier = [m for m in self.moves_of.get(move.vm, ()) if m.number < move.number]
        if any(not self._is_before(m.number, move.number) for m in earlier):
            self._fault(move.number, f"does not wait for the earlier move of {move.vm}")
        for rule in self.policy.constraint:
            if rule.kind == "exclude" and self._is_excluded(rule, move):
                self._fault(move.number, f"{move.vm} or its hosts are excluded")

    def _is_excluded(self, rule: ConstraintRule, move: Move) -> bool:
        vm = not rule.vms or matches(move.vm, rule.vms)
        host = not rule.hosts or any(
            matches(host, rule.hosts) for host in (move.source, move.target)
        )
        return vm and host

    def _is_before(self, earlier: int, later: int) -> bool:
        return bool(self.before.get(later, 0) >> earlier & 1)

    # --- hosts on and off

    def check_power(self) -> None:
        """Only known hosts that are on, or woken before, take part; only empty ones sleep."""
        hosts, unknown = self.snapshot.cluster.hosts, self.snapshot.unknown_hosts()
        woken = {a.host: a.number for a in self.plan.actions if isinstance(a, Wake)}
        for move in self.plan.moves:
            for host in (move.source, move.target):
                if host not in hosts or host in unknown:
                    self._fault(move.number, f"{host} is not known")
                elif hosts[host].power is not PowerState.ON and not (
                    host in woken and self._is_before(woken[host], move.number)
                ):
                    self._fault(move.number, f"{host} is {hosts[host].power}")
            if move.target in self.snapshot.draining:
                self._fault(move.number, f"{move.target} is draining")
        for host, number in woken.items():
            if host not in hosts or hosts[host].power is not PowerState.OFF:
                self._fault(number, f"{host} is not off")
        self._check_sleeps()

    def _check_sleeps(self) -> None:
        hosts, unknown = self.snapshot.cluster.hosts, self.snapshot.unknown_hosts()
        sleeps = [action for action in self.plan.actions if isinstance(action, Sleep)]
        for sleep in sleeps:
            host = hosts.get(sleep.host)
            if host is None or host.power is not PowerState.ON or sleep.host in unknown:
                self._fault(sleep.number, f"{sleep.host} is not known to be on")
            elif not (self.policy.power.sleep_idle and host.can_sleep):
                self._fault(sleep.number, f"{sleep.host} may not sleep")
            if self.residents.get(sleep.host) or self.entering.get(sleep.host):
                self._fault(sleep.number, f"{sleep.host} is not empty")
        on = sum(
            host.power is PowerState.ON and host.name not in unknown for host in hosts.values()
        )
        if sleeps and on - len(sleeps) < self.policy.power.keep_on:
            self._fault(sleeps[0].number, f"fewer than {self.policy.power.keep_on} hosts stay on")

    # --- what can be somewhere together with a move's VM

    def _together_with(self, move: Move, inside: Inside, hosts: Iterable[str]) -> set[str]:
        """VMs that can be in the hosts' domain while the move's VM is there, itself left out."""
        there = set()
        for host in hosts:
            for vm in self.residents.get(host, ()):
                if not self._has_left(vm, move, inside, first=0):
                    there.add(vm)
            for entry in self.entering.get(host, ()):
                # What enters only after this move is done is charged at its own turn.
                if self._is_before(move.number, entry.number):
                    continue
                if not self._has_left(entry.vm, move, inside, first=entry.number):
                    there.add(entry.vm)
        return there - {move.vm}

    def _has_left(self, vm: str, move: Move, inside: Inside, first: int) -> bool:
        """Whether a VM that came with action `first` is surely gone when the move starts."""
        return any(
            leave.number > first
            and inside(leave.source)
            and not inside(leave.target)
            and self._is_before(leave.number, move.number)
            for leave in self.moves_of.get(vm, ())
        )

    # --- capacity

    def check_landing(self, move: Move) -> None:
        """The target stays below `landing` with all that can be there, and its vCPUs in bounds."""
        target = self.snapshot.cluster.hosts[move.target]
        vms = [move.vm, *self._together_with(move, lambda h: h == move.target, [move.target])]
        bands, capacity = self.policy.thresholds, self.policy.capacity
        cpu, memory = self.snapshot.overhead.get(move.target, (0.0, 0))
        demands = [self._demand(vm) for vm in vms]
        cpu += sum(d for d, _ in demands)
        cpu += capacity.spread_factor * sqrt(sum(s * s for _, s in demands))
        self._limit(move, "CPU", cpu, bands.cpu.landing * target.cpu)
        if capacity.enforce_memory:
            reserve = max(capacity.memory_reserve, capacity.memory_reserve_share * target.memory)
            used = memory + sum(max(0, self.snapshot.cluster.vms[vm].memory) for vm in vms)
            self._limit(move, "memory", used, bands.memory.landing * (target.memory - reserve))
        vcpus = sum(self.snapshot.cluster.vms[vm].vcpus for vm in vms)
        cores = target.cores or target.cpu
        self._limit(move, "vCPUs", vcpus, capacity.cpu_overcommit * cores)

    def _limit(self, move: Move, name: str, used: float, limit: float) -> None:
        slack = (limit - used) / limit if limit > 0 else -1.0
        self.slack[name] = min(self.slack.get(name, inf), slack)
        if not isfinite(used) or slack < -TOLERANCE:
            self._fault(move.number, f"{name} on {move.target}: {used:.6g} of at most {limit:.6g}")

    def _demand(self, vm: str) -> tuple[float, float]:
        """Expected CPU and spread; a VM without forecast counts half its size, give or take."""
        forecast = self.snapshot.forecasts.get(vm)
        if forecast is None or not isfinite(forecast.cpu + forecast.spread):
            size = self.snapshot.cluster.vms[vm].size
            return size / 2, size / 4
        return max(0.0, forecast.cpu), max(0.0, forecast.spread)

    # --- rules

    def check_rules(self, move: Move) -> None:
        """Pins, avoidances and "apart" hold at the target for as long as the VM is there."""
        for index, rule in self.rules_of.get(move.vm, ()):
            name = rule.name or f"constraint[{index}]"
            inside = bool(rule.hosts) and matches(move.target, rule.hosts)
            if (rule.kind == "pin" and not inside) or (rule.kind == "avoid" and inside):
                self._fault(move.number, f"{name} keeps {move.vm} off {move.target}")
            if rule.kind == "apart":
                self._check_apart(move, rule, name)

    def _check_apart(self, move: Move, rule: ConstraintRule, name: str) -> None:
        here = self._domain(move.target, rule.scope)
        hosts = [
            host for host in self.snapshot.cluster.hosts if self._domain(host, rule.scope) == here
        ]
        there = self._together_with(move, lambda h: h in hosts, hosts)
        start = self.snapshot.cluster.placement
        home = self._domain(start[move.vm], rule.scope)
        others = sorted(
            vm
            for vm in there
            if matches(vm, rule.vms) and self._domain(start[vm], rule.scope) != home
        )
        if others and move.source not in hosts:
            self._fault(move.number, f"{name}: {move.vm} would meet {others[0]} in {here}")

    def _domain(self, host: str, scope: str) -> str:
        rack = self.snapshot.cluster.hosts[host].rack
        return f"rack {rack}" if scope == "rack" and rack else host

    def check_groups_at_end(self) -> None:
        """No "together" group ends in more places than it began in; a group travels as one."""
        start = dict(self.snapshot.cluster.placement) | dict(self.snapshot.cluster.flights)
        end = start | {move.vm: move.target for move in self.plan.moves}
        for index, rule in enumerate(self.policy.constraint):
            if rule.kind != "together":
                continue
            members = [vm for vm in start if matches(vm, rule.vms) and self._is_charged(vm)]
            members = [vm for vm in members if start[vm] in self.snapshot.cluster.hosts]
            began = {self._domain(start[vm], rule.scope) for vm in members}
            ended = {self._domain(end[vm], rule.scope) for vm in members}
            if len(ended) > max(1, len(began)):
                name = rule.name or f"constraint[{index}]"
                self.violations.append(f"{name}: the group ends in {len(ended)} places")
