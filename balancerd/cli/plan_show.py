"""`plan show`: a plan of the record."""

from pathlib import Path

import click

from balancerd.cli.output import (
    Form,
    output_option,
    write_document,
)
from balancerd.cli.plan_view import draw_plan, heading_of
from balancerd.cli.record import (
    WHOLE_NUMBER,
    reading,
    record_option,
)
from balancerd.cli.recorded import recorded_plan
from balancerd.core.files.plan_document import plan_document


@click.command()
@click.argument("number", metavar="[ID]", type=WHOLE_NUMBER, required=False)
@click.option("--all-hosts", is_flag=True, help="Show hosts that stay as they are, too.")
@output_option
@record_option
def show(number: int | None, all_hosts: bool, form: Form, record: Path) -> None:
    """Show one plan, or the newest: hosts before and after, actions, refusals, checks."""
    with reading(record) as reader:
        item, made = recorded_plan(reader, record, number)
    heading = heading_of(made, f"Plan {item['id']}", item["state"])
    write_document(
        item | plan_document(made),
        form,
        lambda where: draw_plan(where, made, heading, all_hosts=all_hosts),
    )
