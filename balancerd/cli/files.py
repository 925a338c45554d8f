"""Files that commands are given: cluster files, traces."""

import sys
from pathlib import Path

from balancerd.cli.errors import invalid
from balancerd.core.cluster_file import parse_cluster_file
from balancerd.core.model import Snapshot


def read_cluster(name: str) -> Snapshot:
    """The snapshot in a cluster file; "-" reads standard input. CodecError, CommandError."""
    return parse_cluster_file(_content(name), "standard input" if name == "-" else name)


def _content(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise invalid(f"{name}: {(error.strerror or str(error)).lower()}") from None
    except ValueError:  # a null character in the name
        raise invalid(f"{name!r}: is not a file name") from None
