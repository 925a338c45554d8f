"""`plan list`."""

from pathlib import Path

import click

from balancerd.cli.output import (
    Column,
    Form,
    Listing,
    output_option,
    write_listing,
)
from balancerd.cli.record import (
    limit_option,
    reading,
    record_option,
    since_option,
    since_time,
)
from balancerd.cli.words import moment

STATES = {"proposed": "yellow", "running": "cyan", "done": "green", "failed": "red"}


@click.command()
@since_option
@limit_option(20)
@output_option
@record_option
def list_plans(since: str | None, limit: int, form: Form, record: Path) -> None:
    """List plans, newest first."""
    with reading(record) as reader:
        rows = reader.plans(since_time(since, reader), limit)
    write_listing(Listing(rows, PLANS, empty="no plan was made yet"), form)


PLANS = (
    Column("PLAN", lambda row: str(row["id"]), right=True, style=lambda _: "bold"),
    Column("MADE", lambda row: moment(row["at"])),
    Column("STATE", lambda row: row["state"], style=lambda row: STATES.get(row["state"], "")),
    Column("POLICY", lambda row: f"{row['policy']}, {row['objective']}", spare=1),
    Column("MOVES", lambda row: str(row["moves"]), right=True),
    Column("POWER", lambda row: str(row["power_actions"]), right=True),
    Column("WHY", lambda row: row["reason"], wrap=True),
)
