"""`plan verify`: a plan from a file, replayed by the independent checker."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.values import Values
from balancerd.cli.decision import Source, source_options
from balancerd.cli.errors import Exit
from balancerd.cli.files import read_cluster, read_plan
from balancerd.cli.output import Form, output_option, write_document
from balancerd.cli.plan_view import checked
from balancerd.cli.record import reading
from balancerd.cli.words import moment
from balancerd.config import load_policy
from balancerd.core.check import check
from balancerd.core.files.codec import encode
from balancerd.core.model import Snapshot
from balancerd.core.plan import Plan
from balancerd.core.policies.policy import Policy
from balancerd.core.units import format_time

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("file", metavar="PLAN")
@source_options
@output_option
def verify(file: str, snapshot: str | None, policy: str | None, record: Path, form: Form) -> int:
    """Replay a plan (-o json of `plan show` or `plan new`) on a site; exit code 1 if it is unsound.

    Without --snapshot it is replayed on what the record kept for this plan, or else on the newest
    snapshot; without --policy likewise.
    """
    number, made = read_plan(file)
    seen, rules = _ground(number, made, Source(record, snapshot, policy))
    found = check(seen, rules.at(made.at), made)
    sound = not found.violations
    document = {"plan": file, "snapshot_at": format_time(seen.at), "sound": sound, **encode(found)}

    def draw(where: "Console") -> None:
        verdict, style = ("sound", "green") if sound else ("not sound", "red")
        where.print(f"{file} is {verdict} on the site of {moment(seen.at)}", style=f"bold {style}")
        where.print(checked(found), soft_wrap=True)

    write_document(document, form, draw)
    return Exit.DONE if sound else Exit.FAILED


def _ground(number: int | None, made: Plan, source: Source) -> tuple[Snapshot, Policy]:
    """What the plan is replayed on."""
    if source.snapshot and source.policy:
        return read_cluster(source.snapshot), load_policy(source.policy)
    with reading(source.record) as reader:
        plan = number if _is_of(reader, number, made) else None
        return source.seen(reader, plan), source.rules(reader, plan)


def _is_of(reader: Reader, number: int | None, made: Plan) -> bool:
    """Whether the record has this plan, and the snapshot it was made of."""
    values = Values(reader.database)
    found = values.plan(number) if number else None
    return bool(found and found[1].at == made.at and values.snapshot(number))
