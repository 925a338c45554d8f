"""One balancerd for one record: a lock that the kernel drops when its holder ends, however."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from balancerd.ports import LedgerError

NAME = "lock"
_PATIENCE = 1.0  # seconds; `is_locked` holds the lock for a moment each time somebody asks


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a record's directory; LedgerError where another process holds it."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LedgerError(f"{directory / NAME}: {error.strerror}") from error
    try:
        _acquire(descriptor, directory)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                raise LedgerError(
                    f"another balancerd (process {holder or 'unknown'}) uses {directory} already"
                ) from None
            time.sleep(0.02)


def is_locked(directory: Path) -> bool:
    """Whether a balancerd runs on a record's directory."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
