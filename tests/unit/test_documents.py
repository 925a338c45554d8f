"""What an operator reads when a file is wrong."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.complaints import format_path
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.quantity import Duration, Schema
from balancerd.documents import LARGEST, DocumentError, load, parse


class Disk(Schema):
    size: int


class Cpu(Schema):
    kind: Literal["cpu"]
    share: float


class Mem(Schema):
    kind: Literal["mem"]
    limit: int = 1


class Machine(Schema):
    name: str
    fast: bool = False
    rest: Duration = 60.0
    kind: Literal["big", "small"] = "big"
    objective: Objective = Objective.SPREAD
    disk: tuple[Disk, ...] = ()
    part: Cpu | Mem | None = None
    size: Literal[1, 2] = 1


def problems(text: str, model: type[Schema] = Machine) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text, model, "x.toml")
    return str(caught.value).splitlines()


def test_a_correct_document_becomes_a_value() -> None:
    machine = parse('name = "a"\nrest = "2m"\n[[disk]]\nsize = 3\n', Machine, "x.toml")
    assert machine == Machine(name="a", rest=120.0, disk=(Disk(size=3),))


def test_every_problem_is_told_in_the_order_of_the_file() -> None:
    text = 'fast = "yes"\nname = 4\nkind = "bik"\nnmae = 1\n[[disk]]\nsize = 1.5\n[[disk]]\n'
    assert problems(text) == [
        'x.toml:1: fast: must be true or false, not "yes"',
        "x.toml:2: name: must be text in quotes, not 4",
        'x.toml:3: kind: must be one of "big", "small", not "bik" (did you mean "big"?)',
        'x.toml:4: nmae: unknown key (did you mean "name"?)',
        "x.toml:6: disk[0].size: must be a whole number, not 1.5",
        "x.toml:7: disk[1].size: is missing",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('rest = "5"', '"5" is not a duration; write for example "90s", "30m" or "1h30m"'),
        ("rest = 5", 'must be a duration with its unit, for example "90s", "30m" or "1h30m"'),
        ("rest = 5.0", 'must be a duration with its unit, for example "90s", "30m" or "1h30m"'),
        ('rest = "-5s"', '"-5s" is not a duration'),
        ('objective = "pak"', 'must be one of "spread", "pack", "quiet"'),
        ("objective = []", "not a list"),
        ("disk = 1", "must be a list, not 1"),
        ("disk = [1]", "must be a table, not 1"),
        ("part = { kind = 'cpu' }", "part.share: is missing"),
        ("kind = 2022-01-01", "must be one of"),
        ("size = 3", "must be one of 1, 2, not 3"),
        ("size = '1'", 'must be one of 1, 2, not "1"'),
    ],
)
def test_a_wrong_value_is_told_with_what_would_be_right(line: str, problem: str) -> None:
    assert any(problem in found for found in problems(f'name = "a"\n{line}\n'))


def test_text_that_looks_like_a_number_is_no_number() -> None:
    assert problems('name = "a"\n[[disk]]\nsize = "4"') == [
        'x.toml:3: disk[0].size: must be a whole number, not "4"'
    ]


def test_without_a_near_key_the_known_ones_are_listed() -> None:
    assert problems('name = "a"\n[[disk]]\nsize = 1\ncolour = 1\n') == [
        "x.toml:4: disk[0].colour: unknown key; known here: size"
    ]


def test_the_name_of_a_field_in_the_code_is_no_key() -> None:
    window = '[[window]]\nname = "n"\nstart = "01:00"\nto = "02:00"\ntimezone = "UTC"\n'
    found = problems('summary = "x"\n' + window, Policy)
    assert "x.toml:2: window[0].from: is missing" in found
    assert any(line.startswith("x.toml:4: window[0].start: unknown key") for line in found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name = "a', "x.toml:1: is not TOML: "),
        ('name = "a"\nname = "b"\n', "x.toml:2: is not TOML: cannot overwrite a value"),
        ("name = \n\n", "x.toml:1: is not TOML: invalid value"),
        ("name = [1,\n", "x.toml:1: is not TOML: "),
        ("a = " + 5000 * "[", "x.toml: is not TOML: nested too deeply"),
        (f"a = {5000 * '9'}", "x.toml: is not TOML: a number has too many digits"),
    ],
)
def test_what_is_not_toml_is_one_sentence(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    binary, large = tmp_path / "binary.toml", tmp_path / "large.toml"
    binary.write_bytes(b"# one\nname = '\xff'\n")
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    wrong: list[tuple[Path | str, str]] = [
        (tmp_path / "none.toml", "none.toml: no such file or directory"),
        (tmp_path, ": is a directory"),
        (binary, "binary.toml:2: is not text in UTF-8"),
        (large, "large.toml: is larger than 4 MiB"),
        ("a\0b", "'a\\x00b': is not a file name"),
    ]
    for path, problem in wrong:
        with pytest.raises(DocumentError) as caught:
            load(path, Machine)
        assert str(caught.value).endswith(problem)


def test_a_path_is_written_as_in_the_file() -> None:
    assert format_path(("window", 0, "limits", "odd key")) == 'window[0].limits."odd key"'


@given(st.text(max_size=200))
def test_no_text_whatever_gives_anything_but_a_value_or_a_document_error(text: str) -> None:
    """Dies when only TOMLDecodeError is caught."""
    try:
        parse(text, Machine, "x.toml")
    except DocumentError as error:
        assert all(line.startswith("x.toml:") for line in error.problems)


VALUES = st.recursive(
    st.sampled_from(["1", "-1", "1.5", "nan", "inf", "true", '"x"', '"2h"', "07:32:00", "[]"])
    | st.integers(10**17, 10**30).map(str),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | inner.map(lambda item: f"{{ size = {item} }}")
    ),
    max_leaves=4,
)
KEYS = st.sampled_from([*Machine.model_fields, "window", "thresholds", "limits", "unknown"])


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_no_value_whatever_gives_anything_but_a_value_or_a_document_error(
    pairs: dict[str, str],
) -> None:
    """Each key in error stands on the line that its problem names."""
    text = "".join(f"{key} = {value}\n" for key, value in pairs.items())
    for model in (Machine, Policy):
        try:
            parse(text, model, "x.toml")
        except DocumentError as error:
            for problem in error.problems:
                _, line, path, _ = problem.split(":", 3)
                key = path.strip().split(".")[0].split("[")[0]
                if key in pairs:
                    assert text.splitlines()[int(line) - 1].startswith(key + " =")
