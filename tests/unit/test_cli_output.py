"""How rows become tables, JSON and CSV."""

import csv
import io
import json
from contextlib import redirect_stdout

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from balancerd.cli.output import (
    GAP,
    LEGIBLE,
    Column,
    Form,
    Listing,
    Row,
    draw,
    fitting,
    write_listing,
)
from balancerd.cli.words import NOTHING, duration, milliseconds, moment, percent, size

WORDS = st.text(alphabet="abc ü-1%", max_size=40)


def listing(rows: list[dict[str, str]], *, spare: bool = True) -> Listing:
    """Three columns: a name, a figure that may be spared, a sentence that wraps."""
    columns = (
        Column("NAME", lambda row: str(row["name"])),
        Column("FIGURE", lambda row: str(row["figure"]), right=True, spare=int(spare)),
        Column("WHY", lambda row: str(row["why"]), wrap=True),
    )
    return Listing(rows, columns, empty="there is nothing")


def drawn(found: Listing, width: int) -> list[str]:
    text = io.StringIO()
    with redirect_stdout(text):
        draw(Console(width=width, file=text, highlight=False), found)
    return text.getvalue().splitlines()


ROWS = st.lists(
    st.fixed_dictionaries({"name": WORDS, "figure": WORDS, "why": WORDS}), min_size=1, max_size=4
)


@given(ROWS, st.integers(20, 200))
def test_nothing_that_is_shown_is_ever_cut_off(rows: list[dict[str, str]], width: int) -> None:
    """Dies when a column's width is given as a minimum only: rich then crops what it cannot fit."""
    found = listing(rows)
    shown = {column.header for column in fitting(found, width)}
    text = "".join("".join(drawn(found, width)).split())
    for row in rows:
        for header, key in (("NAME", "name"), ("FIGURE", "figure")):
            if header in shown:
                assert "".join(row[key].split()) in text
    letters = sorted("".join(row["why"] for row in rows).replace(" ", ""))
    assert all(text.count(letter) >= letters.count(letter) for letter in set(letters))


@given(ROWS, st.integers(20, 200))
def test_a_table_is_no_wider_than_it_has_to_be(rows: list[dict[str, str]], width: int) -> None:
    found = listing(rows)
    widths = fitting(found, width)
    total = sum(widths.values()) + GAP * (len(widths) - 1)
    if len(widths) == len(found.columns):
        return
    assert [column.header for column in widths] == ["NAME", "WHY"]
    assert widths[found.columns[2]] <= max(LEGIBLE, width)
    assert total <= width or widths[found.columns[2]] <= LEGIBLE


def test_a_spare_column_goes_only_where_there_is_no_room() -> None:
    row = {"name": "n" * 10, "figure": "f" * 10, "why": "w" * 20}
    full = 10 + 10 + 20 + 2 * GAP
    assert len(fitting(listing([row]), full)) == 3
    assert len(fitting(listing([row]), full - 1)) == 2
    assert len(fitting(listing([row], spare=False), full - 1)) == 3


def test_a_long_sentence_takes_several_lines() -> None:
    row = {"name": "n", "figure": "1", "why": "one two three four five six seven eight nine"}
    lines = drawn(listing([row]), 40)
    assert len(lines) > 3
    assert " ".join(" ".join(lines[2:]).split()) == "n 1 " + row["why"]


def written(rows: list[Row], form: Form) -> str:
    text = io.StringIO()
    with redirect_stdout(text):
        write_listing(Listing(rows, (), empty=""), form)
    return text.getvalue()


VALUES = st.none() | st.booleans() | st.integers() | WORDS | st.lists(st.integers(), max_size=3)
TABLES = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c_ms"]), VALUES), max_size=4)


@given(TABLES)
def test_json_and_json_lines_read_back_as_they_were(rows: list[Row]) -> None:
    assert json.loads(written(rows, Form.JSON)) == rows
    assert [json.loads(line) for line in written(rows, Form.JSONL).splitlines()] == rows


@given(TABLES)
def test_csv_has_every_key_of_any_row(rows: list[Row]) -> None:
    """Rows need not have the same keys: events differ."""
    text = written(rows, Form.CSV)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    read = list(csv.reader(io.StringIO(text)))
    assert read[0] == keys
    if keys:
        assert len(read) == 1 + len(rows)
    for row, cells in zip(rows, read[1:], strict=False):
        for key, cell in zip(keys, cells, strict=True):
            value = row.get(key)
            if isinstance(value, bool | list):
                assert json.loads(cell) == value
            else:
                assert cell == ("" if value is None else str(value))


def test_what_is_not_known_is_a_dash() -> None:
    assert {show(None) for show in (moment, percent, size, duration, milliseconds)} == {NOTHING}
    assert percent(0.371) == "37%"
    assert milliseconds(39.6) == "40 ms"
