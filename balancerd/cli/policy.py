"""`policy check` and `policy keys`."""

import time

import click

from balancerd.cli.errors import Exit
from balancerd.cli.files import read_cluster
from balancerd.cli.group import Group
from balancerd.cli.output import Column, Form, Listing, Row, output_option, write_listing
from balancerd.config import load_policy
from balancerd.core.model import Snapshot
from balancerd.core.placing.constraints import contradictions
from balancerd.core.policies.policy import Policy
from balancerd.documents import DocumentError, read_text
from balancerd.keys import keys_of
from balancerd.toml_lines import lines_of


@click.group(cls=Group)
def policy() -> None:
    """Check policy files, and list the keys they may have."""


@policy.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--snapshot",
    metavar="CLUSTER",
    help="Also look for rules that this cluster file's hosts and VMs cannot keep.",
)
def check(files: tuple[str, ...], snapshot: str | None) -> int:
    """Say every problem of policy files, each with its line."""
    cluster = read_cluster(snapshot) if snapshot else None
    problems = [problem for file in files for problem in _problems(file, cluster)]
    for problem in problems:
        click.echo(problem, err=True)
    return Exit.INVALID if problems else Exit.DONE


def _problems(file: str, snapshot: Snapshot | None) -> list[str]:
    """All problems of one file; without any, its summary is shown."""
    try:
        found = load_policy(file)
    except DocumentError as error:
        return list(error.problems)
    if snapshot:
        clashes = _clashes(file, found, snapshot)
        if clashes:
            return clashes
    click.echo(f"{file}: {found.summary} ({_now(found)})")
    return []


def _clashes(file: str, found: Policy, snapshot: Snapshot) -> list[str]:
    """Rules that the site cannot keep, each with the line of the first one that is named."""
    lines, problems = lines_of(read_text(file)), []
    places = {rule.name: ("constraint", row) for row, rule in enumerate(found.constraint)}
    for clash in contradictions(snapshot.cluster, found):
        named = [name for name in places if clash.detail.startswith(name)]
        key = tuple(clash.detail.split(":")[0].split("."))
        line = lines.get(places[max(named, key=len)] if named else key)
        at = f":{line}" if line else ""
        problems.append(f"{file}{at}: {clash.detail}")
    return list(dict.fromkeys(problems))


def _now(found: Policy) -> str:
    """What the policy wants at this moment."""
    now = time.time()
    window, rules = found.window_at(now), found.at(now)
    place = f'in the window "{window.name}"' if window else "now"
    return f"{place}: {rules.mode}, {rules.objective}"


def _default(row: Row) -> str:
    return "required" if row["required"] else row["default"] or ""


@policy.command()
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
