"""`audit`: whether the record can be believed."""

from pathlib import Path

import click

from balancerd.cli.errors import Exit
from balancerd.cli.group import Group, Verbs
from balancerd.cli.output import Form, output_option, write_document
from balancerd.cli.record import reading, record_option

VERBS: Verbs = {
    "verify": (
        "audit",
        "Follow the audit's chain, and compare each migration's end with it; exit code 1 at a"
        " fault.",
    )
}


@click.group(cls=Group, verbs=VERBS)
def audit() -> None:
    """See whether the record is as it was written."""


@click.command()
@output_option
@record_option
def verify(form: Form, record: Path) -> int:
    """Follow the audit's chain, and compare each migration's end with it; exit code 1 at a fault.

    Compare the head with the one that balancerd writes to its log each day: it shows whether the
    whole chain was made anew.
    """
    with reading(record) as reader:
        found = reader.audit()
    document = {"events": found.events, "head": found.head, "fault": found.fault}
    words = found.fault or f"{found.events} lines, each as it was written; the head is {found.head}"
    write_document(
        document, form, lambda where: where.print(words, highlight=False, soft_wrap=True)
    )
    return Exit.FAILED if found.fault else Exit.DONE
