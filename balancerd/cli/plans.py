"""The verbs of `plan`."""

import click

from balancerd.cli.group import Group, Verbs

VERBS: Verbs = {
    "graph": (
        "plan_graph",
        "Draw a plan, or the newest: its waves and what waits for what, or host by host.",
    ),
    "list": ("plan_list:list_plans", "List plans, newest first."),
    "new": (
        "plan_new",
        "Plan on a cluster file, offline: what would be done at the file's time, and why.",
    ),
    "show": (
        "plan_show",
        "Show one plan, or the newest: hosts before and after, actions, refusals, checks.",
    ),
    "verify": (
        "plan_verify",
        "Replay a plan (-o json of `plan show` or `plan new`) on a site; exit code 1 if it is"
        " unsound.",
    ),
}


@click.group(cls=Group, verbs=VERBS)
def plan() -> None:
    """Make plans, and look at those that were made."""
