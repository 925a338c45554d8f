"""Files that are not a ledger, damaged ones, full disks, a second daemon, backups."""

import errno
import os
import resource
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.lock import is_locked, lock
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples_schema import SAMPLES
from balancerd.adapters.sqlite.schema import LEDGER
from balancerd.core.past.record import Intent, IntentKind
from balancerd.ports import LedgerError
from tests.sites import NOW, site

SITE = site("h1 16c 64G: a 8c 16G, b 1c 1G | h2 16c 64G: c 1c 1G | h3 16c 64G:")


def migration(number: int) -> Intent:
    return Intent(IntentKind.MIGRATE, NOW + number, "h1", f"vm{number}", target="h2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def written(path: Path) -> Path:
    """A ledger with something in it, closed."""
    with Ledger(path) as ledger:
        ledger.record_inventory(SITE)
        for number in range(50):
            ledger.intend(migration(number))
    return path


# Other files


def make_text(path: Path) -> None:
    path.write_text("dear diary\n" * 20)


def make_other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (entry TEXT)")
    connection.execute("PRAGMA application_id = 7")
    connection.close()


def make_samples(path: Path) -> None:
    with Database(path, SAMPLES):
        pass


def make_newer(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.database.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('balancerd ledger', '099 of tomorrow', '2099-01-01')"
        )


def make_other_version(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.database.execute("DROP TABLE event_head")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_text, "is not a balancerd ledger: not an SQLite database"),
        (make_other_program, "is not a balancerd ledger: another program's database"),
        (make_samples, "is not a balancerd ledger: another program's database"),
        (make_newer, 'was written by a newer balancerd (schema "099 of tomorrow")'),
        (make_other_version, "was written by another version of balancerd, whose ledger had other"),
    ],
)
@pytest.mark.parametrize("access", list(Access))
def test_a_file_that_is_no_ledger_of_ours_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], None], message: str, access: Access
) -> None:
    """Kills: opening first, which sets the journal mode of somebody else's database."""
    make(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught, Database(path, LEDGER, access):
        pass
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
def test_only_the_daemon_makes_a_ledger(path: Path, access: Access) -> None:
    with pytest.raises(LedgerError, match="does not exist"), Database(path, LEDGER, access):
        pass
    assert not path.exists()


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ledger.db"
    with pytest.raises(LedgerError, match="the file cannot be opened"), Ledger(path):
        pass


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    """A daemon killed while it made the file leaves this, or a file without tables."""
    path.touch()
    assert written(path) == path


def test_a_ledger_whose_making_was_cut_short_is_finished(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {LEDGER.application_id}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert written(path) == path


# Damage


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 2000)


def test_a_damaged_ledger_is_refused_by_the_daemon_and_left_alone(path: Path) -> None:
    """Kills: no check of the content on start."""
    pages = range(2, written(path).stat().st_size // 4096, 5)  # 0 is the header, 1 is a list
    for page in pages:
        copy = path.with_name(f"damaged-{page}.db")
        copy.write_bytes(path.read_bytes())
        damage(copy, page)
        before = copy.read_bytes()
        with pytest.raises(LedgerError) as caught, Ledger(copy):
            pass
        assert str(copy) in str(caught.value) and "\n" not in str(caught.value)
        assert copy.read_bytes() == before


def test_a_row_that_refers_to_nothing_is_damage(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.database.execute("PRAGMA foreign_keys = OFF")
        ledger.database.execute("INSERT INTO progress (intent, at) VALUES (77, 0)")
    with pytest.raises(LedgerError, match="a row of progress refers to a row of intents"):
        Ledger(path).__enter__()


# Disks that take no more


def test_a_full_disk_is_told_at_once_and_nothing_is_half_written(path: Path) -> None:
    """Kills: an intent without its line of the audit, a transaction left open."""
    with Ledger(written(path)) as ledger:
        row = ledger.database.row("PRAGMA page_count")
        assert row is not None
        ledger.database.rows(f"PRAGMA max_page_count = {row[0] + 2}")
        number = 50
        with pytest.raises(LedgerError, match="the disk is full"):
            while ledger.intend(migration(number)):
                number += 1
        assert not ledger.database.connection.in_transaction
        assert len(ledger.recover()) == number  # reading goes on
        ledger.database.rows("PRAGMA max_page_count = 100000")
        assert ledger.intend(migration(number)) is not None  # and so does writing, with room
        assert len(ledger.recover()) == number + 1
        events = ledger.database.rows("SELECT 1 FROM events WHERE kind = 'intent'")
        assert len(events) == number + 1


def test_a_limit_of_the_system_loses_no_intent_that_was_acknowledged(path: Path) -> None:
    """A real write that fails part of the way, in a process of its own."""
    written(path)

    def fill(report: Callable[[int], None]) -> None:
        with Ledger(path) as ledger:
            limit = path.stat().st_size + 100_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            for number in range(100_000):
                report(ledger.intend(migration(number)) or 0)

    acknowledged = in_a_process(fill)
    with Ledger(path) as ledger:
        known = [intent.id for intent in ledger.recover()]
    assert acknowledged and known[50:] == acknowledged


def test_a_file_that_may_not_be_written_is_one_sentence(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.database.rows("PRAGMA query_only = ON")
        with pytest.raises(LedgerError, match="the file is read-only"):
            ledger.intend(migration(1))


def test_a_value_that_no_file_can_hold_is_refused(path: Path) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="a value cannot be kept"):
            ledger.intend(Intent(IntentKind.MIGRATE, NOW, "h1", "a", predicted_bytes=2**70))
        assert ledger.intend(migration(1)) == 1


def test_a_writer_that_waits_too_long_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancerd.adapters.sqlite.database._BUSY_SECONDS", 0.1)
    with (
        Ledger(path) as ledger,
        Database(path, LEDGER, Access.WRITE) as other,
        other.transaction(),
        pytest.raises(LedgerError, match="another process has been writing it for too long"),
    ):
        ledger.intend(migration(1))


# Crashes


def in_a_process(work: Callable[[Callable[[int], None]], None], kill_after: int = 0) -> list[int]:
    """Run work in a child that reports numbers; kill -9 after so many. The numbers that came."""
    reading, writing = os.pipe()

    def tell(number: int) -> None:
        os.write(writing, f"{number}\n".encode())

    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            work(tell)
        finally:
            os._exit(0)
    os.close(writing)
    numbers = []
    with os.fdopen(reading) as lines:
        for line in lines:
            numbers.append(int(line))
            if len(numbers) == kill_after:
                os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return numbers


ROUNDS = int(os.environ.get("BALANCERD_CRASHES", "15"))


def test_no_acknowledged_intent_is_lost_to_kill_9(path: Path) -> None:
    """Kills: an intent acknowledged before it is committed; one and its audit in two transactions.

    BALANCERD_CRASHES says how many kills; each is at another write of a new process.
    """
    written(path)
    with Ledger(path) as ledger:
        expected = [intent.id for intent in ledger.recover()]
    for round_ in range(ROUNDS):

        def work(report: Callable[[int], None], first: int = 1000 * (round_ + 1)) -> None:
            with Ledger(path) as ledger:
                for number in range(first, first + 1000):
                    report(ledger.intend(migration(number)) or 0)

        expected += in_a_process(work, kill_after=1 + round_ * 3 % 17)
        with Ledger(path) as ledger:
            known = [intent.id for intent in ledger.recover()]
            assert set(expected) <= set(known)
            expected = known
            sealed = ledger.database.rows("SELECT 1 FROM events WHERE kind = 'intent'")
            assert len(sealed) == len(known)
            assert Reader(ledger.database).audit().fault == ""


# The lock


def test_a_second_balancerd_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    with (
        lock(tmp_path),
        pytest.raises(LedgerError, match=rf"another balancerd \(process {os.getpid()}\) uses"),
        lock(tmp_path),
    ):
        pass


def test_asking_who_runs_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with lock(tmp_path):
        assert is_locked(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with lock(tmp_path):
        pass


def test_the_lock_goes_with_a_daemon_that_was_killed(tmp_path: Path) -> None:
    def hold(report: Callable[[int], None]) -> None:
        with lock(tmp_path):
            report(os.getpid())
            signal.pause()

    assert in_a_process(hold, kill_after=1)
    with lock(tmp_path):
        pass


def test_a_lock_in_no_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=os.strerror(errno.ENOENT)), lock(tmp_path / "missing"):
        pass


# Readers


def test_a_reader_neither_waits_for_the_writer_nor_holds_it_up(path: Path) -> None:
    with Ledger(written(path)) as ledger, Database(path, LEDGER, Access.READ) as database:
        with ledger.database.transaction():
            ledger.intend(migration(50))
            assert len(Reader(database).migrations()) == 50
        with database.still():
            assert len(Reader(database).migrations()) == 51
            ledger.intend(migration(51))
            assert len(Reader(database).migrations()) == 51
        assert len(Reader(database).migrations()) == 52


def test_a_reader_cannot_write(path: Path) -> None:
    with (
        Database(written(path), LEDGER, Access.READ) as database,
        pytest.raises(LedgerError, match="read-only"),
    ):
        database.execute("DELETE FROM intents")


def test_a_record_that_nobody_may_write_can_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only medium SQLite cannot make the files that a reader of its log needs."""
    written(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Database(path, LEDGER, Access.READ) as database:
        assert len(Reader(database).migrations()) == 50
    assert [entry.name for entry in path.parent.iterdir()] == ["ledger.db"]


# Backups


def test_a_backup_is_made_once_a_day_and_seven_are_kept(path: Path) -> None:
    with Ledger(written(path)) as ledger:
        for hour in range(0, 24 * 10, 8):
            ledger.maintain(NOW + hour * 3600)
    copies = sorted((path.parent / "backups").iterdir())
    assert len(copies) == 7
    assert copies[-1].name == "ledger-1970-01-22.db"
    with Database(copies[0], LEDGER, Access.READ) as database:
        assert len(Reader(database).migrations()) == 50


def test_a_damaged_ledger_names_its_newest_backup(path: Path) -> None:
    with Ledger(written(path)) as ledger:
        ledger.maintain(NOW)
    damage(path, 3)
    with pytest.raises(LedgerError, match=r"the newest backup is .*/ledger-1970-01-12\.db"):
        Ledger(path).__enter__()


def test_a_copy_is_kept_before_the_schema_changes(path: Path) -> None:
    """Kills: a change of the schema that cannot be taken back."""
    written(path)
    newer = {**LEDGER.changes, "002 without intents": ["DELETE FROM intents"]}
    with Database(path, replace(LEDGER, changes=newer)) as database:
        assert len(Reader(database).migrations()) == 0
    before = path.with_name("ledger.db.before-002")
    with Database(before, LEDGER, Access.READ) as database:
        assert len(Reader(database).migrations()) == 50


def test_a_backup_that_cannot_be_made_is_one_sentence(path: Path) -> None:
    with Ledger(written(path)) as ledger:
        (path.parent / "backups").touch()
        with pytest.raises(LedgerError, match="backups"):
            ledger.maintain(NOW)
        assert len(ledger.recover()) == 50
