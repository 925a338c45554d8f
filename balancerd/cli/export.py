"""`snapshot` and `export`: the record's content for other programs."""

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
from balancerd.cli.errors import invalid
from balancerd.cli.output import (
    Column,
    Form,
    Listing,
    Row,
    output_option_of,
    write_document,
    write_listing,
)
from balancerd.cli.record import (
    WHOLE_NUMBER,
    opened,
    reading,
    record_option,
    since_option,
    since_time,
)
from balancerd.cli.words import NOTHING, moment, size
from balancerd.core.units import counted

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.option("--plan", type=WHOLE_NUMBER, help="The cluster that this plan was made of.")
@output_option_of(Form.JSON)
@record_option
def snapshot(plan: int | None, form: Form, record: Path) -> None:
    """Print the site as last observed, as a cluster file that other commands take."""
    with reading(record) as reader:
        document = reader.cluster_file(plan)
    if document is None:
        what = f"the snapshot of plan {plan} is not kept" if plan else "no snapshot is kept yet"
        raise invalid(f"{record}: {what}")
    write_document(document, form, lambda where: _draw_snapshot(where, document))


def _draw_snapshot(where: "Console", document: Row) -> None:
    """What a cluster file holds, in a few lines."""
    hosts, vms = document["hosts"], document["vms"]
    memory = size(sum(host["memory_bytes"] for host in hosts))
    where.print(f"The site at {moment(document['at'])}")
    links = counted(len(document["links"]), "link")
    where.print(f"{counted(len(hosts), 'host')} with {memory} of memory, {links}")
    where.print(
        f"{counted(len(vms), 'VM')}, {sum('moving_to' in vm for vm in vms)} of them under way"
    )
    for gap in document["gaps"]:
        where.print(f"not known: {gap['subject']} {gap['name']}: {gap['kind']}: {gap['detail']}")
    for no in document["exclusions"]:
        where.print(f"not movable: {no['vm']}: {no['kind']}: {no['detail']}")


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
