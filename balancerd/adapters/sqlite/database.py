"""One SQLite file of the record: opened with the right settings, checked, brought up to date.

Everything here ends well or raises `LedgerError` with one sentence that names the file.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from balancerd.core.units import MIB
from balancerd.ports import LedgerError

if TYPE_CHECKING:  # imported by who makes a file: all others would wait for it in vain
    import sqlite_utils
    from sqlite_utils import Migrations

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = slice(68, 72)  # of the file header, big-endian
_PAGE = 500  # rows read at a time
_FREED = 2000  # pages given back at a time
_BUSY_SECONDS = 5.0
_CAUSES = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "the file is read-only",
    "SQLITE_BUSY": "another process has been writing it for too long",
    "SQLITE_CORRUPT": "the file is damaged",
    "SQLITE_NOTADB": "the file is not an SQLite database",
    "SQLITE_CANTOPEN": "the file cannot be opened",
    "SQLITE_IOERR": "the disk does not take or give the data",
}

_CHANGES = "_sqlite_migrations"  # the table in which sqlite-utils keeps what was applied
_HAS_CHANGES = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

Parameters = Sequence[Any] | Mapping[str, Any]


class DamagedError(LedgerError):
    """The content of the file makes no sense any more."""


@dataclass(frozen=True, eq=False)
class Form:
    """What tells a kind of file from all others, and how its schema came to be."""

    name: str
    application_id: int
    migration_set: str  # as sqlite-utils calls it in the file
    changes: Mapping[str, Sequence[str]]  # the statements of each change of the schema, in order


class Access(StrEnum):
    """What a process may do with a file. The values are SQLite's."""

    OWN = "rwc"  # make it, check it, bring its schema up to date, write it: the daemon
    WRITE = "rw"  # write to one that is there: the command line
    READ = "ro"  # neither waits for the writer nor holds it up


class Database:
    """A file of a certain form. Opens in a `with`; threads may share it.

    `synchronous` is SQLite's: FULL survives a power cut, NORMAL may forget the last transactions,
    OFF is for what can be made again.
    """

    def __init__(
        self, path: Path, form: Form, access: Access = Access.OWN, synchronous: str = "FULL"
    ) -> None:
        self.path, self.form, self.access = path, form, access
        self.rollbacks = 0  # caches of what was written are void once this has changed
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        with self._lock, broken(self.path):
            check_header(self.path, self.form)
            if self.access is not Access.OWN and not self.path.exists():
                raise LedgerError(f"{self.path} does not exist")
            self._connection = _connect(self.path, self.access)
            try:
                if self.access is Access.OWN:
                    self._make()
                self._settle()
                if self.access is Access.OWN:
                    self._renew()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a transaction that is still open is undone."""
        with self._lock, broken(self.path):
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _make(self) -> None:
        """Begin a new file, or check the content of one that is there."""
        if self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return check_content(self.connection, self.path)
        # Both must be set while the file is empty. The identity is written before there is a
        # write-ahead log, so that it is found by whoever looks at the bare header.
        self.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self.connection.execute(f"PRAGMA application_id = {self.form.application_id}")
        self.connection.execute("PRAGMA journal_mode = WAL")
        return None

    def _settle(self) -> None:
        """Settings of the connection, and a look at the schema: is it one we know?"""
        self.connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        self.connection.execute(f"PRAGMA journal_size_limit = {64 * MIB}")
        self.connection.execute("PRAGMA foreign_keys = ON")
        applied = self._applied()
        unknown = applied - self.form.changes.keys()
        if unknown:
            raise LedgerError(
                f'{self.path} was written by a newer balancerd (schema "{max(unknown)}"); use that'
            )
        if applied == set(self.form.changes) and _tables(self.connection) != _tables_of(self.form):
            raise LedgerError(
                f"{self.path} was written by another version of balancerd, whose {self.form.name}"
                " had other tables; move it away, and a new one is begun"
            )

    def _renew(self) -> None:
        """Apply the changes of the schema that the file does not have yet, a copy kept of it."""
        import sqlite_utils

        applied = self._applied()
        pending = [name for name in self.form.changes if name not in applied]
        if pending and applied:
            before = pending[0].split()[0]
            self.copy_to(self.path.with_name(f"{self.path.name}.before-{before}"))
        utils = sqlite_utils.Database(self.connection, execute_plugins=False)
        _migrations(self.form).apply(utils)

    def _applied(self) -> set[str]:
        """The changes of the schema that the file has."""
        if not self.connection.execute(_HAS_CHANGES, (_CHANGES,)).fetchone()[0]:
            return set()
        rows = self.connection.execute(
            f"SELECT name FROM {_CHANGES} WHERE migration_set = ?", (self.form.migration_set,)
        )
        return {name for (name,) in rows}

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection; LedgerError when it is not open."""
        if self._connection is None:
            raise LedgerError(f"{self.path} is not open")
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, committed at the end; inside another one, part of that."""
        with self._lock, broken(self.path):
            inner = self.connection.in_transaction
            self.connection.execute("SAVEPOINT part" if inner else "BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("RELEASE part" if inner else "COMMIT")
            except BaseException:
                self._undo(inner)
                raise

    def _undo(self, inner: bool) -> None:
        self.rollbacks += 1
        # SQLite has undone everything by itself after some errors, a full disk among them.
        with suppress(sqlite3.Error):
            if self.connection.in_transaction:
                if inner:
                    self.connection.execute("ROLLBACK TO part")
                    self.connection.execute("RELEASE part")
                else:
                    self.connection.execute("ROLLBACK")

    @contextmanager
    def still(self) -> Iterator[None]:
        """Everything read inside is of one moment, however long it takes."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(LedgerError):  # closed meanwhile
                self.execute("ROLLBACK")

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement; outside a transaction it is committed at once."""
        with self._lock, broken(self.path):
            return self.connection.execute(sql, parameters)

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement for each of the rows, in one transaction."""
        with self.transaction():
            self.connection.executemany(sql, rows)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock, broken(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row of a query, if there is one."""
        with self._lock, broken(self.path):
            cursor = self.connection.execute(sql, parameters)
            row: sqlite3.Row | None = cursor.fetchone()
            cursor.close()  # an unfinished cursor would hold back checkpoints of the log
            return row

    def stream(self, sql: str, parameters: Parameters = ()) -> Iterator[sqlite3.Row]:
        """The rows of a query one after the other, for those too many to be held at once."""
        with self._lock, broken(self.path):
            cursor = self.connection.execute(sql, parameters)
        with closing(cursor):
            while True:
                with self._lock, broken(self.path):
                    rows = cursor.fetchmany(_PAGE)
                if not rows:
                    return
                yield from rows

    def copy_to(self, copy: Path) -> None:
        """Write a copy, compact and checked. It is whole and on disk, or it is not there."""
        unfinished = copy.with_name(f"{copy.name}.unfinished")
        with self._lock, broken(copy):
            unfinished.unlink(missing_ok=True)
            self.connection.execute("VACUUM INTO ?", (str(unfinished),))
            with closing(_connect(unfinished, Access.READ)) as connection:
                check_content(connection, unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.rename(copy)

    def give_back(self) -> None:
        """Return some of the room that deleted rows have left; not inside a transaction."""
        with self._lock, broken(self.path):
            if not self.connection.in_transaction:
                # `execute` would take one step of this statement, which frees a single page.
                self.connection.executescript(f"PRAGMA incremental_vacuum({_FREED})")

    def insert(self, table: str, values: Mapping[str, Any]) -> int:
        """Add a row, and give its rowid."""
        return self.execute(_insertion(table, tuple(values)), tuple(values.values())).lastrowid or 0


@cache
def _insertion(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


def _connect(path: Path, access: Access) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={access}"
    unused = not path.with_name(path.name + "-wal").exists()
    if access is Access.READ and unused and not os.access(path.parent, os.W_OK):
        # Nobody writes it, and a reader of the log would have to make files beside it.
        uri += "&immutable=1"
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


class broken:  # noqa: N801 - it is used like a function
    """Turn what SQLite and the file system raise into one sentence."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, *__: object
    ) -> None:
        path = self._path
        if isinstance(error, sqlite3.Error):
            damaged = (getattr(error, "sqlite_errorname", None) or "").startswith(_DAMAGE)
            kind = DamagedError if damaged else LedgerError
            raise kind(f"{path}: {_cause(error)}") from error
        if isinstance(error, OverflowError | UnicodeError):
            raise LedgerError(f"{path}: a value cannot be kept: {error}") from error
        if isinstance(error, OSError):
            raise LedgerError(f"{path}: {error.strerror or error}") from error


def _cause(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None) or ""
    for known, cause in _CAUSES.items():
        if name.startswith(known):
            return f"{cause} ({error})"
    return str(error)


def check_header(path: Path, form: Form) -> None:
    """Refuse a file that is something else, by its first bytes: SQLite never touches it."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if not header.startswith(_MAGIC):
        raise DamagedError(f"{path} is not a balancerd {form.name}: not an SQLite database")
    if int.from_bytes(header[_APPLICATION_ID], "big") != form.application_id:
        raise LedgerError(f"{path} is not a balancerd {form.name}: another program's database")


def check_content(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a damaged file."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedError(f"{path} is damaged: {verdict.strip().splitlines()[-1]}")
    orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
    if orphan is not None:
        raise DamagedError(
            f"{path} is damaged: a row of {orphan[0]} refers to a row of {orphan[2]} that is gone"
        )


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Name and definition of every table of ours."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    return {
        (name, sql) for name, sql in rows if name != _CHANGES and not name.startswith("sqlite_")
    }


@cache
def _tables_of(form: Form) -> set[tuple[str, str]]:
    """The tables of a file of this form that is new."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statements in form.changes.values():
            for statement in statements:
                connection.execute(statement)
        return _tables(connection)


def _migrations(form: Form) -> "Migrations":
    """The changes of the schema as sqlite-utils applies them: each once, and written down."""
    from sqlite_utils import Migrations

    found = Migrations(form.migration_set)
    for name, statements in form.changes.items():
        found(name=name)(_change(statements))
    return found


def _change(statements: Sequence[str]) -> Callable[["sqlite_utils.Database"], None]:
    def apply(db: "sqlite_utils.Database") -> None:
        for statement in statements:
            db.execute(statement)

    return apply
