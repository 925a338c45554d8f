"""How what was begun ended, or why it never began."""

from enum import StrEnum


class Outcome(StrEnum):
    """How an intent ended. Only what both hosts said decides it."""

    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    NOT_STARTED = "not started"
    OBJECTED = "objected"  # the hosts' own facts spoke against it: it was not even tried
    LOST = "lost"  # runs on neither host
    QUARANTINED = "quarantined"  # a person has to decide


NEVER_BEGUN = frozenset({Outcome.NOT_STARTED, Outcome.OBJECTED})


class Against(StrEnum):
    """What hosts speak against, where they object to a move before it began."""

    MOVE = "move"  # this VM on its way to this host
    SOURCE = "source"  # all that leaves the source
    TARGET = "target"  # all that goes to the target
    PAIR = "pair"  # all that goes from one to the other
