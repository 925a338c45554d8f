"""Words that a policy chooses among."""

from enum import StrEnum


class Mode(StrEnum):
    """How far balancerd may go on its own."""

    OBSERVE = "observe"
    ADVISE = "advise"
    ACT = "act"


class Objective(StrEnum):
    """What a good placement is."""

    SPREAD = "spread"  # equal headroom, worst host first
    PACK = "pack"  # few hosts, little power
    QUIET = "quiet"  # only repair overloads and broken rules
    DRAIN = "drain"  # only empty the hosts that are being drained
    DEFRAGMENT = "defragment"  # room in one piece for big VMs


class Engine(StrEnum):
    """What decides, once all that is urgent is decided."""

    BUILTIN = "builtin"
    EXACT = "exact"  # a solver, from the built-in plan on
    SHADOW = "shadow"  # the built-in plan, and what the solver would have had for it


class Unlocked(StrEnum):
    """How to move a VM whose disks no lock is known to keep a second QEMU from."""

    HAND_OVER = "hand-over"  # it arrives paused, and goes on once its source is seen to be gone
    REFUSE = "refuse"
    PLAIN = "plain"  # like any other: where a manager of locks is known to be in force
