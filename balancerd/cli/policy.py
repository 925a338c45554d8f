"""The verbs of `policy`."""

import click

from balancerd.cli.group import Group, Verbs

VERBS: Verbs = {
    "check": ("policy_check", "Say every problem of policy files, each with its line."),
    "keys": ("policy_keys", "List every key of a policy file."),
}


@click.group(cls=Group, verbs=VERBS)
def policy() -> None:
    """Check policy files, and list the keys they may have."""
