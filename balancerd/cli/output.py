"""How commands write: one table for people, the same rows as JSON, JSON lines or CSV for programs.

A row's keys are snake_case with the unit in the name, its times ISO 8601 text. A column says what
a person is shown of it. Colour is only used on a terminal, and never with NO_COLOR.
"""

import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:  # rich takes longer to import than `status -o json` takes in all
    from rich.console import Console

Row = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

WIDE = 240  # characters in a line, where no terminal says how many there are
GAP = 2  # characters between two columns
LEGIBLE = 20  # characters in a line of a column that wraps, at least


class Form(StrEnum):
    """The forms of output."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def output_option_of(default: Form) -> Callable[[Command], Command]:
    """`-o table|json|jsonl|csv`, given to the command as `form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([form.value for form in Form]),
        default=default.value,
        show_default=True,
        callback=lambda _context, _option, value: Form(value),
        help="Form of the output.",
    )


output_option = output_option_of(Form.TABLE)


def watch_option(command: Command) -> Command:
    """`-w [SECONDS]`, given to the command as `watch`; None where it was not asked for."""
    return click.option(
        "-w",
        "--watch",
        type=click.FloatRange(min=0.1),
        is_flag=False,
        flag_value=2.0,
        default=None,
        metavar="[SECONDS]",
        help="Show it again and again, every 2 seconds unless told otherwise.",
    )(command)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: what a person is shown of a row."""

    header: str
    show: Callable[[Row], str]
    right: bool = False  # numbers
    wrap: bool = False  # text that may take several lines
    spare: int = 0  # left out where a terminal is narrow: 0 never, the highest first
    style: Callable[[Row], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows, and how a person is shown them."""

    rows: Sequence[Row]
    columns: Sequence[Column]
    empty: str  # said in place of a table without rows
    title: str = ""


def console() -> "Console":
    """Where tables are drawn. Not on a terminal, nothing is cut off or coloured."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def write_listing(listing: Listing, form: Form) -> None:
    """Write rows in a form."""
    match form:
        case Form.TABLE:
            draw(console(), listing)
        case Form.JSON:
            click.echo(json.dumps(listing.rows, indent=2))
        case Form.JSONL:
            for row in listing.rows:
                click.echo(json.dumps(row))
        case Form.CSV:
            write_csv(listing.rows)


def write_document(document: Row, form: Form, draw_it: Callable[["Console"], None]) -> None:
    """Write a single thing in a form; `draw_it` shows it to a person."""
    match form:
        case Form.TABLE:
            draw_it(console())
        case Form.JSON:
            click.echo(json.dumps(document, indent=2))
        case Form.JSONL:
            click.echo(json.dumps(document))
        case Form.CSV:
            write_csv([document])


def write_csv(rows: Iterable[Row]) -> None:
    """A header of all keys in the order they first occur, then a line a row; lists as JSON."""
    rows = list(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(sys.stdout, list(keys), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    return value


def draw(where: "Console", listing: Listing) -> None:
    """Draw a table; or say that there is nothing to draw."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not listing.rows:
        where.print(listing.empty)
        return
    widths = fitting(listing, where.width)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=listing.title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    for column, width in widths.items():
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.header, justify=justify, width=width, overflow="fold")
    for row in listing.rows:
        cells = ((column.show(row), column.style(row)) for column in widths)
        table.add_row(*(Text(text, style) for text, style in cells))
    # Wider than the terminal where that is what it takes: nothing is ever cut off.
    room = where.width
    where.width = max(room, sum(widths.values()) + GAP * (len(widths) - 1))
    with where.capture() as drawn:
        where.print(table)
    where.width = room
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def fitting(listing: Listing, room: int) -> dict[Column, int]:
    """The columns that are shown in so much room, and how wide each is.

    Spare ones are left out as far as needed; those that wrap share what the others leave.
    """
    widths = {column: _width(column, listing.rows) for column in listing.columns}
    for spare in sorted(listing.columns, key=lambda column: -column.spare):
        least = sum(min(LEGIBLE, w) if c.wrap else w for c, w in widths.items())
        if not spare.spare or least + GAP * (len(widths) - 1) <= room:
            break
        del widths[spare]
    left = room - GAP * (len(widths) - 1) - sum(w for c, w in widths.items() if not c.wrap)
    wrapping = sorted((c for c in widths if c.wrap), key=lambda column: widths[column])
    for index, column in enumerate(wrapping):
        share = max(left // (len(wrapping) - index), LEGIBLE)
        widths[column] = min(widths[column], share)
        left -= widths[column]
    return widths


def _width(column: Column, rows: Sequence[Row]) -> int:
    return max(len(column.header), *(len(column.show(row)) for row in rows))


def again_and_again(show: Callable[[], None], seconds: float | None) -> None:
    """Show once; or, with a time, until interrupted, each time on a cleared terminal."""
    if seconds is None:
        show()
        return
    try:
        while True:
            click.clear()
            show()
            sys.stdout.flush()
            time.sleep(seconds)
    except KeyboardInterrupt:
        click.echo()
