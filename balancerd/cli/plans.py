"""`plan new`, `plan list`, `plan show`, and their neighbours `plan graph` and `plan verify`."""

import time
from pathlib import Path

import click

from balancerd.cli.decision import recorded_plan
from balancerd.cli.files import read_cluster
from balancerd.cli.group import Group
from balancerd.cli.output import (
    Column,
    Form,
    Listing,
    output_option,
    write_document,
    write_listing,
)
from balancerd.cli.plan_graph import graph
from balancerd.cli.plan_verify import verify
from balancerd.cli.plan_view import draw_plan, heading_of
from balancerd.cli.record import (
    WHOLE_NUMBER,
    limit_option,
    reading,
    record_option,
    since_option,
    since_time,
)
from balancerd.cli.words import moment
from balancerd.config import load_policy
from balancerd.core.files.plan_document import plan_document
from balancerd.core.past.history import History
from balancerd.engines import planner

STATES = {"proposed": "yellow", "running": "cyan", "done": "green", "failed": "red"}


@click.group(cls=Group)
def plan() -> None:
    """Make plans, and look at those that were made."""


plan.add_command(graph)
plan.add_command(verify)


@plan.command()
@click.option("--snapshot", required=True, metavar="CLUSTER", help='A cluster file; "-": stdin.')
@click.option("--policy", "policy_file", required=True, metavar="FILE", help="The policy.")
@click.option("--all-hosts", is_flag=True, help="Show hosts that stay as they are, too.")
@output_option
def new(snapshot: str, policy_file: str, all_hosts: bool, form: Form) -> None:
    """Plan on a cluster file, offline: what would be done at the file's time, and why."""
    policy = load_policy(policy_file)
    cluster = read_cluster(snapshot)
    begun = time.perf_counter()
    made = planner(cluster, policy.at(cluster.at), History(), cluster.at)
    seconds = time.perf_counter() - begun
    document = plan_document(made) | {"plan_seconds": round(seconds, 6)}
    heading = heading_of(made, f"Plan for {Path(snapshot).name}", f"made in {seconds:.3f} s")
    write_document(
        document, form, lambda where: draw_plan(where, made, heading, all_hosts=all_hosts)
    )


@plan.command("list")
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


@plan.command()
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
