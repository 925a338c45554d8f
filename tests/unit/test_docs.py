"""The documents tell what the program does, and nothing else."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from balancerd.cli.errors import Exit
from balancerd.cli.root import root
from balancerd.config import Configuration
from balancerd.core.policies.policy import Policy
from balancerd.documents import DocumentError, parse
from balancerd.places import SHIPPED_POLICIES
from tests.docs import README, ROOT, commands, generated, part

TEXT = README.read_text()
COMMANDS = dict(commands())


@pytest.mark.parametrize(("document", "name"), list(generated()))
def test_what_is_made_from_the_program_is_up_to_date(document: Path, name: str) -> None:
    """`python -m tests.docs` mends it."""
    found = part(name).search(document.read_text())
    assert found
    assert found[1] == generated()[document, name]


def test_what_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def mentioned() -> Iterator[str]:
    """Every command line of balancerctl in README: in blocks after a `$`, and between backticks."""
    for line in TEXT.splitlines():
        yield from re.findall(r"^(?:\$ )?(balancerctl [a-z].*)$", line)
        yield from re.findall(r"`(balancerctl [a-z][^`]*)`", line)


def resolve(words: list[str]) -> tuple[str, click.Command, list[str]]:
    """The command that a line calls, and what is given to it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, COMMANDS[name], words[length:]
    raise AssertionError(f"README speaks of balancerctl {' '.join(words)}")


@pytest.mark.parametrize("line", sorted(set(mentioned())))
def test_a_command_line_in_readme_would_be_understood(line: str) -> None:
    bare = re.split(r" [|>] ", line)[0]
    name, command, arguments = resolve(shlex.split(bare)[1:])
    needed = sum(isinstance(p, click.Argument) and p.required for p in command.params)
    if needed and not arguments:  # a mention of the verb only
        return
    command.make_parser(click.Context(command, info_name=name)).parse_args(list(arguments))


def test_the_exit_codes_of_readme_are_those_of_the_program() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE)}
    assert told == {int(code) for code in Exit}


def test_each_shipped_policy_is_named() -> None:
    shipped = {path.name for path in SHIPPED_POLICIES.glob("*.toml")}
    assert shipped == set(re.findall(r"^\| `policies/([a-z-]+\.toml)`", TEXT, re.MULTILINE))


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_each_example_is_a_valid_file(block: str) -> None:
    if "site" in tomllib.loads(block):
        assert parse(block, Configuration, "README").host
    else:
        assert parse('summary = "example"\n' + block, Policy, "README").summary == "example"


def test_the_problems_shown_are_those_that_are_found() -> None:
    """The example output of `policy check` is not made up."""
    shown = re.findall(r"^night\.toml:(\d+): (\S+): (.*)$", TEXT, re.MULTILINE)
    assert len(shown) == 3
    lines = [""] * 20
    lines[0] = 'summary = "x"'
    lines[3] = 'objectiv = "pack"'
    lines[7], lines[8] = "[limits]", "cooldown = 30"
    lines[9:14] = ["[[window]]", 'name = "n"', 'from = "1:00"', 'to = "2:00"', 'timezone = "UTC"']
    lines[14] = "thresholds.cpu.overload = 90"
    with pytest.raises(DocumentError) as caught:
        parse("\n".join(lines), Policy, "night.toml")
    assert [tuple(line.split(":", 2)[1:]) for line in caught.value.problems] == [
        (line, f" {key}: {words}") for line, key, words in shown
    ]


def test_every_verb_explains_itself() -> None:
    for name, command in COMMANDS.items():
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts}"
    assert root.help
