"""One migration: run by us, or watched because an earlier balancerd started it.

The call and the watch each have a connection of their own to the source, as threads share none (see
`connection`). A call lasts for minutes; what hangs with it is nobody else's.

Nothing here decides how a migration went. The end that is reported says that the call returned, or
that the job is no more; where the VM is must be asked of both hosts.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import libvirt

from balancerd.adapters.libvirt import overlays
from balancerd.adapters.libvirt.acts import Refused, set_bandwidth
from balancerd.adapters.libvirt.connection import connected
from balancerd.adapters.libvirt.definition import Storage, local_disks, places
from balancerd.adapters.libvirt.errors import code, not_encrypted, telling
from balancerd.adapters.libvirt.facts import storage_of
from balancerd.adapters.libvirt.jobs import Figures, figures_of, read_job
from balancerd.adapters.libvirt.locate import condition_of, find
from balancerd.adapters.libvirt.order import Order, flags_of, milliseconds, parameters_of
from balancerd.adapters.libvirt.states import BLOCKED, RUNNING, Job
from balancerd.core.model import WITH_DISKS, Method
from balancerd.core.observation import JobProgress, JobReport
from balancerd.core.outcome import Against
from balancerd.ports import BackendError
from balancerd.steady import CLOCK

LOG = logging.getLogger(__name__)

POLL_SECONDS = 0.5
FIGURES_SECONDS = 0.5  # how long the event with the figures may be late
SHARE_SECONDS = 10.0  # after which disks that are copied side by side are told their shares again
START_SECONDS = 10.0  # an order this old is not carried out: the world it was given for has passed

Tell = Callable[[JobReport], None]
AskTarget = Callable[[], Figures]


class _NotThereError(BackendError):
    """The source has no such VM, or no longer."""


class Migration:
    """One migration from its start, or its adoption, to the report of its end."""

    def __init__(self, order: Order, tell: Tell, ask_target: AskTarget) -> None:
        self.order = order
        self._tell, self._ask_target = tell, ask_target
        self._ordered = time.monotonic()
        self._ended = threading.Event()
        self._completed = threading.Event()
        self._figures = Figures()
        self._progress: JobProgress | None = None
        self._downtime_set = False
        self._bandwidth = order.bandwidth  # as it was last set
        self._disks: tuple[str, ...] = ()  # that are copied
        self._shared_at = 0.0
        self._asked = self._answered = False
        self._asked_at: float | None = None

    def run(self) -> JobReport:
        """Migrate; the report of the end. Blocks until then: for a thread of its own."""
        return self._end(self._attempt(self._migrate))

    def follow(self) -> JobReport:
        """Watch the migration that is under way; the report of its end. Blocks likewise."""
        self._downtime_set = self._asked = True  # whoever started it has
        error = self._attempt(self._watch_alone)
        return self._end(None if isinstance(error, _NotThereError) else error)

    def keep_downtime(self) -> None:
        """Somebody set the downtime meanwhile; the order's is not to be set any more."""
        self._downtime_set = True

    def keep_bandwidth(self, bandwidth: int) -> None:
        """Somebody changes the cap; the order's does not count any more."""
        self._bandwidth = bandwidth

    def _attempt(self, work: Callable[[libvirt.virDomain], None]) -> BackendError | None:
        """Do the work on a connection of its own; the error it ended with."""
        name = self.order.source.name
        try:
            with self._domain() as domain:
                self._register(domain)
                work(domain)
                self._completed.wait(FIGURES_SECONDS)  # the event may come after the call's return
        except BackendError as error:
            return error
        except Exception as error:  # an end must be reported, whatever happened
            LOG.exception("%s: migration of %s failed", name, self.order.vm)
            return BackendError(name, "migrate", f"unforeseen: {error!r}")
        return None

    @contextmanager
    def _domain(self) -> Iterator[libvirt.virDomain]:
        """The VM's domain on its source, over a connection for this thread alone."""
        name = self.order.source.name
        with connected(name, self.order.source.uri) as connection, telling(name, "migrate"):
            domain = find(connection, self.order.vm, self.order.uuid)
            if domain is None:
                raise _NotThereError(name, "migrate", "the VM is not there")
            yield domain

    def _register(self, domain: libvirt.virDomain) -> None:
        connection: libvirt.virConnect = domain.connect()  # type: ignore[no-untyped-call]
        event = libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED
        connection.domainEventRegisterAny(domain, event, self._note_completed, None)

    def _note_completed(
        self,
        _connection: libvirt.virConnect,
        _domain: libvirt.virDomain,
        statistics: Mapping[str, Any],
        _context: object,
    ) -> None:
        self._figures = figures_of(statistics)
        self._completed.set()

    def _migrate(self, domain: libvirt.virDomain) -> None:
        order, self._disks = self.order, self._disks_to_copy(domain)
        self._look_once_more(domain)
        flags = flags_of(order, persistent=bool(domain.isPersistent()))
        parameters: Any = parameters_of(order, self._disks)  # annotated as text, but a dictionary
        if order.method is Method.OVERLAY:
            self._make_overlays(domain)
        threading.Thread(target=self._watch, name=f"watch {order.vm}", daemon=True).start()
        self._asked, self._asked_at = True, time.monotonic()
        try:
            domain.migrateToURI3(order.target.reach, parameters, flags)
        finally:
            self._answered = self._is_alive(domain)
            self._ended.set()

    @staticmethod
    def _is_alive(domain: libvirt.virDomain) -> bool:
        """Whether the source is still connected: then the call's end was its own answer."""
        connection: libvirt.virConnect = domain.connect()  # type: ignore[no-untyped-call]
        return bool(connection.isAlive())

    def _look_once_more(self, domain: libvirt.virDomain) -> None:
        """Raise BackendError where the call must not be made at all."""
        name = self.order.source.name
        if self.order.method is Method.COLD and domain.isActive():
            # libvirt would copy the definition, remove it here and let the VM run on.
            raise BackendError(name, "migrate", "it runs: no cold move is possible")
        if self.order.method is Method.COLD and domain.hasManagedSaveImage():
            # libvirt would leave that behind, and the VM boot as after a loss of power.
            raise BackendError(name, "migrate", "its memory is saved here: it goes nowhere cold")
        if self.order.hand_over and condition_of(domain).state not in (RUNNING, BLOCKED):
            # It would arrive paused either way, and be taken for one that we are to resume.
            raise BackendError(name, "migrate", "it does not run: it cannot be handed over")
        self._be_in_time(name)

    def _be_in_time(self, host: str) -> None:
        """Raise BackendError where a host hung: nothing may start when it comes back some day."""
        age = time.monotonic() - self._ordered
        if age > START_SECONDS:
            raise BackendError(host, "migrate", f"the host took {age:.0f} s to answer: too late")

    def _disks_to_copy(self, domain: libvirt.virDomain) -> tuple[str, ...]:
        """The disks to be copied, for a migration with storage."""
        if self.order.method not in WITH_DISKS:
            return ()
        name, storage = self.order.source.name, self._storage(domain)
        definition = domain.XMLDesc(0)
        disks, fixed = local_disks(definition, storage), places(definition, storage).fixed
        if not disks:
            raise BackendError(name, "migrate", "the VM has no local disk to copy")
        if fixed:  # libvirt would write over what the target has under that name
            raise BackendError(name, "migrate", f"{fixed[0]} is no file that could be copied")
        return disks

    def _storage(self, domain: libvirt.virDomain) -> Storage:
        connection: libvirt.virConnect = domain.connect()  # type: ignore[no-untyped-call]
        return storage_of(self.order.source, connection)

    def _make_overlays(self, domain: libvirt.virDomain) -> None:
        """libvirt makes missing images for disks that are copied in full, but none for these."""
        target, chains = self.order.target, overlays.chains_of(domain, self._storage(domain))
        with connected(target.name, target.uri) as there, telling(target.name, "migrate"):
            overlays.make(there, target.name, chains, partial(self._be_in_time, target.name))

    def _watch(self) -> None:
        """Report progress until the call has returned."""
        while not self._ended.wait(POLL_SECONDS):
            try:
                with self._domain() as domain:
                    self._poll_until_the_end(domain)
            except BackendError as error:
                LOG.debug("%s: no progress to be read: %s", self.order.vm, error)

    def _poll_until_the_end(self, domain: libvirt.virDomain) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._poll(domain)

    def _watch_alone(self, domain: libvirt.virDomain) -> None:
        """Report progress until there is no job any more."""
        try:
            while self._poll(domain):
                time.sleep(POLL_SECONDS)
        except libvirt.libvirtError as error:
            if code(error) != libvirt.VIR_ERR_NO_DOMAIN:  # gone: to the target, most likely
                raise

    def _poll(self, domain: libvirt.virDomain) -> bool:
        """Report how far the job is and do what is due; whether there is a job."""
        job, progress = read_job(domain)
        if job is Job.NONE and self._progress is not None and not self._ended.is_set():
            self._tell(self._report(over=True))
        if progress is not None and job is Job.OUTGOING:
            self._progress = progress
            if not self._ended.is_set():
                self._tell(self._report(progress=progress))
            self._set_downtime(progress)
            self._share_out(progress)
        return job is Job.OUTGOING

    def _set_downtime(self, progress: JobProgress) -> None:
        """Once memory flows; before that the call may wait until the job has ended."""
        if not self._downtime_set and progress.total > 0:
            self._downtime_set = True
            limit = milliseconds(self.order.downtime)
            self._aside("set the downtime", lambda domain: domain.migrateSetMaxDowntime(limit))

    def _share_out(self, progress: JobProgress) -> None:
        """Give each of several disks its share, and the memory that follows them all of it."""
        now, copying = time.monotonic(), progress.iteration == 0
        due = not self._shared_at or (copying and now > self._shared_at + SHARE_SECONDS)
        if len(self._disks) > 1 and self._bandwidth and progress.total > 0 and due:
            self._shared_at = now
            self._aside("share out", lambda domain: set_bandwidth(domain, self._bandwidth))

    def _aside(self, act: str, work: Callable[[libvirt.virDomain], object]) -> None:
        """Do something on a thread of its own, lest a call that waits stop the watch."""

        def perform() -> None:
            try:
                with self._domain() as domain:
                    work(domain)
            except (BackendError, Refused) as error:
                LOG.warning("%s: cannot %s: %s", self.order.vm, act, error)

        threading.Thread(target=perform, name=f"{act} of {self.order.vm}", daemon=True).start()

    def _end(self, error: BackendError | None) -> JobReport:
        figures = self._figures
        if error is None and not self._completed.is_set():
            figures = self._ask_target()
        if figures == Figures() and self._progress is not None:
            last = self._progress
            figures = Figures(last.processed, last.iteration, seconds=last.elapsed)
        objection, against = self._objection(error)
        return self._report(
            progress=self._progress,
            ended=True,
            begun=self._asked,
            answered=self._answered,
            error="" if error is None else error.cause,
            error_code=0 if error is None else error.code,
            error_domain=0 if error is None else error.domain,
            objection=objection,
            against=against,
            bytes=figures.bytes,
            iterations=figures.iterations,
            downtime=figures.downtime,
            seconds=self._no_longer_than_it_was(figures.seconds),
        )

    def _no_longer_than_it_was(self, seconds: float | None) -> float | None:
        """A source that the VM came to by migration may count by two hosts' clocks; ours is one."""
        if seconds is None or self._asked_at is None:
            return seconds
        return min(seconds, time.monotonic() - self._asked_at)

    def _objection(self, error: BackendError | None) -> tuple[str, Against]:
        """What the hosts lack, where they refused before memory flowed; "" for anything else.

        A slow host shows the job for a while before it refuses, with nothing to be sent yet.
        """
        flowed = self._progress is not None and self._progress.processed > 0
        if error is None or not self.order.encrypted or flowed:
            return "", Against.MOVE
        return not_encrypted(error.cause, self.order.source.name, self.order.target.name)

    def _report(self, **news: Any) -> JobReport:
        order = self.order
        return JobReport(order.vm, order.source.name, order.target.name, CLOCK.now(), **news)
