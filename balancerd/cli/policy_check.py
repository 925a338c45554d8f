"""`policy check`."""

import time

import click

from balancerd.cli.errors import Exit
from balancerd.cli.files import read_cluster
from balancerd.config import load_policy
from balancerd.core.model import Snapshot
from balancerd.core.policies.policy import Policy
from balancerd.documents import DocumentError, read_text
from balancerd.toml_lines import lines_of


@click.command()
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
    from balancerd.core.placing.constraints import contradictions  # much comes with it

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
