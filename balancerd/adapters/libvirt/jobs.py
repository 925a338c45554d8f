"""A domain's job: whether it migrates, which way, and how far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import libvirt

from balancerd.adapters.libvirt.errors import code
from balancerd.adapters.libvirt.states import Job
from balancerd.core.observation import JobProgress

PAGE = 4096  # bytes, where libvirt does not tell a page's size
STUCK_SECONDS = 5.0  # a QEMU that is well answers in milliseconds, on a busy host within a second

_KEEP = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
# "only available on the source": an incoming migration holds the domain.
_INCOMING = libvirt.VIR_ERR_OPERATION_UNSUPPORTED
# The domain stopped being active between two calls, or the driver knows no jobs.
_NO_JOB = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT)
_MIGRATIONS_OUT = (
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
    libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN,  # libvirt before 3.3 does not say
)
_UNDER_WAY = (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)

Statistics = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a completed migration cost; None where it was not told."""

    bytes: int | None = None
    iterations: int | None = None
    downtime: float | None = None  # seconds
    seconds: float | None = None


def read_job(domain: libvirt.virDomain) -> tuple[Job, JobProgress | None]:
    """The job that holds a domain now. libvirtError when the domain or its host is gone."""
    try:
        statistics: Any = domain.jobStats()  # annotated as text, but a dictionary
    except libvirt.libvirtError as error:
        if code(error) == _INCOMING:
            return Job.INCOMING, None
        if code(error) in _NO_JOB:
            return Job.NONE, None
        raise
    return job_of(statistics), progress_of(statistics)


def is_stuck(domain: libvirt.virDomain) -> bool:
    """Whether its QEMU has left a question of its host's unanswered for long: whatever else is
    asked about the domain waits behind that. This alone never waits."""
    try:
        answer: Any = domain.controlInfo()  # annotated as text, but a list of three numbers
    except libvirt.libvirtError as error:
        if code(error) in _NO_JOB:
            return False
        raise
    state, _, milliseconds = answer
    if state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED:
        return bool(milliseconds >= STUCK_SECONDS * 1000)
    return bool(state == libvirt.VIR_DOMAIN_CONTROL_ERROR)


def job_of(statistics: Statistics) -> Job:
    """Which kind of job the statistics are of. Ended, but still cleaning up, is under way."""
    if statistics.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE:
        return Job.NONE
    operation = statistics.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN)
    return Job.OUTGOING if operation in _MIGRATIONS_OUT else Job.OTHER


def progress_of(statistics: Statistics) -> JobProgress | None:
    """How far a job is; None where there is none, or it has ended and only cleans up."""
    if statistics.get("type", 0) not in _UNDER_WAY:
        return None
    pages = statistics.get("memory_dirty_rate")
    page = statistics.get("memory_page_size", PAGE)
    return JobProgress(
        total=statistics.get("data_total", 0),
        processed=statistics.get("data_processed", 0),
        remaining=statistics.get("data_remaining", 0),
        iteration=statistics.get("memory_iteration", 0),
        elapsed=statistics.get("time_elapsed", 0) / 1000,
        dirty_rate=None if pages is None else float(pages * page),
        throttle=statistics.get("auto_converge_throttle", 0),
    )


def figures_of(statistics: Statistics) -> Figures:
    """The figures of a completed job, from its event or from the destination.

    What began on one host and ended on the other is off by as much as their clocks differ; "net" is
    it not, but for a moment. It is told unless the target's clock is behind, where libvirt takes
    QEMU's own figure.
    """
    elapsed = statistics.get("time_elapsed")
    downtime = statistics.get("downtime_net", statistics.get("downtime"))
    return Figures(
        bytes=statistics.get("data_processed", statistics.get("memory_processed")),
        iterations=statistics.get("memory_iteration"),
        downtime=None if downtime is None else downtime / 1000,
        seconds=None if elapsed is None else elapsed / 1000,
    )


def completed(domain: libvirt.virDomain) -> Statistics:
    """Statistics of the last completed job, {} when there are none. They stay readable."""
    try:
        statistics: Any = domain.jobStats(_KEEP)
    except libvirt.libvirtError:
        return {}
    return dict(statistics)


def arrived_by_migration(domain: libvirt.virDomain) -> bool:
    """Whether the last thing that happened to the domain here was its arrival."""
    operation = completed(domain).get("operation")
    return bool(operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN)
