"""Where a VM is after a migration, and the only things that may be done about it.

The table below is the whole recovery logic: (what the source says, what the target says) → verdict.
It never looks at an error. A pair that is not in the table, or in which a host does not answer,
means WAIT: ask again later, touch nothing. Findings that act on a copy of the VM are believed only
when both hosts said the same twice (see `verification`).
"""

from dataclasses import dataclass
from enum import StrEnum

from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome


class Act(StrEnum):
    """What may be done to one copy of a VM."""

    RESUME_SOURCE = "resume the source's copy"
    DESTROY_SOURCE = "destroy the source's paused copy"
    UNDEFINE_SOURCE = "remove the source's left-over definition"
    RESUME_TARGET = "resume the target's copy"
    DESTROY_TARGET = "destroy the target's paused copy"
    UNDEFINE_TARGET = "remove the target's left-over definition"
    CARRY_AUTOSTART = "set autostart on the target as it was on the source"


@dataclass(frozen=True, slots=True)
class Finding:
    """`outcome` None: not settled, ask again. `acts` are done in order before it is recorded."""

    outcome: Outcome | None
    detail: str
    acts: tuple[Act, ...] = ()


P = Presence
WAIT = Finding(None, "waiting for both hosts to tell the same story")

GONE = (P.ABSENT, P.MIGRATED)  # what a source that gave the VM away may say
DOWN = (P.SHUTOFF, P.CRASHED, P.FAILED)  # there, and stopped where it stood

TABLE: dict[tuple[Presence, Presence], Finding] = {
    (P.RUNNING, P.ABSENT): Finding(Outcome.FAILED, "still on the source"),
    (P.RUNNING, P.MIGRATED): Finding(Outcome.FAILED, "still on the source"),
    (P.RUNNING, P.CRASHED): Finding(Outcome.FAILED, "still on the source", (Act.UNDEFINE_TARGET,)),
    (P.RUNNING, P.SHUTOFF): Finding(Outcome.FAILED, "still on the source", (Act.UNDEFINE_TARGET,)),
    (P.RUNNING, P.FAILED): Finding(Outcome.FAILED, "still on the source", (Act.UNDEFINE_TARGET,)),
    (P.RUNNING, P.HANDED_OVER): Finding(
        Outcome.FAILED, "not handed over", (Act.DESTROY_TARGET, Act.UNDEFINE_TARGET)
    ),
    (P.PAUSED, P.ABSENT): Finding(Outcome.FAILED, "paused on the source, not by us"),
    (P.PAUSED, P.MIGRATED): Finding(Outcome.FAILED, "paused on the source, not by us"),
    (P.OUTGOING, P.RUNNING): Finding(
        Outcome.DONE,
        "the target won",
        (Act.DESTROY_SOURCE, Act.UNDEFINE_SOURCE, Act.CARRY_AUTOSTART),
    ),
    (P.OUTGOING, P.ABSENT): Finding(Outcome.FAILED, "the target lost", (Act.RESUME_SOURCE,)),
    (P.OUTGOING, P.FAILED): Finding(
        Outcome.FAILED, "the target lost", (Act.RESUME_SOURCE, Act.UNDEFINE_TARGET)
    ),
    (P.OUTGOING, P.INCOMING): Finding(
        Outcome.FAILED, "both hold it", (Act.DESTROY_TARGET, Act.RESUME_SOURCE)
    ),
    (P.OUTGOING, P.HANDED_OVER): Finding(
        Outcome.FAILED, "both hold it", (Act.DESTROY_TARGET, Act.RESUME_SOURCE)
    ),
    (P.RUNNING, P.RUNNING): Finding(Outcome.QUARANTINED, "runs on both hosts"),
    (P.POSTCOPY_FAILED, P.POSTCOPY): Finding(None, "post-copy broke: its memory is on both hosts"),
    (P.POSTCOPY_FAILED, P.POSTCOPY_FAILED): Finding(
        None, "post-copy broke: its memory is on both hosts"
    ),
    # Its memory was on both hosts, and one of them has lost its part.
    **{
        (P.POSTCOPY_FAILED, gone): Finding(Outcome.LOST, "post-copy broke and the target is gone")
        for gone in (P.ABSENT, *DOWN)
    },
    **{
        (gone, P.POSTCOPY_FAILED): Finding(Outcome.LOST, "post-copy broke and the source is gone")
        for gone in (P.ABSENT, *DOWN)
    },
    **{
        (gone, P.RUNNING): Finding(
            Outcome.DONE, "runs on the target", (Act.UNDEFINE_SOURCE, Act.CARRY_AUTOSTART)
        )
        for gone in (*GONE, *DOWN)
    },
    **{
        (gone, P.PAUSED): Finding(Outcome.DONE, "on the target, paused as before", ())
        for gone in GONE
    },
    **{
        (gone, P.HANDED_OVER): Finding(
            Outcome.DONE,
            "handed over",
            (Act.RESUME_TARGET, Act.UNDEFINE_SOURCE, Act.CARRY_AUTOSTART),
        )
        for gone in GONE
    },
    # It may have gone on here before it ended: the target's memory would be older than its disks.
    **{
        (down, P.HANDED_OVER): Finding(
            None, f"{down.value} on the source, and the target holds it paused: a person must say"
        )
        for down in DOWN
    },
    **{
        (down, stopped): Finding(Outcome.LOST, f"{down.value} on the source")
        for down in DOWN
        for stopped in (*GONE, *DOWN)
    },
    **{
        (gone, absent): Finding(Outcome.LOST, "on neither host") for gone in GONE for absent in GONE
    },
    **{
        (gone, down): Finding(Outcome.LOST, f"{down.value} on the target")
        for gone in GONE
        for down in DOWN
    },
}

# The source runs without a job and the target still shows its half: libvirt is cleaning up. If it
# does not within this many seconds the VM is safe on its source, and the half is libvirt's to end.
CLEANING_UP = (P.RUNNING, P.INCOMING)
CLEAN_UP_PATIENCE = 60.0

# The source died while memory followed, or before. If all of it was there, the target soon says
# RUNNING; if not, libvirt ends the target's half as a rule, but some say post-copy or incoming for
# good: a source's libvirtd whose own migration never notices tells its target nothing.
ORPHANED = frozenset((down, half) for down in DOWN for half in (P.POSTCOPY, P.INCOMING))
ORPHAN_PATIENCE = 60.0


def judge(source: Presence, target: Presence, waited: float) -> Finding:
    """What to make of a pair of presences; `waited` is for how many seconds the pair stood."""
    if (source, target) == CLEANING_UP and waited > CLEAN_UP_PATIENCE:
        return Finding(Outcome.FAILED, "still on the source; the target's half was not cleaned up")
    if (source, target) in ORPHANED and waited > ORPHAN_PATIENCE:
        return Finding(Outcome.LOST, f"{source.value} on the source before all memory had followed")
    return TABLE.get((source, target), WAIT)


def may_watch(target: Presence, *, ours: bool) -> bool:
    """Whether a job that the source runs may be the migration to this target.

    It is where the target shows its half; where the target does not answer, only if it was seen to
    be ours before. A job without a half on the target goes somewhere else, or nowhere yet: wait.
    """
    return target is P.INCOMING or (ours and target is P.UNREACHABLE)


def may_start(source: Presence, target: Presence) -> str:
    """Why a migration may not start between hosts that say this; "" when it may."""
    if source is not P.RUNNING:
        return f"the source says {source.value}"
    if target not in (P.ABSENT, P.MIGRATED, P.SHUTOFF):
        return f"the target says {target.value}"
    return ""
