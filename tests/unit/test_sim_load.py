"""Where simulated demand comes from: tables, traces, records, the generator."""

from math import inf
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from balancerd.adapters.sim.generator import generate
from balancerd.adapters.sim.load import LoadError, Table, from_readings, read_trace_directory
from balancerd.core.units import DAY, HOUR

MONDAY = 1_772_409_600.0  # 2026-03-02, midnight UTC


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / name).write_text(text)


def test_a_step_begins_at_its_time_and_lasts_until_the_next() -> None:
    table = Table(300.0, np.array([[1.0], [2.0], [3.0]]))
    assert [table.demand(at)[0] for at in (0, 299.9, 300, 900, 1e9)] == [1, 1, 2, 3, 3]
    assert [table.next_change(at) for at in (0, 299.9, 300)] == [300, 300, 600]
    assert table.next_change(600) == inf


def test_the_next_change_is_always_later() -> None:
    """Seen to fail when the step is found by dividing alone: 0.1 x 3 / 0.1 is just under 3."""
    table, at = Table(0.1, np.zeros((50, 1))), 0.0
    for number in range(1, 50):
        at = table.next_change(at)
        assert at == pytest.approx(number * 0.1)


def test_a_trace_is_read_in_the_order_of_its_files_names(tmp_path: Path) -> None:
    write(tmp_path, b="50\n100\n", a="0\n25\n", **{".hidden": "x"})
    trace = read_trace_directory(tmp_path, 2)
    assert trace.names == ("a", "b")
    table = trace.table(300.0, np.array([2.0, 4.0]))
    assert table.demand(0).tolist() == [0.0, 2.0]
    assert table.demand(300).tolist() == [0.5, 4.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1\n2\n", "a:3: is missing; 3 lines are needed"),
        ("", "a:1: is missing; 3 lines are needed"),
        ("1\ntwo\n3\n", 'a:2: "two" is not a whole percentage from 0 to 100'),
        ("1\n2.5\n3\n", 'a:2: "2.5" is not a whole percentage from 0 to 100'),
        ("1\n2\nnan\n", 'a:3: "nan" is not a whole percentage from 0 to 100'),
        ("1\n\n3\n", "a:2: is empty; a whole percentage from 0 to 100 is needed"),
        ("1\n2\n101\n", "a:3: 101 is out of range; a percentage is from 0 to 100"),
        ("-1\n2\n3\n", "a:1: -1 is out of range; a percentage is from 0 to 100"),
        ("1\n2\n٣\n", "a:3: "),
        ("1\n2\n" + "9" * 5000 + "\n", "a:3: "),
    ],
)
def test_a_bad_line_is_one_sentence_with_file_and_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    write(tmp_path, a=text)
    with pytest.raises(LoadError) as error:
        read_trace_directory(tmp_path, 3)
    assert complaint in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_directory_that_is_not_there_or_empty_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nowhere: no such file or directory"):
        read_trace_directory(tmp_path / "nowhere", 3)
    with pytest.raises(LoadError, match="has no trace files"):
        read_trace_directory(tmp_path, 3)


def test_a_recorded_vm_keeps_its_last_value_where_a_reading_is_missing() -> None:
    rows = [(1000.0, "b", 2.0), (1060.0, "a", 1.0), (1180.0, "a", 3.0), (1190.0, "b", float("nan"))]
    recorded = from_readings(rows, 60.0, "samples.db")
    assert (recorded.names, recorded.start) == (("a", "b"), 1000.0)
    assert recorded.table.rows.tolist() == [[0.0, 2.0], [1.0, 2.0], [1.0, 2.0], [3.0, 2.0]]


def test_a_record_without_readings_is_one_sentence() -> None:
    with pytest.raises(LoadError, match="holds no readings"):
        from_readings([], 60.0, "empty.db")


def generated(seed: int = 1, vms: int = 200, days: int = 7) -> NDArray[np.float64]:
    sizes = np.full(vms, 4.0)
    return generate(sizes, MONDAY, days * DAY, 300.0, 0.35, seed).rows


def test_the_same_seed_gives_the_same_demand_and_another_seed_another() -> None:
    assert np.array_equal(generated(seed=3, days=1), generated(seed=3, days=1))
    assert not np.array_equal(generated(seed=3, days=1), generated(seed=4, days=1))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_generated_demand_looks_like_a_site(seed: int) -> None:
    """Busier by day than by night and on working days than at the week's end; many VMs idle,
    demand between nothing and all of the size, neighbours in load correlated."""
    rows = generated(seed)
    by_hour = rows.sum(axis=1).reshape(7, 24, -1).mean(axis=2)
    assert (rows > 0).all()
    assert (rows <= 4.0).all()
    assert by_hour[:5, 9:17].mean() > 1.7 * by_hour[:5, 20:24].mean()
    assert by_hour[:5, 9:17].mean() > 1.4 * by_hour[5:, 9:17].mean()
    assert (np.median(rows, axis=0) < 0.1 * 4.0).mean() > 0.15
    assert 0.10 < rows.mean() / 4.0 < 0.35
    night = slice(int(2 * HOUR / 300), int(4 * HOUR / 300))
    assert (rows[night].mean(axis=0) > 2 * rows.mean(axis=0)).mean() > 0.03  # the nightly jobs
