"""Files that commands are given: cluster files, plans."""

import sys
from pathlib import Path

from balancerd.cli.errors import invalid
from balancerd.core.files.cluster_file import parse_cluster_file
from balancerd.core.files.plan_document import parse_plan_document
from balancerd.core.model import Snapshot
from balancerd.core.plan import Plan


def read_cluster(name: str) -> Snapshot:
    """The snapshot in a cluster file; "-" reads standard input. CodecError, CommandError."""
    return parse_cluster_file(_content(name), _told(name))


def read_plan(name: str) -> tuple[int | None, Plan]:
    """The plan in a file, with its number in a record if it says so; "-" reads standard input."""
    return parse_plan_document(_content(name), _told(name))


def _told(name: str) -> str:
    return "standard input" if name == "-" else name


def _content(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise invalid(f"{name}: {(error.strerror or str(error)).lower()}") from None
    except ValueError:  # a null character in the name
        raise invalid(f"{name!r}: is not a file name") from None
