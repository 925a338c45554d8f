"""What the core needs the world to have: doors with an adapter behind and `loop` in front.

An adapter raises `BackendError`, `PowerError` or `LedgerError` when something is broken. "No" is
never an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # nothing of this is needed to raise one of the errors
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from balancerd.core.model import Host, Load, Method, PowerState, Snapshot
    from balancerd.core.observation import JobReport, Location, Observation, Preflight
    from balancerd.core.past.history import History
    from balancerd.core.past.record import Conclusion, Cycle, Intent, Pause, PlanState, Request
    from balancerd.core.plan import Plan


class BackendError(Exception):
    """A host did not do what it was told, or did not answer. Says nothing about where a VM is."""

    def __init__(self, host: str, act: str, cause: str, code: int = 0, domain: int = 0) -> None:
        super().__init__(f"{host}: {act}: {cause}")
        self.host, self.act, self.cause, self.code, self.domain = host, act, cause, code, domain


class PowerError(Exception):
    """A power driver failed or gave no usable answer."""


class LedgerError(Exception):
    """The record cannot be written or read. Cannot record, cannot act."""


class Clock(Protocol):
    """Time as the loop sees it."""

    def now(self) -> float:
        """Seconds since the epoch, for people and windows."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump, for intervals and deadlines."""
        ...


def nothing() -> None:
    """What is done meanwhile where nothing has to be."""


class Backend(Protocol):
    """The hosts and their VMs. Every call returns within its own deadline, hung hosts or not."""

    def observe(self, meanwhile: Callable[[], None] = nothing, /) -> Observation:
        """Read every host; one that does not answer in time is a reading with an error. While one
        is waited for, `meanwhile` is called again and again, and may use all of this but
        `observe`."""
        ...

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        """Ask the named hosts about one VM, now. Never raises: no answer is a presence too."""
        ...

    def preflight(self, vm: str, uuid: str, source: str, target: str, method: Method) -> Preflight:
        """Ask both hosts what speaks for or against a migration, now. Never raises, like `locate`;
        a host that does not answer is a side with an error."""
        ...

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
        """Start a migration and return; `reports` tells the rest. Bytes per second, seconds.
        `hand_over`: the VM arrives paused, and waits for `resume_arrived`."""
        ...

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        """Change a running migration's cap, in bytes per second; `host` is the source."""
        ...

    def set_downtime(self, vm: str, host: str, downtime: float) -> None:
        """Change the longest pause a running migration may end with, in seconds."""
        ...

    def switch_to_post_copy(self, vm: str, host: str) -> None:
        """Let a VM run on its target now, if its migration was started with method POST_COPY."""
        ...

    def abort(self, vm: str, host: str) -> None:
        """Ask the source to give up its migration of the VM. Returns before it has."""
        ...

    def adopt(self, vm: str, source: str, target: str) -> None:
        """Watch a migration started by an earlier balancerd; `reports` tells of it from now on."""
        ...

    def resume(self, vm: str, host: str) -> None:
        """Let a VM go on that a migration left paused on its source. Only the state-pair table may
        ask for it."""
        ...

    def resume_arrived(self, vm: str, host: str) -> None:
        """Let a VM go on that arrived paused because it was to be handed over. Only the state-pair
        table may ask for it."""
        ...

    def destroy(self, vm: str, host: str) -> None:
        """End the copy of the VM on this host. Only the state-pair table may ask for it."""
        ...

    def undefine(self, vm: str, host: str) -> None:
        """Remove a leftover definition, never a running VM. Only the state-pair table may ask."""
        ...

    def set_autostart(self, vm: str, host: str, autostart: bool) -> None:
        """Carry over the flag that migration leaves behind."""
        ...

    def reports(self) -> tuple[JobReport, ...]:
        """News of migrations since the last call: progress, and each end exactly once."""
        ...


class Power(Protocol):
    """Hosts' power. A request returns once it was accepted; `states` tells when it took effect."""

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """The power state of each host; UNKNOWN where the driver cannot tell."""
        ...

    def wake(self, host: str) -> None:
        """Switch a host on."""
        ...

    def sleep(self, host: str) -> None:
        """Ask a host to shut down gracefully, never by force."""
        ...

    def failures(self) -> Mapping[str, str]:
        """Requests that were accepted and failed since the last call, with the reason, by host."""
        ...


class Ledger(Protocol):
    """The record of what was meant and what happened; every call is committed when it returns."""

    def recover(self) -> tuple[Intent, ...]:
        """Intents that have no conclusion yet, oldest first."""
        ...

    def open_plans(self) -> tuple[int, ...]:
        """Plans that are proposed or running by the record; a new balancerd supersedes them."""
        ...

    def known_hosts(self) -> Mapping[str, Host]:
        """Every host as it was last recorded, for those that sleep while balancerd starts."""
        ...

    def intend(self, intent: Intent) -> int | None:
        """Commit an intent and give its id. None while a pause stands: then nothing may be done."""
        ...

    def conclude(self, conclusion: Conclusion) -> None:
        """Commit how an intent ended. A second conclusion of the same intent is a LedgerError."""
        ...

    def record_progress(self, intent: int, report: JobReport) -> None:
        """Note how far a migration is; the last note wins."""
        ...

    def record_policy(self, name: str, text: str, at: float) -> bool:
        """Keep a policy's text, once for each text; whether it was not in force before."""
        ...

    def record_inventory(self, snapshot: Snapshot) -> None:
        """Bring the hosts and VMs of the record up to date, and note placements that changed."""
        ...

    def record_plan(self, plan: Plan, snapshot: Snapshot, state: PlanState, detail: str) -> int:
        """Keep a plan with the snapshot it was made of, and how it stands; its id."""
        ...

    def set_plan_state(self, plan: int, state: PlanState, at: float, detail: str) -> None:
        """Note how a plan goes on."""
        ...

    def record_power(self, host: str, state: PowerState, at: float) -> None:
        """Note that a host's power was seen to change."""
        ...

    def record_cycle(self, cycle: Cycle) -> None:
        """Note a completed cycle; the newest one is the daemon's status."""
        ...

    def record_event(self, at: float, kind: str, subject: str, detail: str) -> None:
        """Add a line to the audit: anything an operator may later ask about."""
        ...

    def history(self, now: float) -> History:
        """What deciding needs to remember of the last week."""
        ...

    def requests(self) -> tuple[Request, ...]:
        """What the operator asked for and was not answered yet, oldest first."""
        ...

    def answer(self, request: int, at: float, accepted: bool, detail: str) -> None:
        """Answer a request, once."""
        ...

    def pause(self, now: float) -> Pause | None:
        """The pause that stands, if one does."""
        ...

    def draining(self) -> frozenset[str]:
        """Hosts that the operator drains."""
        ...

    def set_draining(self, host: str, draining: bool, at: float) -> None:
        """Begin or end a host's drain."""
        ...


class Samples(Protocol):
    """The time series. Disposable: losing it costs forecasts, never safety."""

    def append(self, at: float, hosts: Mapping[str, Load], vms: Mapping[str, Load]) -> None:
        """Keep one reading of every host and VM."""
        ...

    def recent(self, now: float, span: float) -> Iterable[tuple[float, Mapping[str, float]]]:
        """CPU of every VM, in reference cores, at each reading of the last `span` seconds."""
        ...

    def hours(self, now: float, span: float) -> Iterable[tuple[float, Mapping[str, float]]]:
        """Mean CPU of every VM, in reference cores, in each whole hour of the last `span` seconds
        that was folded; with the hour's beginning, oldest first."""
        ...

    def roll_up(self, now: float) -> None:
        """Fold old readings into 5-minute and 1-hour rows, and drop what is past its retention."""
        ...
