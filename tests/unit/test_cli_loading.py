"""What looks at a record waits for nothing that it has no use for."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from balancerd.cli import root
from balancerd.cli.group import Group
from tests.docs import commands
from tests.records import make_record

# What takes long to import, each some tenths of a second of CPU on a small machine.
SLOW = {"highspy", "libvirt", "networkx", "numpy", "pydantic", "rich", "sqlite_utils"}
RUN = """
import sys
from balancerd.cli.root import run
run(sys.argv[1:])
print(*sorted(set(sys.modules) & {slow}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("record")
    make_record(directory)
    return directory


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("--help", ""),
        ("plan --help", ""),
        ("status", "rich"),
        ("status -o json", ""),
        ("migrations -o json", ""),
        ("history -o json", ""),
        ("report -o json", ""),
        ("plan list -o json", ""),
        ("audit verify -o json", ""),
        ("export", ""),
        ("pause", ""),
        ("abort v1", ""),
        ("stats", ""),
        ("vms -o json", "numpy"),
        ("plan show -o json", "numpy"),
        ("snapshot", "numpy"),
        ("hosts -o json", "numpy pydantic"),
        ("why vm001 -o json", "numpy pydantic"),
        ("why vm001 --plan 1 -o json", "numpy pydantic"),
        ("plan graph 1 -o dot", "numpy pydantic"),
    ],
)
def test_a_verb_loads_no_more_than_it_needs(record: Path, line: str, needed: str) -> None:
    """Dies when one import at the head of a module has every `status` wait for the planner."""
    words = [sys.executable, "-c", RUN.format(slow=SLOW), *line.split()]
    done = subprocess.run(
        words, env={"BALANCERD_RECORD": str(record)}, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == needed, done.stderr


def test_help_says_of_each_verb_what_the_verb_says_of_itself() -> None:
    """The tables have the sentences so that help need not load every verb."""
    for words, command in commands():
        first, _, name = words.rpartition(" ")
        group = root.root.get_command(click.Context(root.root), first) if first else root.root
        assert isinstance(group, Group)
        assert group.verbs[name][1] == command.get_short_help_str(1000)


def test_completion_knows_the_verbs_without_loading_them() -> None:
    shell = ShellComplete(root.root, {}, "balancerctl", "_BALANCERCTL_COMPLETE")
    assert {item.value for item in shell.get_completions([], "un")} == {"undrain"}
    assert {item.value for item in shell.get_completions(["plan"], "")} >= {"graph", "verify"}
