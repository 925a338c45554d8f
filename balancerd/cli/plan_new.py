"""`plan new`: a plan on a cluster file."""

import time
from pathlib import Path

import click

from balancerd.cli.files import read_cluster
from balancerd.cli.output import (
    Form,
    output_option,
    write_document,
)
from balancerd.cli.plan_view import draw_plan, heading_of
from balancerd.config import load_policy
from balancerd.core.files.plan_document import plan_document
from balancerd.core.past.history import History
from balancerd.engines import planner


@click.command()
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
