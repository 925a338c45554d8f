"""Where the record is, and how commands open it."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date, datetime
from datetime import time as clock
from pathlib import Path
from typing import Any, TypeVar

import click

from balancerd import places
from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.cli.errors import CommandError, Exit
from balancerd.core.units import parse_duration, parse_time
from balancerd.ports import LedgerError

Command = TypeVar("Command", bound=Callable[..., Any])
VARIABLE = "BALANCERD_RECORD"
LOOK, TELL = "look at it", "tell balancerd anything"


class _WholeNumber(click.IntRange):
    name = "whole number"  # as errors and help call it


WHOLE_NUMBER = _WholeNumber(min=1)


def record_option(command: Command) -> Command:
    """`--record DIR`, given to the command as `record`."""
    return click.option(
        "--record",
        type=click.Path(path_type=Path, file_okay=False, readable=False),
        envvar=VARIABLE,
        default=places.STATE,
        metavar="DIR",
        help=f"Where the record is; {VARIABLE} says it, too. [default: {places.STATE}]",
    )(command)


@contextmanager
def opened(record: Path, access: Access = Access.READ) -> Iterator[Database]:
    """The ledger of a record. CommandError where there is none that can be used."""
    _check(record, access)
    with ExitStack() as stack:
        try:
            ledger = stack.enter_context(Database(record / "ledger.db", LEDGER, access))
        except LedgerError as error:
            raise CommandError(str(error), Exit.INVALID) from None
        yield ledger


@contextmanager
def reading(record: Path) -> Iterator[Reader]:
    """The ledger of a record, open for questions."""
    with opened(record) as ledger:
        yield Reader(ledger)


def _check(record: Path, access: Access) -> None:
    path = record / "ledger.db"
    if not _is_there(path):
        told, code = f"there is no record in {record}", Exit.INVALID
        if record == places.STATE:
            told, code = f"{told}: balancerd has not run on this machine", Exit.NOT_RUNNING
        raise CommandError(f"{told} (--record DIR says where it is)", code)
    if not path.stat().st_size:  # what SQLite takes for a database without tables
        raise CommandError(f"{path} is not a balancerd ledger: it is empty", Exit.INVALID)
    if access is Access.READ and not os.access(path, os.R_OK, effective_ids=True):
        raise _not_allowed(path, LOOK)
    if access is not Access.READ and not os.access(path, os.W_OK, effective_ids=True):
        raise _not_allowed(path, TELL)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise _not_allowed(path.parent, LOOK) from None


def _not_allowed(path: Path, purpose: str) -> CommandError:
    """Who would be allowed to is told, so that the operator need not look for it."""
    by_group = purpose == LOOK and path.stat().st_mode & stat.S_IRGRP
    users = ["root"] if path.owner() == "root" else ["root", path.owner()]
    who = [*users, f"the group {path.group()}"] if by_group else users
    listed = " and ".join([", ".join(who[:-1]), who[-1]] if who[1:] else who)
    return CommandError(f"{path}: permission denied; only {listed} may {purpose}", Exit.FAILED)


def since_option(command: Command) -> Command:
    """`--since TIME`, given to the command as `since`; text, since its meaning needs the record."""
    return click.option(
        "--since",
        metavar="TIME",
        help='"2h" before the newest entry, "2026-03-02", or ISO 8601 with an offset.',
    )(command)


def limit_option(default: int) -> Callable[[Command], Command]:
    """`--limit N`, given to the command as `limit`."""
    return click.option(
        "--limit",
        type=WHOLE_NUMBER,
        default=default,
        show_default=True,
        help="At most so many, the newest.",
    )


def since_time(text: str | None, reader: Reader) -> float:
    """Seconds since the epoch. A span is counted back from the newest cycle of the record."""
    if text is None:
        return 0.0
    with suppress(ValueError):
        newest = reader.newest_cycle()
        return (newest.at if newest else time.time()) - parse_duration(text)
    with suppress(ValueError):
        return datetime.combine(date.fromisoformat(text), clock()).astimezone().timestamp()
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f'"{text}" is neither a span ("2h"), nor a date ("2026-03-02"), '
            'nor a time with an offset ("2026-03-02T08:00:00+01:00")',
            param_hint="--since",
        ) from None
