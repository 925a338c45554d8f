"""The tables of mutants, and their places in tests/README.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tests.mutants.churn import CHURN
from tests.mutants.cold import COLD
from tests.mutants.facts import FACTS
from tests.mutants.hypervisor import HYPERVISOR
from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.rules import RULES
from tests.mutants.running import RUNNING
from tests.mutants.sets import SETS
from tests.mutants.site import SITE
from tests.mutants.starts import STARTS

README = ROOT / "tests" / "README.md"


@cache
def _text(file: str) -> str:
    path = ROOT / file
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True, slots=True)
class Table:
    """Mutants of one kind, as one table."""

    name: str
    mutants: tuple[Mutant, ...]
    head: tuple[str, str]
    explains: bool  # whether a row says what its guard protects

    def row(self, mutant: Mutant, verdict: str) -> str:
        """One line."""
        cells = [mutant.name, *([mutant.protects] if self.explains else []), f"`{mutant.file}`"]
        return f"| {' | '.join([*cells, verdict])} |"

    def noticed(self) -> dict[str, str]:
        """By the names of the mutants: the test that noticed each when the table was written, as
        pytest names it."""
        found = self.place().search(README.read_text())
        rows = [re.split(r"\s\|\s", line) for line in (found[1] if found else "").splitlines()]
        tests = ((cells[0].removeprefix("| "), cells[-1].strip(" |`")) for cells in rows)
        parts = ((name, *test.partition(": ")) for name, test in tests)
        named = ((name, f"tests/{file}.py", test) for name, file, _, test in parts if test)
        return {
            name: f"{file}::{test}" for name, file, test in named if f"def {test}(" in _text(file)
        }

    def place(self) -> re.Pattern[str]:
        """What matches the table's place in README; its group is the content."""
        return re.compile(
            rf"<!-- begin {self.name} -->\n(.*?)\n<!-- end {self.name} -->", re.DOTALL
        )


GUARDS = Table(
    "guards",
    STARTS + FACTS + SETS + CHURN + RUNNING + HYPERVISOR + COLD + SITE,
    ("| guard | keeps that | in `balancerd/` | without it fails |", "|---|---|---|---|"),
    explains=True,
)
TABLES = (
    GUARDS,
    Table(
        "rules", RULES, ("| mutant | in `balancerd/` | dies in |", "|---|---|---|"), explains=False
    ),
)


def write(table: Table, caught_by: Mapping[str, str]) -> None:
    """Put a table into README."""
    rows = [table.row(mutant, f"`{caught_by[mutant.name]}`") for mutant in table.mutants]
    content = "\n".join([*table.head, *rows])
    block = f"<!-- begin {table.name} -->\n{content}\n<!-- end {table.name} -->"
    text, count = table.place().subn(lambda _: block, README.read_text())
    if count != 1:
        raise SystemExit(f'{README.name} has {count} tables "{table.name}"')
    README.write_text(text)
