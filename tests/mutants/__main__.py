"""Make each mistake in a copy of the code and see who notices.

    python -m tests.mutants [--guards | --rules] [--lives=SEEDS] [NAME]...

With names, only mutants whose name or file has one of them. Without, the tables of tests/README.md
are written anew; which test noticed a mutant last is read there, and asked first. With
`--lives=0-39` simulated lives have to notice, and not the tests: that shows what the lives are
worth, and takes long. Exits 1 if a mutant survives or cannot be made any more.
"""

import sys
from collections.abc import Sequence

from tests.mutants.mutant import Mutant, Verdict, failing, judge
from tests.mutants.table import TABLES, Table, write


def chosen(table: Table, names: Sequence[str]) -> list[Mutant]:
    """The mutants of a table that are meant."""
    return [m for m in table.mutants if not names or any(n in f"{m.file} {m.name}" for n in names)]


def told(table: Table, mutants: Sequence[Mutant], lives: str) -> dict[str, Verdict]:
    """Judge these mutants, printing the table row by row."""
    print("\n".join(table.head))
    verdicts, noticed = {}, table.noticed()
    for mutant in mutants:
        verdicts[mutant.name] = verdict = judge(mutant, lives, noticed.get(mutant.name, ""))
        print(table.row(mutant, verdict.fault or f"`{verdict.caught_by}`"), flush=True)
    return verdicts


def main(words: Sequence[str]) -> int:
    wanted = [t for t in TABLES if f"--{t.name}" in words] or list(TABLES)
    names = [word for word in words if not word.startswith("--")]
    lives = next((w.removeprefix("--lives=") for w in words if w.startswith("--lives=")), "")
    faults = 0
    for table in wanted:
        mutants = chosen(table, names)
        noticed = table.noticed()
        proof = "" if lives else failing(noticed.get(m.name, m.test) for m in mutants)
        if proof:
            print(f"these fail without any mutant:\n{proof}")
            return 1
        verdicts = told(table, mutants, lives)
        found = sum(bool(verdict.fault) for verdict in verdicts.values())
        if not names and not lives and not found:
            write(table, {name: verdict.caught_by for name, verdict in verdicts.items()})
        faults += found
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
