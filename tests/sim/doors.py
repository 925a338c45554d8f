"""The world as the loop of a simulated life sees it: no act is let through unchecked."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from balancerd.adapters.sim.readings import HOLDS_MEMORY
from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.model import WITH_DISKS, Method, PowerState, Snapshot
from balancerd.core.observation import JobReport, Location, Observation, Preflight, Presence
from balancerd.core.past.record import Intent
from balancerd.core.policies.choices import Mode, Unlocked
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tags import OVERLAY, POST_COPY, says_yes
from balancerd.ports import BackendError, PowerError, nothing
from tests.sim.doorways import crowded, frozen

PATIENCE = 5  # seconds that a host is waited for that hangs since the last look


class BrokenError(AssertionError):
    """An invariant that did not hold."""


@dataclass
class Doors:
    """The world as the loop sees it; every act is checked before it is let through."""

    world: World
    ledger: Callable[[], Ledger]
    policy: Policy
    operate: Callable[[str, str], None]  # told of each VM and target, just before the start
    begun: Callable[[str], None] = lambda _: None  # told of each VM, just after it
    note: Callable[[str], None] = lambda _: None  # told of each kind of act
    is_paused: Callable[[], bool] = lambda: False  # whether a pause stands
    is_full: Callable[[], bool] = lambda: False  # whether nothing can be recorded
    approved: Collection[int] = ()  # plans to which an operator said yes
    ahead: Callable[[], float] = lambda: 0.0  # of the world's clock is the loop's, by seconds
    waited: Callable[[], None] = nothing  # called after each second for which hosts are waited for
    hanging: frozenset[str] = frozenset()  # hosts that let the loop wait in vain
    observed: float = 0.0  # when the loop last looked
    frozen: str = ""  # why nothing may begin on what it saw then
    snapshot: Callable[[], Snapshot | None] = lambda: None  # what the loop made of it
    sent: dict[str, str] = field(default_factory=dict)  # where each VM was sent last
    methods: dict[str, Method] = field(default_factory=dict)  # and how
    unconfigured: set[str] = field(default_factory=set)  # hosts that the loop may not know of

    def observe(self, meanwhile: Callable[[], None] = nothing) -> Observation:
        whole = self.world.observe()
        known = tuple(one for one in whole.readings if one.host not in self.unconfigured)
        seen = replace(whole, readings=known)
        self._wait_for_those_that_hang(seen, meanwhile)
        self.observed = seen.at
        power = self.world.states(host.name for host in self.world.site.hosts)
        self.frozen = frozen(seen, power, self.policy.detection)
        ahead = self.ahead()
        if not ahead:
            return seen
        readings = tuple(replace(reading, at=reading.at + ahead) for reading in seen.readings)
        return Observation(seen.at + ahead, readings)

    def _wait_for_those_that_hang(self, seen: Observation, meanwhile: Callable[[], None]) -> None:
        """As long as the libvirt adapter does; what is under way goes on, and so does the loop."""
        on = {
            h
            for h, power in self.world.states(h.name for h in self.world.site.hosts).items()
            if power is PowerState.ON
        }
        hanging = frozenset(one.host for one in seen.readings if one.error and one.host in on)
        new, self.hanging = hanging - self.hanging, hanging
        for _ in range(PATIENCE if new else 0):
            self.world.advance(self.world.now() + 1.0)
            self.waited()
            meanwhile()
            self.waited()

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        found = self.world.locate(vm, uuid, hosts)
        unknown = dict.fromkeys(self.unconfigured & set(hosts), Presence.UNREACHABLE)
        return replace(found, at=found.at + self.ahead(), presence={**found.presence, **unknown})

    def preflight(self, vm: str, uuid: str, source: str, target: str, method: Method) -> Preflight:
        here, there = ("" if host in self.unconfigured else host for host in (source, target))
        return self.world.preflight(vm, uuid, here, there, method)

    def adopt(self, vm: str, source: str, target: str) -> None:
        self._must_be_configured(source, target)
        self.world.adopt(vm, source, target)

    def _must_be_configured(self, *hosts: str) -> None:
        """As of a backend that was made without some hosts: it cannot, and says so."""
        for host in self.unconfigured.intersection(hosts):
            raise BackendError(host, "find", "no such host is configured")

    def reports(self) -> tuple[JobReport, ...]:
        ahead = self.ahead()
        return tuple(replace(report, at=report.at + ahead) for report in self.world.reports())

    def migrate(
        self,
        vm: str,
        source: str,
        target: str,
        method: Method,
        bandwidth: int,
        downtime: float,
        *,
        hand_over: bool = False,
    ) -> None:
        self._must_be_configured(source, target)
        self._must_be_intended(vm, source, target)
        if method is Method.COLD:
            self._must_be_shut_off(vm, source)
        else:
            self._must_find_room(vm, target)
        self._must_be_allowed(vm, method)
        self._must_not_run_twice(vm, method, hand_over=hand_over)
        self._must_be_of_one_time(vm, source, target, method)
        for host in (source, target):
            if not self._answers(host):
                raise BrokenError(f"{vm} was sent from {source} to {target}; {host} is silent")
        self._must_be_within_limits(source, target, method, bandwidth, downtime)
        self.sent[vm], self.methods[vm] = target, method
        self.operate(vm, target)
        self.world.migrate(vm, source, target, method, bandwidth, downtime, hand_over=hand_over)
        self.begun(vm)

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        if not 0 < bandwidth <= self.policy.limits.bandwidth:
            raise BrokenError(f"{vm} was to send {bandwidth} bytes per second")
        self._must_be_configured(host)
        self.note("act: set bandwidth")
        self.world.set_bandwidth(vm, host, bandwidth)

    def set_downtime(self, vm: str, host: str, downtime: float) -> None:
        self._must_be_configured(host)
        self.note("act: set downtime")
        self.world.set_downtime(vm, host, downtime)

    def switch_to_post_copy(self, vm: str, host: str) -> None:
        self._must_be_configured(host)
        self._must_be_recorded(vm)
        self._must_be_allowed(vm, Method.POST_COPY)
        self.world.switch_to_post_copy(vm, host)
        self.note("act: switch to post-copy")

    def abort(self, vm: str, host: str) -> None:
        self._must_be_configured(host)
        self._must_be_recorded(vm)
        self.world.abort(vm, host)
        self.note("act: abort")

    def _must_be_recorded(self, vm: str) -> None:
        """What presses or ends a migration is not done where its line cannot be written."""
        if self.is_full():
            raise BrokenError(f"hands were laid on {vm}, and that cannot be recorded")

    def _must_be_allowed(self, vm: str, method: Method) -> None:
        """Methods that risk the VM, or its disks, only where the VM is one for that."""
        facts = next(one for one in self.world.site.vms if one.name == vm)
        locked = self.world.site.scenario.migration.disk_locks
        local = [disk for disk in facts.disks if not disk.shared]
        if method is Method.POST_COPY and not (locked and says_yes(facts, POST_COPY)):
            raise BrokenError(f"{vm} was to go on in post-copy: {facts.tags}, locked: {locked}")
        if bool(local) is not (method in WITH_DISKS):
            raise BrokenError(f"{vm} was to be moved by {method}; disks of its own: {local}")
        based = all(disk.based for disk in local) and says_yes(facts, OVERLAY)
        if method is Method.OVERLAY and not based:
            raise BrokenError(f"of {vm} only a part was to be copied: {facts.tags}, {local}")

    def _must_not_run_twice(self, vm: str, method: Method, *, hand_over: bool) -> None:
        """What nothing locks arrives paused; and so may what only the policy knows of."""
        rules, wanted = self.world.site.scenario.migration, self.policy.methods.unlocked
        if method is Method.COLD or hand_over or (rules.disk_locks and rules.locks_shown):
            return
        if not rules.disk_locks:
            raise BrokenError(f"{vm}, whose disks nothing locks, was sent without a hand-over")
        if wanted is not Unlocked.PLAIN:
            raise BrokenError(f"{vm}, whose locks do not show, was sent where the policy: {wanted}")
        self.note("act: migrate in spite of locks that do not show")

    def _must_be_of_one_time(self, vm: str, source: str, target: str, method: Method) -> None:
        skew = self.world.preflight(vm, "", source, target, method).skew or 0.0
        if method is not Method.COLD and abs(skew) > self.policy.limits.clock_skew:
            raise BrokenError(f"{vm} was sent from {source} to {target}, {skew} s ahead")

    def _must_be_shut_off(self, vm: str, source: str) -> None:
        copies = self.known_copies(vm)
        if set(copies) != {source} or copies[source] in HOLDS_MEMORY:
            raise BrokenError(f"{vm} was to be moved cold from {source}; there is {copies}")

    def known_copies(self, vm: str) -> dict[str, Presence]:
        """What hosts have of a VM that the loop may know of."""
        found = self.world.copies(vm)
        return {host: copy for host, copy in found.items() if host not in self.unconfigured}

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        found = dict.fromkeys(hosts, PowerState.UNKNOWN)
        return {**found, **self.world.states(found.keys() - self.unconfigured)}

    def _must_be_within_limits(
        self, source: str, target: str, method: Method, bandwidth: int, downtime: float
    ) -> None:
        """Enough is known, and what is under way leaves room for one more."""
        limits, now = self.policy.limits, self.world.now()
        weigh = partial(self._weight, limits.storage_weight)
        if now - self.observed > self.policy.detection.stale_after:
            raise BrokenError(f"a start on what was seen {now - self.observed:.0f} s ago")
        if not 0 < bandwidth <= limits.bandwidth or downtime > limits.downtime:
            raise BrokenError(f"a start with {bandwidth} bytes per second and {downtime} s")
        under_way = self.world.ours()
        heavy = limits.storage_weight if method is Method.STORAGE else 1
        counts = (
            (sum(weigh(vm) for vm, _, _ in under_way), limits.per_site),
            (sum(weigh(vm) for vm, begin, _ in under_way if begin == source), limits.per_host),
            (sum(weigh(vm) for vm, _, end in under_way if end == target), limits.per_host),
        )
        if any(count and count + heavy > limit for count, limit in counts):
            raise BrokenError(f"one more from {source} to {target} beside {under_way}")

    def _weight(self, of_storage: int, vm: str) -> int:
        return of_storage if self.methods.get(vm) is Method.STORAGE else 1

    def _must_find_room(self, vm: str, target: str) -> None:
        """With all that is there or under way from or to it, the target stays below its limits."""
        snapshot = self.snapshot()
        if snapshot is None:
            return
        cluster, coming = (
            snapshot.cluster,
            {one for one, _, to in self.world.ours() if to == target},
        )
        told = {one for one, at in (*cluster.placement.items(), *self.sent.items()) if at == target}
        here = {one for one in told & cluster.vms.keys() if target in self.world.running(one)}
        fault = crowded(snapshot, self.policy, here | coming | {vm}, target)
        if fault:
            raise BrokenError(f"{vm} was sent to {target}: {fault}")

    def sleep(self, host: str) -> None:
        self._must_be_switchable(host)
        self._must_be_intended("", host, "")
        copies = {vm.name: self.world.copies(vm.name).get(host) for vm in self.world.site.vms}
        active = [vm for vm, said in copies.items() if said in HOLDS_MEMORY]
        if active:
            raise BrokenError(f"{host} was put to sleep with {active} on it")
        self.world.sleep(host)

    def _must_be_switchable(self, host: str) -> None:
        if host in self.unconfigured:
            raise PowerError(f"{host}: no power commands are configured")

    def wake(self, host: str) -> None:
        self._must_be_switchable(host)
        self._must_be_intended("", host, "")
        self.world.wake(host)

    def _must_be_intended(self, vm: str, host: str, target: str) -> None:
        if self.is_full():
            raise BrokenError(f"something was begun on {host} that cannot be recorded")
        if self.is_paused():
            raise BrokenError(f"something was begun on {host} while a pause stands")
        if self.frozen:
            raise BrokenError(f"something was begun on {host}, and {self.frozen}")
        found = [
            intent
            for intent in self.ledger().recover()
            if (intent.vm, intent.host, intent.target) == (vm, host, target)
        ]
        if not found:
            raise BrokenError(f"no open intent for {vm or 'power'} {host} {target}")
        if self.ledger().database.connection.in_transaction:
            raise BrokenError(f"the intent for {vm or 'power'} {host} {target} is not committed")
        self._must_be_warranted(found[-1])

    def _must_be_warranted(self, intent: Intent) -> None:
        """The policy of this moment lets balancerd act, or an operator did."""
        mode = self.policy.at(self.world.now() + self.ahead()).mode
        if mode is Mode.OBSERVE or (mode is Mode.ADVISE and intent.plan not in self.approved):
            raise BrokenError(f"something was begun on {intent.host} in mode {mode}")

    def _answers(self, host: str) -> bool:
        location = self.world.locate("", "", [host])
        return location.presence[host] is not Presence.UNREACHABLE

    def destroy(self, vm: str, host: str) -> None:
        self._must_be_configured(host)
        said = self.world.copies(vm).get(host)
        if host in self.world.running(vm) or said is Presence.POSTCOPY_FAILED:
            raise BrokenError(f"the copy of {vm} on {host} was to be destroyed, which is {said}")
        self.world.destroy(vm, host)
        self.note("act: destroy")

    def resume(self, vm: str, host: str) -> None:
        self._must_be_configured(host)
        self.world.resume(vm, host)
        self.note("act: resume")

    def resume_arrived(self, vm: str, host: str) -> None:
        self._must_be_configured(host)
        self.world.resume_arrived(vm, host)
        self.note("act: resume what arrived")

    def undefine(self, vm: str, host: str) -> None:
        self._must_be_configured(host)
        self.world.undefine(vm, host)
        self.note("act: undefine")

    def set_autostart(self, vm: str, host: str, autostart: bool) -> None:
        self._must_be_configured(host)
        self.world.set_autostart(vm, host, autostart)
        self.note("act: set autostart")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)
