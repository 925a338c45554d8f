"""How migrations end when a hypervisor dies at one phase or another, as measured on real ones.

Ambiguous outcomes included: the error that the caller gets does not say where the VM is.
"""

from dataclasses import replace

from balancerd.adapters.sim.copies import DONE, Ending
from balancerd.core.observation import Presence

KEEPALIVE = 30.0  # seconds until a host notices that its peer hangs
CLEAN_UP = 8.0  # seconds until a restarted hypervisor ends a half that nobody feeds

# What both hosts say of a post-copy that was struck: see `Ending.torn`.
LOST_EACH_OTHER = (Presence.POSTCOPY_FAILED, Presence.POSTCOPY_FAILED)
SOURCE_GAVE_UP = (Presence.POSTCOPY_FAILED, Presence.POSTCOPY)  # its memory flows on all the same

END_OF_FILE = ("end of file while reading data", 38, 7)
CLOSED = ("client socket is closed", 1, 7)
SIGHT_LOST = ("connection closed due to keepalive timeout", 1, 7)
NO_MEMORY = ("migration failed: cannot allocate memory on the target", 9, 10)
NO_DISK = ("cannot access storage file: no such file or directory", 38, 18)
NOT_STARTED = ("unable to execute QEMU command 'migrate'", 1, 10)

NO_SPACE = Ending(
    Presence.RUNNING,
    Presence.ABSENT,
    "migration of disk vda failed: no space left on device",
    9,
    10,
)
SAFE = Ending(Presence.RUNNING, Presence.ABSENT, *CLOSED, torn=SOURCE_GAVE_UP)
TARGET_GONE = Ending(
    Presence.RUNNING,
    Presence.ABSENT,
    *CLOSED,
    torn=(Presence.POSTCOPY_FAILED, Presence.SHUTOFF),
)
SOURCE_GONE = Ending(
    Presence.SHUTOFF,
    Presence.ABSENT,
    *END_OF_FILE,
    torn=(Presence.SHUTOFF, Presence.POSTCOPY_FAILED),
)
# libvirtd ends an incoming half that it finds unfinished when it is started again.
TARGET_RESTARTED = replace(SAFE, torn=(Presence.POSTCOPY_FAILED, Presence.FAILED))
SOURCE_RESTARTED = Ending(Presence.RUNNING, Presence.ABSENT, *END_OF_FILE)


def stale_half(seconds: float) -> Ending:
    """Still on the source; the target's half goes when its hypervisor is back."""
    return replace(SAFE, target=Presence.INCOMING, half_lasts=seconds)


def killed(*, at_source: bool) -> Ending:
    """The VM's process dies: the one that runs, or in post-copy that of the source."""
    torn = (Presence.POSTCOPY_FAILED, Presence.CRASHED)
    torn = (Presence.CRASHED, Presence.FAILED) if at_source else torn
    return Ending(Presence.CRASHED, Presence.ABSENT, "domain is not running", 9, 20, torn=torn)


CHANNEL_BROKE = Ending(
    Presence.RUNNING,
    Presence.ABSENT,
    *("job failed: channel error: input/output error", 9, 10),
    torn=LOST_EACH_OTHER,
)
PERFORM = (
    CHANNEL_BROKE,
    SOURCE_RESTARTED,
    stale_half(CLEAN_UP),
)
POST_COPY = (
    killed(at_source=True),
    killed(at_source=False),
    CHANNEL_BROKE,
    CHANNEL_BROKE,
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


def pulled(ending: Ending, *, unseen: bool) -> Ending:
    """How a post-copy ends that has sent all: its VM runs on the target, whatever was in store for
    a VM that had still been on its source. `unseen`: its source had lost sight of it."""
    fits = ending.target is Presence.RUNNING and ending.source is not Presence.RUNNING
    ending = ending if fits else DONE
    stays = unseen and ending.source is Presence.ABSENT  # nobody was left to remove it
    return replace(ending, source=Presence.MIGRATED) if stays else ending


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
