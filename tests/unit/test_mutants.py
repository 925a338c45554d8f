"""The lists of mutants have not rotted. Whether they die, `python -m tests.mutants` tells."""

import re

import pytest

from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.table import GUARDS, README, TABLES, Table

MUTANTS = [mutant for table in TABLES for mutant in table.mutants]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutants_text_is_in_the_code_once_and_its_test_is_there(mutant: Mutant) -> None:
    """Fails when a guard was rewritten: say in its list what is to be taken away now."""
    assert mutant.found() == 1
    assert mutant.old != mutant.new
    file, _, name = mutant.test.partition("::")
    assert f"def {name}" in (ROOT / file).read_text()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_readme_lists_every_mutant_and_nothing_else(table: Table) -> None:
    """`python -m tests.mutants` mends it."""
    found = table.place().search(README.read_text())
    assert found
    rows = re.findall(r"^\| (.*?) \|", found[1], re.MULTILINE)[1:]
    assert rows == [mutant.name for mutant in table.mutants]


def test_a_name_means_one_mutant() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert sorted(set(names)) == sorted(names)


def test_every_guard_says_what_it_keeps() -> None:
    assert all(mutant.protects for mutant in GUARDS.mutants)
