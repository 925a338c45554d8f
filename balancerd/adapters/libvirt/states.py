"""libvirt's states and reasons in balancerd's words, as tables.

The two halves of a migration show the same state, paused for migration. What tells them apart is
the job: a host refuses to give statistics of an *incoming* migration ("only available on the
source"), and gives them, or says that there is no job, for an outgoing one.
"""

from dataclasses import dataclass
from enum import Enum

import libvirt

from balancerd.core.model import VMState
from balancerd.core.observation import Presence

RUNNING, BLOCKED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED
PAUSED, SHUTOFF = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_SHUTOFF
SHUTDOWN, CRASHED = libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_CRASHED
SUSPENDED = libvirt.VIR_DOMAIN_PMSUSPENDED
ANY = None


class Job(Enum):
    """What a host says of a domain's job."""

    NONE = "none"
    OUTGOING = "migrates away"
    INCOMING = "migrates in"
    ARRIVED = "none; it arrived here by migration"
    OTHER = "busy otherwise"  # saved, dumped, backed up
    UNTOLD = "not told"  # its QEMU does not answer


@dataclass(frozen=True, slots=True)
class Condition:
    """A domain's state with its reason and its job."""

    state: int
    reason: int
    job: Job = Job.NONE


# The first row that fits counts: state, reason, job; a None fits everything.
_Row = tuple[int | None, int | None, Job | None]

STATES: tuple[tuple[_Row, VMState], ...] = (
    ((RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED, ANY), VMState.POSTCOPY_FAILED),
    ((RUNNING, ANY, ANY), VMState.RUNNING),
    ((BLOCKED, ANY, ANY), VMState.RUNNING),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED, ANY), VMState.POSTCOPY_FAILED),
    ((PAUSED, ANY, Job.INCOMING), VMState.INCOMING),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, ANY), VMState.OUTGOING),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, ANY), VMState.OUTGOING),
    ((PAUSED, ANY, ANY), VMState.PAUSED),
    ((SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, ANY), VMState.MIGRATED),
    ((SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, ANY), VMState.CRASHED),
    ((SHUTOFF, ANY, ANY), VMState.SHUTOFF),
    ((CRASHED, ANY, ANY), VMState.CRASHED),
    ((ANY, ANY, ANY), VMState.OTHER),
)

PRESENCES: tuple[tuple[_Row, Presence], ...] = (
    ((RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED, ANY), Presence.POSTCOPY_FAILED),
    ((RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY, ANY), Presence.POSTCOPY),
    ((RUNNING, ANY, Job.OUTGOING), Presence.RUNNING_WITH_JOB),
    ((RUNNING, ANY, ANY), Presence.RUNNING),
    ((BLOCKED, ANY, Job.OUTGOING), Presence.RUNNING_WITH_JOB),
    ((BLOCKED, ANY, ANY), Presence.RUNNING),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED, ANY), Presence.POSTCOPY_FAILED),
    ((PAUSED, ANY, Job.INCOMING), Presence.INCOMING),
    # The job lives: the switch-over of a healthy migration. Nobody may touch either half.
    ((PAUSED, ANY, Job.OUTGOING), Presence.RUNNING_WITH_JOB),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, ANY), Presence.OUTGOING),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, ANY), Presence.OUTGOING),
    ((PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, Job.ARRIVED), Presence.HANDED_OVER),
    ((PAUSED, ANY, ANY), Presence.PAUSED),
    ((SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, ANY), Presence.MIGRATED),
    ((SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, ANY), Presence.FAILED),
    ((SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, ANY), Presence.CRASHED),
    ((SHUTOFF, ANY, ANY), Presence.SHUTOFF),
    ((CRASHED, ANY, ANY), Presence.CRASHED),
    # Shutting down or suspended to memory: QEMU lives, so the VM is here and runs.
    ((SHUTDOWN, ANY, ANY), Presence.RUNNING),
    ((SUSPENDED, ANY, ANY), Presence.RUNNING),
    # A state this table does not know: answered, but nothing can be concluded from it.
    ((ANY, ANY, ANY), Presence.UNREACHABLE),
)


def _fits(row: _Row, condition: Condition) -> bool:
    state, reason, job = row
    return (
        state in (None, condition.state)
        and reason in (None, condition.reason)
        and job in (None, condition.job)
    )


def vm_state(condition: Condition) -> VMState:
    """The state as a reading tells it."""
    return next(state for row, state in STATES if _fits(row, condition))


def presence(condition: Condition) -> Presence:
    """The state as the state-pair table reads it."""
    return next(presence for row, presence in PRESENCES if _fits(row, condition))
