"""What one configuration asks for, put together: adapters, loop, and what is done on an alarm."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from balancerd.adapters.aside import PowerAside
from balancerd.adapters.libvirt.backend import LibvirtBackend
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.local import counters, footprint, runs_here
from balancerd.adapters.power import Answer, Commands, ExecPower
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.maintenance import LedgerRetention
from balancerd.adapters.sqlite.samples import SamplesRetention, SamplesStore
from balancerd.config import (
    Configuration,
    HostEntry,
    parse_configuration,
    parse_policy,
    policy_named_in,
)
from balancerd.core.model import Link
from balancerd.core.past.record import Cycle
from balancerd.core.policies.policy import Policy
from balancerd.core.units import format_size
from balancerd.documents import DocumentError, collecting, read_text
from balancerd.engines import planner
from balancerd.loop import Loop
from balancerd.notify import notify
from balancerd.ports import LedgerError
from balancerd.steady import CLOCK, boot_id

log = logging.getLogger("balancerd")

STEP = 1.0  # seconds by which a clock that nobody set does not go wrong between two cycles
FAILURES_IN_A_ROW = 3  # cycles that may fail before a fresh process is the better try
MAINTENANCE_WAITS = 6 * 3600.0  # seconds for which migrations may put it off
SIGN_OF_LIFE = 3600.0  # seconds after which the log says once more what it has said already


@dataclass(frozen=True, slots=True)
class Setup:
    """What the files say, read together so that they are valid together."""

    configuration: Configuration
    policy: Policy
    policy_text: str

    @classmethod
    def read(cls, path: Path) -> "Setup":
        """From the configuration file; DocumentError with every problem of either file."""
        text, problems = read_text(path), list[str]()
        with collecting(problems):
            configuration = parse_configuration(text, path)
        policy_file = policy_named_in(text, path)
        if policy_file is not None:
            with collecting(problems):
                policy_text = read_text(policy_file)
                policy = parse_policy(policy_text, policy_file)
        if problems:
            raise DocumentError(problems)
        return cls(configuration, policy, policy_text)


@dataclass(slots=True)
class Sayings:
    """What cycles said within an hour, on a site that stayed as it is."""

    site: tuple[object, ...] = ()
    kinds: set[str] = field(default_factory=set)
    since: float = 0.0

    def is_new(self, cycle: Cycle, now: float) -> bool:
        """Whether a cycle, at a monotonic time, says something that was not said before.

        A host that wavers over its threshold makes a site say this and that by turns, for months.
        """
        kind = cycle.sentence.partition(":")[0]
        hosts = (cycle.hosts_on, cycle.hosts_asleep, cycle.hosts_unknown)
        site = (cycle.mode, cycle.objective, cycle.window, cycle.frozen, hosts)
        if site != self.site or now - self.since >= SIGN_OF_LIFE:
            self.site, self.kinds, self.since = site, set(), now
        is_new = kind not in self.kinds
        self.kinds.add(kind)
        return is_new


@dataclass(slots=True)
class Service:
    """What runs between two changes of the configuration. `policy` may be exchanged meanwhile."""

    loop: Loop
    ledger: Ledger
    samples: SamplesStore
    setup: Setup
    failures: int = 0
    cycled: float = field(default_factory=time.monotonic)
    sayings: Sayings = field(default_factory=Sayings)
    maintenance_due: float | None = None  # since when, by the monotonic clock

    def cycle(self) -> None:
        """One cycle. One that breaks is told with its traceback; three in a row end the process."""
        self.cycled = time.monotonic()
        self._follow_the_machines_clock()
        try:
            cycle = self.loop.cycle()
        except Exception:
            self.failures += 1
            log.exception("the cycle broke (%d in a row)", self.failures)
            if self.failures >= FAILURES_IN_A_ROW:
                raise
            return
        self.failures = 0
        self._tell(cycle)
        notify(WATCHDOG=1, STATUS=cycle.sentence)
        self._maintain_if_due()

    def _tell(self, cycle: Cycle) -> None:
        """Into the log goes what is new. A site in peace has a line an hour, not one each cycle."""
        is_new = self.sayings.is_new(cycle, self.cycled)
        log.log(logging.INFO if is_new else logging.DEBUG, "%s", cycle.sentence)

    def _follow_the_machines_clock(self) -> None:
        """Unless something is under way: what is known of that would be of another time. Nor where
        that cannot be written down for the next balancerd."""
        if self.loop.busy():
            return
        try:
            keep_time(self.ledger, CLOCK.offset_of_machine)
        except LedgerError as error:
            log.warning("the machine's clock is not followed: %s", error)
            return
        step = CLOCK.follow()
        if abs(step) > STEP:
            log.warning("the machine's clock was set by %+.0f s", step)

    def maintain_soon(self) -> None:
        """Maintain the record after the next cycle that leaves nothing under way. To copy a record
        of years takes many seconds, and a VM that arrives paused waits for us."""
        if self.maintenance_due is None:
            self.maintenance_due = time.monotonic()

    def _maintain_if_due(self) -> None:
        due = self.maintenance_due
        if due is None or (self.loop.busy() and time.monotonic() - due < MAINTENANCE_WAITS):
            return
        self.maintenance_due = None
        self.maintain()

    def maintain(self) -> None:
        """Roll up, prune and back up the record; a failure costs space, not safety."""
        now, keep = CLOCK.now(), self.setup.configuration.retention
        parts: tuple[Callable[[], None], ...] = (
            partial(self.samples.roll_up, now),
            partial(self.ledger.maintain, now, LedgerRetention(keep.ledger)),
        )
        for part in parts:
            try:
                part()
            except LedgerError as error:
                log.warning("maintenance: %s", error)
        used = footprint()
        log.info(
            "balancerd uses %s of memory, %.0f s of CPU so far, %d threads, %d files",
            format_size(used.rss),
            used.cpu,
            used.threads,
            used.files,
        )

    def note(self, kind: str, detail: str) -> bool:
        """Add a line about balancerd itself to the audit: what it did not see, it was not there.
        False where the ledger does not take it."""
        try:
            self.ledger.record_event(CLOCK.now(), kind, "balancerd", detail)
        except LedgerError as error:
            log.error("the audit lacks a line (%s): %s", kind, error)
            return False
        return True

    def exchange(self, setup: Setup) -> None:
        """Go on under another policy."""
        self.setup = setup
        policy, now = setup.policy, CLOCK.now()
        what = f"in force: {policy.mode}, {policy.objective}: {policy.summary}"
        try:
            if self.ledger.record_policy(policy.name, setup.policy_text, now):
                self.ledger.record_event(now, "policy", policy.name, what)
        except LedgerError as error:
            log.error("the policy is in force but not recorded: %s", error)


def keep_time(ledger: Ledger, ahead: float) -> None:
    """Write down what our time is counted by, if that is another than stands there."""
    boot = boot_id()
    kept = ledger.clock(boot)
    if kept is None or abs(ahead - kept) > STEP:
        ledger.keep_clock(boot, ahead)


def take_up_time(ledger: Ledger) -> None:
    """Count time as an earlier balancerd did, where it left something under way: the machine's
    clock may have been set since. After a boot there is only that to go by."""
    kept = ledger.clock(boot_id())
    if kept is not None and ledger.recover():
        step = CLOCK.offset - kept
        if abs(step) > STEP:
            log.warning("the machine's clock was set by %+.0f s; it waits for what goes on", step)
        CLOCK.take_up(kept)
    keep_time(ledger, CLOCK.offset)


@contextmanager
def composed(setup: Setup, ring: Callable[[], None]) -> Iterator[Service]:
    """Everything that a configuration asks for, opened; closed again at the end. `ring` is called
    from another thread when a migration has ended.

    Migrations that run are left to run: they are peer-to-peer, and the next start takes them up.
    """
    configuration = setup.configuration
    state = configuration.state_directory
    keep = configuration.retention
    retention = SamplesRetention(keep.samples, keep.five_minutes, keep.hours)
    with (
        Ledger(state / "ledger.db", site=configuration.site) as ledger,
        SamplesStore(state / "samples.db", retention) as samples,
        LibvirtBackend(
            host_configs(configuration),
            {host.name: counters for host in configuration.host if runs_here(host.uri)},
            encrypted=configuration.tls,
            ring=ring,
        ) as backend,
    ):
        service: Service
        loop = Loop(
            backend,
            PowerAside(ExecPower(power_commands(configuration))),
            ledger,
            samples,
            CLOCK,
            lambda: service.setup.policy,
            tuple(Link(link.a, link.b, float(link.bandwidth)) for link in configuration.link),
            planner=planner,
        )
        if samples.notice:
            log.warning("%s", samples.notice)
        take_up_time(ledger)
        service = Service(loop, ledger, samples, setup)
        service.exchange(setup)
        left = loop.start()
        log.info("%s", left)
        service.note("begin", f"balancerd {version('balancerd')}: {left}")
        yield service
        service.note("end", "what runs goes on")


def host_configs(configuration: Configuration) -> tuple[HostConfig, ...]:
    """The hosts as the libvirt adapter wants them."""
    return tuple(
        HostConfig(
            name=host.name,
            uri=host.uri,
            peer_uri=host.peer_uri or "",
            migration_uri=host.migration_uri or "",
            rack=host.rack,
            speed=host.speed,
            power_curve=configuration.curve_of(host),
            can_sleep=_can_sleep(host),
            memory=host.memory or 0,
            tls_name=host.tls_name,
            shared=configuration.storage.shared,
        )
        for host in configuration.host
    )


def power_commands(configuration: Configuration) -> dict[str, Commands]:
    """The commands of every host that has some."""
    return {
        host.name: Commands(
            on=host.power.on,
            off=host.power.off,
            state=host.power.state,
            timeout=host.power.timeout,
            answer=Answer(host.power.answer),
        )
        for host in configuration.host
        if host.power
    }


def _can_sleep(host: HostEntry) -> bool:
    return host.power is not None and not host.protected
