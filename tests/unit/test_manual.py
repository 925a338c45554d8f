"""The manual pages tell what the program does, and groff has nothing to complain of."""

import re
import subprocess

import pytest

from balancerd.cli.errors import Exit
from balancerd.config import Configuration
from balancerd.core.policies.policy import Policy
from balancerd.documents import parse
from tests.manual import PAGES, generated, made


@pytest.mark.parametrize("page", list(generated()))
def test_what_is_made_from_the_program_is_up_to_date(page: str) -> None:
    """`python -m tests.manual` mends it."""
    text = (PAGES / page).read_text()
    assert made(text, generated()[page]) == text


def test_each_page_is_made_and_each_made_page_is_there() -> None:
    assert {path.name for path in PAGES.iterdir()} == set(generated())


@pytest.mark.parametrize("page", list(generated()))
def test_groff_understands_a_page(page: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-K", "utf8", "-ww", str(PAGES / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "balancerd" in done.stdout


def test_the_exit_codes_are_those_of_the_program() -> None:
    text = (PAGES / "balancerctl.1").read_text()
    told = re.findall(r"^\.B (\d)$", text, re.MULTILINE)
    assert {int(code) for code in told} == {int(code) for code in Exit}


@pytest.mark.parametrize(
    ("page", "model"), [("balancerd.toml.5", Configuration), ("balancerd-policy.5", Policy)]
)
def test_the_example_is_a_valid_file(page: str, model: type[Policy | Configuration]) -> None:
    text = (PAGES / page).read_text()
    examples = re.findall(r"^\.SH EXAMPLE\n\.nf\n(.*?)^\.fi", text, re.MULTILINE | re.DOTALL)
    for example in examples:
        parse(example.replace("\\-", "-"), model, page)
    assert len(examples) == 1
