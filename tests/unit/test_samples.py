"""The time series: kept, folded, dropped, read back, and begun anew after damage."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.adapters.sqlite.samples import SamplesRetention, SamplesStore
from balancerd.adapters.sqlite.series import grid, series
from balancerd.core.model import Load
from balancerd.core.units import DAY, HOUR, MINUTE
from balancerd.ports import LedgerError

START = 1_000_000 * HOUR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


@pytest.fixture
def store(path: Path) -> Iterator[SamplesStore]:
    with SamplesStore(path) as opened:
        yield opened


def load(cpu: float, memory: int = 1000, steal: float = 0.0, network: float | None = None) -> Load:
    return Load(cpu, cpu, memory, steal, network)


def rows(store: SamplesStore, table: str) -> list[tuple[object, ...]]:
    found = store.database.rows(
        "SELECT from_at, name, readings, cpu_reference_cores, cpu_max_reference_cores,"
        f" memory_bytes, memory_max_bytes, steal_max, network_bytes_per_s FROM {table}"
        " JOIN subjects ON subjects.id = subject ORDER BY from_at, name"
    )
    return [tuple(row) for row in found]


def test_a_reading_can_be_read_by_people(store: SamplesStore) -> None:
    store.append(START, {"h1": load(3.0)}, {"a": load(1.5, 2000, 0.1, 7.0)})
    found = store.database.rows("SELECT kind, name, cpu_reference_cores, memory_bytes FROM samples")
    assert [tuple(row) for row in found] == [("host", "h1", 3.0, 1000), ("vm", "a", 1.5, 2000)]


@pytest.mark.parametrize("count", [1, 62, 63, 64, 200])
def test_of_however_many_vms_each_has_its_own_reading(store: SamplesStore, count: int) -> None:
    """Kills: the rest that fills no whole statement left out, or rows cut at the wrong place."""
    loads = {f"v{n:03}": load(n / 7, n, n / 1000, n / 3) for n in range(count)}
    store.append(START, {"h1": load(3.0)}, loads)
    found = store.database.rows(
        "SELECT name, cpu_reference_cores, memory_bytes, steal, network_bytes_per_s,"
        " block_bytes_per_s FROM samples WHERE kind = 'vm' ORDER BY name"
    )
    assert [tuple(row) for row in found] == [
        (name, one.cpu, one.memory, one.steal, one.network, None) for name, one in loads.items()
    ]


def test_a_host_and_a_vm_may_have_one_name(store: SamplesStore) -> None:
    store.append(START, {"x": load(3.0)}, {"x": load(1.0)})
    assert series(store.database, "host", "x", START, START + 1).cpu.tolist() == [3.0]
    assert series(store.database, "vm", "x", START, START + 1).cpu.tolist() == [1.0]


def test_a_full_hour_is_folded_into_mean_and_maximum(store: SamplesStore) -> None:
    """Kills: an hour folded before it is over, a maximum of means, an hour's borders shifted."""
    for minute, cpu in ((-1, 99.0), (0, 1.0), (30, 2.0), (59, 6.0), (60, 99.0)):
        store.append(START + minute * MINUTE, {}, {"a": load(cpu, int(cpu) * 10, cpu / 100)})
    store.roll_up(START + HOUR - 1)
    assert [row[0] for row in rows(store, "hours")] == [START - HOUR]
    store.roll_up(START + HOUR)
    assert rows(store, "hours")[1:] == [(START, "a", 3, 3.0, 6.0, 30, 60, 0.06, None)]


def test_an_hour_is_folded_once(store: SamplesStore) -> None:
    store.append(START, {}, {"a": load(1.0)})
    store.roll_up(START + HOUR)
    changes = store.database.connection.total_changes
    store.roll_up(START + HOUR + 1)
    assert store.database.connection.total_changes == changes


def test_readings_past_their_retention_become_rows_of_five_minutes(path: Path) -> None:
    with SamplesStore(path, SamplesRetention(2 * HOUR, 4 * HOUR, DAY)) as store:
        for second, cpu in ((0, 1.0), (299, 3.0), (300, 9.0)):
            store.append(START + second, {}, {"a": load(cpu, network=cpu)})
        store.roll_up(START + 2 * HOUR + 5 * MINUTE - 1)
        assert rows(store, "five_minutes") == []
        store.roll_up(START + 2 * HOUR + 5 * MINUTE)
        assert rows(store, "five_minutes") == [(START, "a", 2, 2.0, 3.0, 1000, 1000, 0.0, 2.0)]
        assert series(store.database, "vm", "a", 0, START + DAY).times.tolist() == [
            START,
            START + 300,
        ]
        store.roll_up(START + 5 * HOUR)
        assert rows(store, "five_minutes") == []
        assert len(rows(store, "hours")) == 1
        store.roll_up(START + 26 * HOUR)
        assert rows(store, "hours") == []


def test_a_clock_that_stood_at_1970_costs_no_time(store: SamplesStore) -> None:
    """Kills, by not ending: a step for every hour since then."""
    store.append(10.0, {}, {"a": load(1.0)})
    store.append(START, {}, {"a": load(2.0)})
    store.roll_up(START + HOUR)
    assert [row[0] for row in rows(store, "hours")] == [START]
    assert series(store.database, "vm", "a", 0, START + 1).cpu.tolist() == [2.0]


def test_dropped_rows_give_their_room_back(path: Path) -> None:
    with SamplesStore(path, SamplesRetention(HOUR, HOUR, HOUR)) as store:
        vms = {f"vm{number}": load(number / 7) for number in range(500)}
        for minute in range(60):
            store.append(START + minute * MINUTE, {}, vms)
        store.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        full = path.stat().st_size
        store.roll_up(START + 9 * HOUR)
        store.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < full / 4


def test_a_reading_of_the_same_time_replaces_the_other(store: SamplesStore) -> None:
    store.append(START, {}, {"a": load(1.0)})
    store.append(START, {}, {"a": load(2.0)})
    assert series(store.database, "vm", "a", START, START + 1).cpu.tolist() == [2.0]


def test_a_series_goes_on_from_folded_to_raw_readings(path: Path) -> None:
    with SamplesStore(path, SamplesRetention(readings=HOUR)) as store:
        for step in range(25):
            store.append(START + step * 5 * MINUTE, {}, {"a": load(float(step))})
        store.roll_up(START + 2 * HOUR)
        found = series(store.database, "vm", "a", START + 10 * MINUTE, START + 110 * MINUTE)
        assert found.cpu.tolist() == [float(step) for step in range(2, 22)]
        assert found.memory.tolist() == [1000] * 20


def test_a_series_of_nothing_is_empty(store: SamplesStore) -> None:
    assert series(store.database, "vm", "a", 0, START).times.size == 0


def test_recent_readings_come_back_after_a_restart_oldest_first(path: Path) -> None:
    with SamplesStore(path) as store:
        for second, cpu in ((-400, 9.0), (-300, 1.0), (-15, 2.0), (0, 3.0)):
            store.append(START + second, {"h1": load(9.0)}, {"a": load(cpu), "b": load(cpu * 2)})
        store.append(START + 60, {}, {"a": load(9.0)})  # of a clock that was set back
    with SamplesStore(path) as store:
        assert list(store.recent(START, 300)) == [
            (START - 300, {"a": 1.0, "b": 2.0}),
            (START - 15, {"a": 2.0, "b": 4.0}),
            (START, {"a": 3.0, "b": 6.0}),
        ]


def test_a_recorded_site_is_a_grid_of_times_and_vms(store: SamplesStore) -> None:
    """Kills: readings put into the cell before theirs, VMs' columns exchanged."""
    store.append(START, {}, {"a": load(1.0)})
    store.append(START + 100, {}, {"a": load(3.0), "b": load(4.0)})
    store.append(START + 600, {}, {"b": load(8.0)})
    cells = grid(store.database, START, START + 900, 300)
    assert cells.names == ("a", "b")
    assert cells.times.tolist() == [START, START + 300, START + 600]
    assert [str(cpu) for cpu in cells.cpu.flatten()] == ["2.0", "4.0", "nan", "nan", "nan", "8.0"]


def test_a_grid_has_only_vms_that_were_read_in_its_time(store: SamplesStore) -> None:
    store.append(START - 900, {}, {"a": load(1.0)})
    store.append(START, {"h1": load(7.0)}, {"b": load(2.0)})
    store.append(START + 900, {}, {"c": load(3.0)})
    cells = grid(store.database, START, START + 900, 300)
    assert (cells.names, cells.cpu.tolist()) == (("b",), [[2.0]])
    nothing = grid(store.database, START + 9000, START + 9900, 300)
    assert (nothing.names, nothing.times.tolist()) == ((), [])


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(path: Path) -> None:
    with SamplesStore(path) as store:
        store.append(START, {}, {f"vm{number}": load(1.0) for number in range(5000)})
    with path.open("r+b") as file:
        file.seek(9 * 4096)
        file.write(b"\xa5" * 8192)
    spoilt = path.read_bytes()
    with SamplesStore(path) as store:
        (aside,) = path.parent.glob("samples.db.damaged-*")
        assert aside.read_bytes() == spoilt
        assert "is damaged" in store.notice and aside.name in store.notice
        store.append(START + 1, {}, {"a": load(1.0)})
        assert series(store.database, "vm", "a", 0, START + 9).cpu.tolist() == [1.0]


def test_damage_that_shows_while_it_runs_costs_the_file_and_no_reading(path: Path) -> None:
    with SamplesStore(path) as store:
        store.append(START, {}, {f"vm{number}": load(1.0) for number in range(5000)})
        store.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (path.stat().st_size - 4096))
        store.database.rows("PRAGMA shrink_memory")
        store.append(START + 1, {}, {"b": load(2.0)})
        assert store.notice
        assert series(store.database, "vm", "b", 0, START + 9).cpu.tolist() == [2.0]


def test_another_programs_file_is_refused_not_put_aside(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (entry TEXT)")
    connection.close()
    with pytest.raises(LedgerError, match="not a balancerd samples file"), SamplesStore(path):
        pass
    assert [entry.name for entry in path.parent.iterdir()] == ["samples.db"]


def test_a_reading_that_is_no_number_is_refused_as_a_whole(store: SamplesStore) -> None:
    with pytest.raises(LedgerError):
        store.append(START, {"h1": load(1.0)}, {"a": load(float("nan"))})
    assert series(store.database, "host", "h1", 0, START + 1).times.size == 0
    store.append(START, {"h1": load(1.0)}, {"a": load(1.0)})
    assert series(store.database, "vm", "a", 0, START + 1).cpu.tolist() == [1.0]
