"""TOML files into values: policy, configuration, scenario. All errors at once, each with its line.

An error is meant for the operator who wrote the file. It names the key as it is written there,
says what would be right, and offers the nearest known key for one that does not exist.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from balancerd.complaints import problems

Model = TypeVar("Model", bound=BaseModel)

LARGEST = 4 * 2**20  # bytes; a document written by hand is far smaller
FROM_FILE: Mapping[str, bool] = {"from_file": True}  # validation context: numbers need their unit


class DocumentError(Exception):
    """A file that cannot be used. `str` has one line per problem, in the file's order."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@contextmanager
def collecting(problems: list[str]) -> Iterator[None]:
    """Add what is wrong with a file to what is wrong with others, so that all is told at once."""
    try:
        yield
    except DocumentError as error:
        problems += error.problems


def read_text(path: Path | str) -> str:
    """A file's text; DocumentError says in one sentence why there is none."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise DocumentError([f"{path}: {(error.strerror or str(error)).lower()}"]) from None
    except ValueError:  # a null character in the name
        raise DocumentError([f"{str(path)!r}: is not a file name"]) from None
    if len(content) > LARGEST:
        raise DocumentError([f"{path}: is larger than {LARGEST // 2**20} MiB"])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError([f"{path}:{line}: is not text in UTF-8"]) from None


def load(path: Path | str, model: type[Model]) -> Model:
    """The file as a value of the model; DocumentError otherwise."""
    return parse(read_text(path), model, str(path))


def parse(text: str, model: type[Model], name: str) -> Model:
    """The TOML text as a value of the model. `name` stands for the file in DocumentError's lines.

    Types are taken strictly: "4" is no number, and 4 is no text.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError([_syntax(name, text, str(error))]) from None
    except RecursionError:
        raise DocumentError([f"{name}: is not TOML: nested too deeply"]) from None
    except ValueError:  # Python refuses to read an integer of thousands of digits
        raise DocumentError([f"{name}: is not TOML: a number has too many digits"]) from None
    try:
        # By way of JSON, since only there strictness still reads lists as tuples and texts as
        # enumerations. TOML's dates and times become text.
        return model.model_validate_json(
            json.dumps(data, default=str), strict=True, context=FROM_FILE, by_name=False
        )
    except ValidationError as error:
        raise DocumentError(list(problems(error, data, text, model, name))) from None


def _syntax(name: str, text: str, message: str) -> str:
    what, _, place = message.removesuffix(")").rpartition(" (at ")
    spot = re.fullmatch(r"line (\d+), column (\d+)", place)
    line = spot[1] if spot else text.count("\n", 0, len(text.rstrip())) + 1
    column = f" (column {spot[2]})" if spot else ""
    return f"{name}:{line}: is not TOML: {what[:1].lower()}{what[1:]}{column}"
