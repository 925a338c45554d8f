"""How migrations end when a hypervisor dies at one phase or another, as measured on real ones.

Ambiguous outcomes included: the error that the caller gets does not say where the VM is.
"""

from dataclasses import replace

from balancerd.adapters.sim.copies import Ending
from balancerd.core.observation import Presence

KEEPALIVE = 30.0  # seconds until a host notices that its peer hangs
CLEAN_UP = 8.0  # seconds until a restarted hypervisor ends a half that nobody feeds

END_OF_FILE = ("end of file while reading data", 38, 7)
CLOSED = ("client socket is closed", 1, 7)
SIGHT_LOST = ("connection closed due to keepalive timeout", 1, 7)
NO_MEMORY = ("migration failed: cannot allocate memory on the target", 9, 10)
NOT_STARTED = ("unable to execute QEMU command 'migrate'", 1, 10)

SAFE = Ending(Presence.RUNNING, Presence.ABSENT, *CLOSED)
SOURCE_RESTARTED = Ending(Presence.RUNNING, Presence.ABSENT, *END_OF_FILE)


def stale_half(seconds: float) -> Ending:
    """Still on the source; the target's half goes when its hypervisor is back."""
    return Ending(Presence.RUNNING, Presence.INCOMING, *CLOSED, half_lasts=seconds)


PERFORM = (
    Ending(
        Presence.RUNNING, Presence.ABSENT, "job failed: channel error: input/output error", 9, 10
    ),
    SOURCE_RESTARTED,
    stale_half(CLEAN_UP),
)
# The source's daemon dies after the switch-over: nobody is left who knows how it ended.
SOURCE_LOST_IN_GAP = (
    Ending(Presence.OUTGOING, Presence.RUNNING, *END_OF_FILE),
    Ending(Presence.OUTGOING, Presence.ABSENT, *END_OF_FILE),
)
GAP = (
    SAFE,
    Ending(Presence.RUNNING, Presence.FAILED, *CLOSED),
    stale_half(CLEAN_UP),
    *SOURCE_LOST_IN_GAP,
    Ending(Presence.OUTGOING, Presence.INCOMING, *END_OF_FILE, half_lasts=CLEAN_UP),
)
# Where no disk lock forbids it, the source resumes the VM while the target starts it.
GAP_WITHOUT_LOCKS = (*GAP, Ending(Presence.RUNNING, Presence.RUNNING, *CLOSED))
FINISH = (
    Ending(Presence.MIGRATED, Presence.RUNNING, *END_OF_FILE),
    Ending(
        Presence.SHUTOFF, Presence.RUNNING
    ),  # the definition stayed on the source; no error is told
    Ending(Presence.ABSENT, Presence.RUNNING, "domain not found", 42, 10),
    Ending(Presence.ABSENT, Presence.RUNNING, "cannot make the domain persistent", 69, 10),
)


def arrived_paused(ending: Ending) -> Ending:
    """The same ending of a migration that was ordered to leave the VM paused on its target: what
    would run there waits, whatever becomes of the source."""
    if ending.target is not Presence.RUNNING:
        return ending
    gone = ending.source is Presence.SHUTOFF  # libvirt says why as long as it is not restarted
    source = Presence.MIGRATED if gone else ending.source
    return replace(ending, source=source, target=Presence.HANDED_OVER)


def is_handed_over(ending: Ending) -> bool:
    """Whether the target's paused copy is the only one."""
    gone = ending.source in (Presence.ABSENT, Presence.MIGRATED)
    return gone and ending.target is Presence.HANDED_OVER
