"""`history` and `migrations`: what happened."""

from pathlib import Path

import click

from balancerd.cli.errors import must_exist
from balancerd.cli.output import (
    Column,
    Form,
    Listing,
    Row,
    again_and_again,
    output_option,
    watch_option,
    write_listing,
)
from balancerd.cli.record import limit_option, reading, record_option, since_option, since_time
from balancerd.cli.words import NOTHING, duration, milliseconds, moment, predicted, size

STYLES = {"done": "green", "under way": "cyan", "not started": "dim", "objected": "dim"}


@click.command()
@click.option("--subject", default="", metavar="NAME", help="Only of this VM, host, or plan.")
@since_option
@limit_option(50)
@output_option
@record_option
def history(subject: str, since: str | None, limit: int, form: Form, record: Path) -> None:
    """List what balancerd and its operators did, newest first."""
    with reading(record) as reader:
        rows = reader.events(since_time(since, reader), limit, subject)
    write_listing(Listing(rows, EVENTS, empty="nothing happened"), form)


EVENTS = (
    Column("TIME", lambda row: moment(row["at"])),
    Column("EVENT", lambda row: row["kind"], style=lambda _: "bold"),
    Column("OF", lambda row: row["subject"]),
    Column("WHAT", lambda row: row["detail"], wrap=True),
)


@click.command()
@click.option("--vm", default="", metavar="VM", help="Only of this VM.")
@click.option("--host", default="", metavar="HOST", help="Only from or to this host.")
@since_option
@limit_option(50)
@watch_option
@output_option
@record_option
def migrations(
    vm: str,
    host: str,
    since: str | None,
    limit: int,
    watch: float | None,
    form: Form,
    record: Path,
) -> None:
    """List migrations, newest first: predicted and actual figures, and how they ended."""

    def show() -> None:
        with reading(record) as reader:
            rows = reader.migrations(since_time(since, reader), limit, vm, host)
            if vm and not rows:
                must_exist("VM", vm, reader.vms_ever_seen())
            if host and not rows:
                must_exist("host", host, reader.hosts_ever_seen())
        write_listing(Listing(rows, MIGRATIONS, empty="no migrations"), form)

    again_and_again(show, watch)


def _against(actual: str, foreseen: str) -> str:
    """What came of a prediction."""
    return f"{actual} ({foreseen})" if actual != NOTHING else f"({foreseen})"


def _outcome(row: Row) -> str:
    return STYLES.get(row["outcome"], "red")


MIGRATIONS = (
    Column("BEGUN", lambda row: moment(row["begun_at"])),
    Column("VM", lambda row: row["vm"], style=lambda _: "bold"),
    Column("FROM → TO", lambda row: f"{row['source']} → {row['target']}"),
    Column("OUTCOME", lambda row: row["outcome"], style=_outcome),
    Column(
        "TIME (EXPECTED)",
        lambda row: _against(duration(row["seconds"]), predicted(row, "seconds", duration)),
        right=True,
        spare=1,
    ),
    Column(
        "DATA (EXPECTED)",
        lambda row: _against(size(row["bytes"]), predicted(row, "bytes", size)),
        right=True,
        spare=4,
    ),
    Column("PAUSE", lambda row: milliseconds(row["downtime_ms"]), right=True, spare=5),
    Column("PLAN", lambda row: str(row["plan"] or NOTHING), right=True, spare=3),
    Column("WHY", lambda row: row["error"] or row["reason"], wrap=True, spare=2),
)
