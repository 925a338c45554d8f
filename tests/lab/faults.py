"""The fault script: what can go wrong around one migration, and how it may end then.

One table, played twice (`performance.py`): on real hosts (`stage.py`) and on simulated ones. What a
fault may come to on real hosts is written down here; a simulated site whose end is not among it is
wrong about libvirt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from balancerd.core.model import Method

MIB = 2**20
SOURCE, TARGET, THIRD = "h1", "h2", "h3"
PATIENCE = 240.0  # seconds until a case must have come to its end; 120 to believe a cold one


class Trouble(StrEnum):
    """What goes wrong."""

    NONE = "nothing"
    SOURCE_DAEMON_KILLED = "kill -9 of the source's libvirtd"
    SOURCE_DAEMON_STOPPED = "SIGSTOP of the source's libvirtd"
    TARGET_DAEMON_KILLED = "kill -9 of the target's libvirtd"
    TARGET_DAEMON_STOPPED = "SIGSTOP of the target's libvirtd"
    SOURCE_QEMU_KILLED = "kill -9 of the source's QEMU"
    TARGET_QEMU_KILLED = "kill -9 of the target's QEMU"
    LINK_CUT = "the target's migration cable is pulled"
    ABORTED_BY_HAND = "virsh domjobabort"
    MIGRATED_BY_HAND = "virsh migrate to a third host"
    SHUT_OFF = "virsh destroy"
    DEFINED_ON_TARGET = "virsh define of the VM itself on the target"
    NAMESAKE_ON_TARGET = "virsh define of another VM by its name on the target"
    BALANCERD_KILLED = "kill -9 of balancerd, and another one is started"


class Moment(StrEnum):
    """When it does."""

    PLANNED = "after the plan, before both hosts are asked"
    CHECKED = "after both hosts were asked, before the start"
    COPYING = "while memory is copied"
    POST_COPY = "while the VM runs on the target and memory follows"
    ARRIVED = "when it stands still on the target, and its source has given it away"


DROPPED = "dropped"  # the move, before a migration was intended


@dataclass(frozen=True, slots=True)
class End:
    """Where the VM runs (of one that is shut off: is defined), and what the ledger says."""

    runs_on: tuple[str, ...]
    outcome: str  # of the migration, or DROPPED


STAYED = End((SOURCE,), "failed")
GIVEN_UP = End((SOURCE,), "aborted")
ARRIVED = End((TARGET,), "done")
# Of a VM that post-copy tore, one half may be left, which hosts show as active.
LOST = (End((), "lost"), End((SOURCE,), "lost"), End((TARGET,), "lost"))
NOT_BEGUN = End((SOURCE,), "not started")
OBJECTED = End((SOURCE,), "objected")


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the script."""

    name: str
    trouble: Trouble
    moment: Moment
    allowed: frozenset[End]
    lasts: float = 0.0  # seconds until what is broken is mended; 0: there is nothing to mend
    method: Method = Method.PRE_COPY
    bandwidth: int = 8 * MIB
    dirty_mb_per_s: int = 0  # what the VM writes meanwhile
    link_mb_per_s: int = 0  # of the target's migration cable; 0: as fast as it goes
    unlocked: bool = False  # nothing keeps two copies of the VM from writing to its disk
    audit: tuple[str, ...] = ()  # kinds of lines that the audit must have, in this order
    only_real: str = ""  # why it is not played on simulated hosts

    def __str__(self) -> str:
        return self.name


def _case(name: str, trouble: Trouble, moment: Moment, *allowed: End, **more: Any) -> Case:
    return Case(name, trouble, moment, frozenset(allowed), **more)


def _in_post_copy(name: str, trouble: Trouble, *allowed: End, lasts: float = 0.0) -> Case:
    """What goes wrong while half of a VM's memory is on its way, for several seconds."""
    return _case(
        name,
        trouble,
        Moment.POST_COPY,
        *allowed,
        lasts=lasts,
        method=Method.POST_COPY,
        bandwidth=100 * MIB,
        dirty_mb_per_s=30,
        link_mb_per_s=10,
        audit=("ladder",),
    )


HOSTS_FAIL = (
    _case("what nothing disturbs arrives", Trouble.NONE, Moment.COPYING, ARRIVED),
    _case(
        "a killed source libvirtd leaves the VM on its source",
        *(Trouble.SOURCE_DAEMON_KILLED, Moment.COPYING, STAYED),
        lasts=2.0,
    ),
    _case(
        "a source libvirtd that hangs delays the answer, and any end is told as it is",
        *(Trouble.SOURCE_DAEMON_STOPPED, Moment.COPYING, STAYED, ARRIVED, GIVEN_UP),
        lasts=8.0,
    ),
    _case(
        "a killed target libvirtd leaves the VM on its source",
        *(Trouble.TARGET_DAEMON_KILLED, Moment.COPYING, STAYED),
        lasts=2.0,
    ),
    _case(
        "a target libvirtd that hangs leaves the VM on its source, or is waited for",
        *(Trouble.TARGET_DAEMON_STOPPED, Moment.COPYING, STAYED, ARRIVED),
        lasts=9.0,
    ),
    _case(
        "a target whose QEMU dies leaves the VM on its source",
        *(Trouble.TARGET_QEMU_KILLED, Moment.COPYING, STAYED),
    ),
)
LINKS_FAIL = (
    _case(
        "a link that stays down has the migration given up",
        *(Trouble.LINK_CUT, Moment.COPYING, GIVEN_UP),
        lasts=PATIENCE,
        audit=("abort",),
    ),
    _case(
        "a link that is down for a moment only delays the migration",
        *(Trouble.LINK_CUT, Moment.COPYING, ARRIVED),
        lasts=2.0,
    ),
    _in_post_copy(
        "a link that is down in post-copy is waited for, for there is no way back",
        *(Trouble.LINK_CUT, ARRIVED),
        lasts=14.0,
    ),
    _in_post_copy("a VM whose target dies in post-copy is lost", Trouble.TARGET_QEMU_KILLED, *LOST),
    _in_post_copy("a VM whose source dies in post-copy is lost", Trouble.SOURCE_QEMU_KILLED, *LOST),
    _in_post_copy(
        "a target libvirtd that is killed in post-copy ends the VM, unless all of it was there",
        *(Trouble.TARGET_DAEMON_KILLED, ARRIVED, *LOST),
        lasts=2.0,
    ),
    _in_post_copy(
        "a source libvirtd that is killed in post-copy is waited for, and the VM arrives",
        *(Trouble.SOURCE_DAEMON_KILLED, ARRIVED),
        lasts=2.0,
    ),
    _case(
        "a VM that writes faster than it is copied climbs the ladder and is given up",
        *(Trouble.NONE, Moment.COPYING, GIVEN_UP),
        bandwidth=20 * MIB,
        dirty_mb_per_s=60,
        audit=("ladder", "ladder", "abort"),
    ),
)
PEOPLE_ACT = (
    _case(
        "a migration that is aborted by hand is told as aborted",
        *(Trouble.ABORTED_BY_HAND, Moment.COPYING, GIVEN_UP),
    ),
    _case(
        "a VM that somebody migrates already is left to him",
        *(Trouble.MIGRATED_BY_HAND, Moment.PLANNED, End((THIRD,), DROPPED)),
    ),
    _case(
        "a VM that somebody begins to migrate before us is left to him",
        *(Trouble.MIGRATED_BY_HAND, Moment.CHECKED, End((THIRD,), "not started")),
    ),
    _case(
        "a VM that was shut off since the plan is not touched",
        *(Trouble.SHUT_OFF, Moment.PLANNED, End((), DROPPED)),
    ),
    _case(
        "a VM that was shut off since the check is not touched",
        *(Trouble.SHUT_OFF, Moment.CHECKED, End((), "not started")),
    ),
    _case(
        "a stale definition of the VM on the target is replaced",
        *(Trouble.DEFINED_ON_TARGET, Moment.PLANNED, ARRIVED),
    ),
    _case(
        "another VM by this name on the target keeps the VM on its source",
        *(Trouble.NAMESAKE_ON_TARGET, Moment.PLANNED, OBJECTED),
        only_real="simulated VMs have one name each",
    ),
    _case(
        "another VM by this name that comes to the target since the check stops the start",
        *(Trouble.NAMESAKE_ON_TARGET, Moment.CHECKED, STAYED),
        only_real="simulated VMs have one name each",
    ),
)
DISKS_MOVE = (
    _case(
        "a VM with a local disk takes it along",
        *(Trouble.NONE, Moment.COPYING, ARRIVED),
        method=Method.STORAGE,
        bandwidth=40 * MIB,
    ),
    _case(
        "a VM whose target dies while its disk is copied stays, disk and all",
        *(Trouble.TARGET_QEMU_KILLED, Moment.COPYING, STAYED),
        method=Method.STORAGE,
    ),
    _case(
        "a VM whose move with its disk is aborted by hand stays, disk and all",
        *(Trouble.ABORTED_BY_HAND, Moment.COPYING, GIVEN_UP),
        method=Method.STORAGE,
    ),
)
COLD_MOVES = (
    _case(
        "a VM that is shut off is moved cold, off a host that is drained",
        *(Trouble.NONE, Moment.CHECKED, ARRIVED),
        method=Method.COLD,
    ),
    _case(
        "a target libvirtd that dies before a cold move leaves the VM on its source",
        *(Trouble.TARGET_DAEMON_KILLED, Moment.CHECKED, STAYED, NOT_BEGUN),
        method=Method.COLD,
        lasts=2.0,
    ),
)
BALANCERD_DIES = (
    _case(
        "a migration goes on without balancerd, and the next one tells its end",
        *(Trouble.BALANCERD_KILLED, Moment.COPYING, ARRIVED),
    ),
    _case(
        "a VM that nothing locks is let go on where it arrives",
        *(Trouble.NONE, Moment.COPYING, ARRIVED),
        unlocked=True,
    ),
    _case(
        "a VM that arrived paused while balancerd was dead is let go on by the next one",
        *(Trouble.BALANCERD_KILLED, Moment.ARRIVED, ARRIVED),
        unlocked=True,
    ),
)
SCRIPT = (*HOSTS_FAIL, *LINKS_FAIL, *PEOPLE_ACT, *DISKS_MOVE, *COLD_MOVES, *BALANCERD_DIES)
