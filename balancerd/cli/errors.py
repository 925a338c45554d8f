"""How a command ends other than well: one sentence on stderr, and an exit code."""

from collections.abc import Collection
from enum import IntEnum

from balancerd.nearest import nearest


class Exit(IntEnum):
    """Exit codes; scripts rely on them."""

    DONE = 0
    FAILED = 1
    INVALID = 2  # usage, or input that cannot be used
    NOT_RUNNING = 3
    REFUSED = 4  # for safety


class CommandError(Exception):
    """The command cannot do what it was asked; `str` says why, for the operator."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> CommandError:
    """Input that cannot be used."""
    return CommandError(message, Exit.INVALID)


def not_running(message: str) -> CommandError:
    """Only a running daemon could do it."""
    return CommandError(message, Exit.NOT_RUNNING)


def refused(message: str) -> CommandError:
    """It would not be safe."""
    return CommandError(message, Exit.REFUSED)


def must_exist(kind: str, name: str, names: Collection[str]) -> None:
    """CommandError, with the name that may be meant, where there is no host or VM of this name."""
    if name not in names:
        raise invalid(f'there is no {kind} "{name}"{nearest(name, names)}')
