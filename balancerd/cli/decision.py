"""What `why`, `why-not`, `plan graph` and `plan verify` speak about, and where they find it.

Without options that is the newest snapshot of the record under its policy, planned on as the last
cycle did: the same snapshot and policy give the same plan. `--plan` names a plan of the record
instead; `--snapshot` and `--policy` put files in the place of what the record has, and with both
of them no record is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from balancerd.adapters.sqlite.past import whole_past
from balancerd.adapters.sqlite.reader import Reader
from balancerd.cli.files import read_cluster
from balancerd.cli.in_force import recorded_policy
from balancerd.cli.record import reading, record_option
from balancerd.cli.recorded import kept, recorded_plan
from balancerd.config import load_policy
from balancerd.core.explain import Decision
from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.policies.policy import Policy

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Source:
    """What the options of a command say."""

    record: Path
    snapshot: str | None
    policy: str | None

    def decision(self, number: int | None = None) -> Decision:
        """The decision meant; CommandError where something of it is not there."""
        if number is not None and (self.snapshot or self.policy):
            raise click.UsageError("a plan of the record brings its own snapshot and policy")
        if self.snapshot and self.policy:
            return _planned(read_cluster(self.snapshot), load_policy(self.policy), History())
        with reading(self.record) as reader:
            if number is not None:
                return _recorded(reader, self.record, number)
            seen = self.seen(reader)
            past = History() if self.snapshot else whole_past(reader.database, seen.at)
            return _planned(seen, self.rules(reader), past)

    def seen(self, reader: Reader, plan: int | None = None) -> Snapshot:
        """The cluster file, or else the record's snapshot, the newest or that of a plan."""
        return read_cluster(self.snapshot) if self.snapshot else kept(reader, self.record, plan)

    def rules(self, reader: Reader, plan: int | None = None) -> Policy:
        """The policy file, or else the record's policy, the one in force or that of a plan."""
        return load_policy(self.policy) if self.policy else recorded_policy(reader, plan)


def source_options(command: Command) -> Command:
    """`--snapshot`, `--policy` and `--record`, given to the command by these names."""
    command = record_option(command)
    command = click.option("--policy", metavar="FILE", help="This policy instead of the record's.")(
        command
    )
    return click.option(
        "--snapshot",
        metavar="CLUSTER",
        help='This cluster file instead of the record\'s newest snapshot; "-": stdin.',
    )(command)


def _recorded(reader: Reader, record: Path, number: int) -> Decision:
    _, plan = recorded_plan(reader, record, number)
    rules = recorded_policy(reader, number).at(plan.at)
    return Decision(kept(reader, record, number), rules, whole_past(reader.database, plan.at), plan)


def _planned(snapshot: Snapshot, policy: Policy, history: History) -> Decision:
    from balancerd.engines import planner  # what speaks of a plan of the record needs none

    rules = policy.at(snapshot.at)
    return Decision(snapshot, rules, history, planner(snapshot, rules, history, snapshot.at))
