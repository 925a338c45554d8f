"""Where the record is, and how commands open it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.lock import is_locked
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.cli.errors import CommandError, Exit
from balancerd.config import DEFAULT_STATE
from balancerd.ports import LedgerError

Command = TypeVar("Command", bound=Callable[..., Any])
VARIABLE = "BALANCERD_RECORD"


def record_option(command: Command) -> Command:
    """`--record DIR`, given to the command as `record`."""
    return click.option(
        "--record",
        type=click.Path(path_type=Path, file_okay=False),
        envvar=VARIABLE,
        default=DEFAULT_STATE,
        metavar="DIR",
        help=f"Where the record is; {VARIABLE} says it, too. [default: {DEFAULT_STATE}]",
    )(command)


def open_ledger(record: Path, access: Access = Access.READ) -> Database:
    """The ledger of a record, open; close it with `with`. CommandError where there is none."""
    path = record / "ledger.db"
    if not path.exists():
        code = Exit.NOT_RUNNING if record == DEFAULT_STATE else Exit.INVALID
        raise CommandError(f"there is no record in {record} (--record DIR says where it is)", code)
    database = Database(path, LEDGER, access)
    try:
        return database.__enter__()
    except LedgerError as error:
        raise CommandError(str(error), Exit.INVALID) from None


def daemon_runs(record: Path) -> bool:
    """Whether a balancerd runs on the record."""
    return is_locked(record)
