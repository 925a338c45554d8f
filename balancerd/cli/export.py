"""`export`: the whole story of a record, for other programs."""

import json
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.export import Event
from balancerd.adapters.sqlite.export import export as story
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples_schema import SAMPLES
from balancerd.cli.output import (
    Column,
    Form,
    Listing,
    Row,
    output_option_of,
    write_listing,
)
from balancerd.cli.record import (
    opened,
    record_option,
    since_option,
    since_time,
)
from balancerd.cli.words import NOTHING, moment

if TYPE_CHECKING:
    pass


@click.command()
@since_option
@click.option("--samples", is_flag=True, help="Loads, too: many lines.")
@output_option_of(Form.JSONL)
@record_option
def export(since: str | None, samples: bool, form: Form, record: Path) -> None:
    """Print the whole story as events in the order of time."""
    with ExitStack() as stack:
        ledger = stack.enter_context(opened(record))
        begin = since_time(since, Reader(ledger))
        series = None
        if samples:
            series = stack.enter_context(Database(record / "samples.db", SAMPLES, Access.READ))
        # Closed before the files are, also when nobody reads on.
        told = cast(Generator[Event, None, None], story(ledger, begin, series))
        _write(stack.enter_context(closing(told)), form)


def _write(events: Iterable[Event], form: Form) -> None:
    """JSON lines as they come; the other forms need to know all events first."""
    if form is not Form.JSONL:
        write_listing(Listing(list(events), EVENTS, empty="nothing happened"), form)
        return
    for event in events:
        click.echo(json.dumps(event))


def _rest(event: Row) -> str:
    """What an event says beyond what it is about."""
    known: dict[str, Any] = {**event}
    for key in ("t", "event", "vm", "host", "from", "to"):
        known.pop(key, None)
    return ", ".join(f"{key} {value}" for key, value in known.items() if value is not None)


def _where(event: Row) -> str:
    return f"{event['from']} → {event['to']}" if "from" in event else event.get("host", "")


EVENTS = (
    Column("TIME", lambda event: moment(event["t"])),
    Column("EVENT", lambda event: event["event"], style=lambda _: "bold"),
    Column("VM", lambda event: event.get("vm", NOTHING)),
    Column("HOST", _where),
    Column("WHAT", _rest, wrap=True),
)
