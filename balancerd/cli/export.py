"""`snapshot` and `export`: the record's content for other programs."""

import json
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

import click

from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.export import Event
from balancerd.adapters.sqlite.export import export as story
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples_schema import SAMPLES
from balancerd.cli.errors import invalid
from balancerd.cli.output import Form, output_option_of, write_csv
from balancerd.cli.record import opened, reading, record_option, since_option, since_time


@click.command()
@click.option("--plan", type=click.IntRange(min=1), help="The cluster that this plan was made of.")
@record_option
def snapshot(plan: int | None, record: Path) -> None:
    """Print the site as last observed, as a cluster file that other commands take."""
    with reading(record) as reader:
        document = reader.cluster_file(plan)
    if document is None:
        what = f"the snapshot of plan {plan} is not kept" if plan else "no snapshot is kept yet"
        raise invalid(f"{record}: {what}")
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


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
        events = stack.enter_context(closing(told))
        _write(events, form)


def _write(events: Iterable[Event], form: Form) -> None:
    match form:
        case Form.JSON:
            click.echo(json.dumps(list(events), indent=2, ensure_ascii=False))
        case Form.CSV:
            write_csv(events)
        case _:
            for event in events:
                click.echo(json.dumps(event, ensure_ascii=False))
