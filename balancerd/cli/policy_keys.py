"""`policy keys`."""

import click

from balancerd.cli.output import Column, Form, Listing, Row, output_option, write_listing
from balancerd.core.policies.policy import Policy
from balancerd.keys import keys_of


def _default(row: Row) -> str:
    return "required" if row["required"] else row["default"] or ""


@click.command()
@output_option
def keys(form: Form) -> None:
    """List every key of a policy file."""
    rows = [
        {
            "key": key.path,
            "value": key.kind,
            "default": key.default or None,
            "required": key.required,
            "meaning": key.meaning,
        }
        for key in keys_of(Policy)
    ]
    columns = [
        Column("KEY", lambda row: row["key"], style=lambda _: "bold"),
        Column("VALUE", lambda row: row["value"], wrap=True, spare=1),
        Column("DEFAULT", _default, wrap=True),
        Column("MEANING", lambda row: row["meaning"], wrap=True),
    ]
    write_listing(Listing(rows, columns, empty="no keys"), form)
