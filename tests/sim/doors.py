"""The world as the loop of a simulated life sees it: no act is let through unchecked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.model import Method, Snapshot
from balancerd.core.observation import JobReport, Location, Observation, Presence
from balancerd.core.policies.policy import Policy
from tests.sim.doorways import crowded, frozen


class BrokenError(AssertionError):
    """An invariant that did not hold."""


@dataclass
class Doors:
    """The world as the loop sees it; every act is checked before it is let through."""

    world: World
    ledger: Callable[[], Ledger]
    policy: Policy
    operate: Callable[[str, str], None]  # told of each VM and target, just before the start
    is_paused: Callable[[], bool] = lambda: False  # whether a pause stands
    is_full: Callable[[], bool] = lambda: False  # whether nothing can be recorded
    ahead: Callable[[], float] = lambda: 0.0  # of the world's clock is the loop's, by seconds
    observed: float = 0.0  # when the loop last looked
    frozen: str = ""  # why nothing may begin on what it saw then
    snapshot: Callable[[], Snapshot | None] = lambda: None  # what the loop made of it
    sent: dict[str, str] = field(default_factory=dict)  # where each VM was sent last

    def observe(self) -> Observation:
        self.observed = self.world.now()
        seen = self.world.observe()
        self.frozen = frozen(seen, lambda h: self.world.states([h])[h], self.policy.detection)
        ahead = self.ahead()
        readings = tuple(replace(reading, at=reading.at + ahead) for reading in seen.readings)
        return Observation(seen.at + ahead, readings) if ahead else seen

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        found = self.world.locate(vm, uuid, hosts)
        return replace(found, at=found.at + self.ahead())

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
        self._must_be_intended(vm, source, target)
        if method is Method.COLD:
            self._must_be_shut_off(vm, source)
        else:
            self._must_find_room(vm, target)
        for host in (source, target):
            if not self._answers(host):
                raise BrokenError(f"{vm} was sent from {source} to {target}; {host} is silent")
        self._must_be_within_limits(source, target, bandwidth, downtime)
        self.sent[vm] = target
        self.operate(vm, target)
        self.world.migrate(vm, source, target, method, bandwidth, downtime, hand_over=hand_over)

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        if not 0 < bandwidth <= self.policy.limits.bandwidth:
            raise BrokenError(f"{vm} was to send {bandwidth} bytes per second")
        self.world.set_bandwidth(vm, host, bandwidth)

    def _must_be_shut_off(self, vm: str, source: str) -> None:
        copies = self.world.copies(vm)
        if set(copies) != {source} or self.world.running(vm):
            raise BrokenError(f"{vm} was to be moved cold from {source}; there is {copies}")

    def _must_be_within_limits(
        self, source: str, target: str, bandwidth: int, downtime: float
    ) -> None:
        """Enough is known, and what is under way leaves room for one more."""
        limits, now = self.policy.limits, self.world.now()
        if now - self.observed > self.policy.detection.stale_after:
            raise BrokenError(f"a start on what was seen {now - self.observed:.0f} s ago")
        if not 0 < bandwidth <= limits.bandwidth or downtime > limits.downtime:
            raise BrokenError(f"a start with {bandwidth} bytes per second and {downtime} s")
        under_way = self.world.ours()
        crowded = (
            len(under_way) >= limits.per_site
            or sum(way[1] == source for way in under_way) >= limits.per_host
            or sum(way[2] == target for way in under_way) >= limits.per_host
        )
        if crowded:
            raise BrokenError(f"one more from {source} to {target} beside {under_way}")

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
        self._must_be_intended("", host, "")
        running = [vm.name for vm in self.world.site.vms if host in self.world.running(vm.name)]
        if running:
            raise BrokenError(f"{host} was put to sleep with {running} on it")
        self.world.sleep(host)

    def wake(self, host: str) -> None:
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

    def _answers(self, host: str) -> bool:
        location = self.world.locate("", "", [host])
        return location.presence[host] is not Presence.UNREACHABLE

    def destroy(self, vm: str, host: str) -> None:
        if host in self.world.running(vm):
            raise BrokenError(f"the running copy of {vm} on {host} was to be destroyed")
        self.world.destroy(vm, host)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)
