"""balancerctl: one module for each group of verbs."""

import os
import sys


def main() -> None:
    """The command of the package. Who has enough of it before it is even loaded is told no more."""
    try:
        from balancerd.cli.root import command
    except KeyboardInterrupt:
        os.write(sys.stderr.fileno(), b"balancerctl: interrupted\n")
        sys.exit(1)
    command()
