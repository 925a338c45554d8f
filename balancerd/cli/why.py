"""`why` and `why-not`: what a decision about a VM rests on."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from balancerd.cli.decision import Source, source_options
from balancerd.cli.errors import must_exist
from balancerd.cli.output import Column, Form, Listing, draw, output_option, write_document
from balancerd.cli.plan_view import REFUSALS, refusal_rows
from balancerd.cli.record import WHOLE_NUMBER
from balancerd.cli.words import moment
from balancerd.core.explain import Answer, Decision
from balancerd.core.explain import why as ask_why
from balancerd.core.explain import why_not as ask_why_not
from balancerd.core.files.codec import encode

if TYPE_CHECKING:
    from rich.console import Console

plan_option = click.option(
    "--plan",
    "number",
    type=WHOLE_NUMBER,
    metavar="ID",
    help="Of this plan of the record, instead of what would be planned on its newest snapshot.",
)


@click.command()
@click.argument("vm")
@plan_option
@source_options
@output_option
def why(
    vm: str,
    number: int | None,
    snapshot: str | None,
    policy: str | None,
    record: Path,
    form: Form,
) -> None:
    """Say why a VM moves, or stays where it is, with the numbers."""
    decision = Source(record, snapshot, policy).decision(number)
    must_exist("VM", vm, decision.snapshot.cluster.vms)
    _write(ask_why(decision, vm), decision, form)


@click.command("why-not")
@click.argument("vm")
@click.argument("host")
@plan_option
@source_options
@output_option
def why_not(
    vm: str,
    host: str,
    number: int | None,
    snapshot: str | None,
    policy: str | None,
    record: Path,
    form: Form,
) -> None:
    """Say everything that keeps a VM off a host, and the smallest change that would let it."""
    decision = Source(record, snapshot, policy).decision(number)
    must_exist("VM", vm, decision.snapshot.cluster.vms)
    must_exist("host", host, decision.snapshot.cluster.hosts)
    _write(ask_why_not(decision, vm, host), decision, form)


def _write(answer: Answer, decision: Decision, form: Form) -> None:
    document = {"at": encode(decision.plan)["at"], "policy": decision.policy.name}
    document |= encode(answer)
    write_document(document, form, lambda where: _draw(where, answer, decision))


def _draw(where: "Console", answer: Answer, decision: Decision) -> None:
    where.print(answer.sentence, style="bold", soft_wrap=True)
    name = decision.policy.name or "the policy"
    where.print(f"at {moment(decision.plan.at)}, under {name}, {decision.policy.objective}")
    if answer.facts:
        where.print()
        rows = [{"about": fact.about, "text": fact.text} for fact in answer.facts]
        draw(where, Listing(rows, FACTS, empty=""))
    if answer.refusals:
        where.print()
        draw(where, Listing(refusal_rows(answer.refusals), REFUSALS, empty="", title="Refused by"))
    if answer.change:
        where.print("\nThe smallest change that would allow it:", style="bold")
        for step in answer.change:
            where.print(f"  {step}", soft_wrap=True)


FACTS = (
    Column("ABOUT", lambda row: row["about"], style=lambda _: "bold"),
    Column("WHAT", lambda row: row["text"], wrap=True),
)
