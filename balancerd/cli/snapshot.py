"""`snapshot`: the site as a cluster file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancerd.cli.output import Form, Row, output_option_of, write_document
from balancerd.cli.record import WHOLE_NUMBER, reading, record_option
from balancerd.cli.recorded import kept
from balancerd.cli.words import moment, size
from balancerd.core.files.cluster_file import cluster_file
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
        document = cluster_file(kept(reader, record, plan))
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
