"""Hosts that are reached by ssh: it must neither ask anybody, nor wait without end.

libvirt starts the program `ssh` and speaks through it. It takes no limit of time, and ssh has none
of its own for a server that accepts a connection and then says nothing.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

# What ssh says, in lower case, and what that means to whoever has to mend it.
_MEANINGS = {
    "host key verification failed": "its host key is not the one in known_hosts, or none is there",
    "are too open": "the private key can be read by others, so that ssh does not use it",
    "permission denied": "it accepts no key of the user that balancerd runs as",
}
_AROUND = ("Cannot recv data: ", ": Connection reset by peer", ": End of file while reading data")


def is_ssh(uri: str) -> bool:
    """Whether libvirt runs `ssh` to open this URI."""
    return urlsplit(uri).scheme.partition("+")[2] == "ssh"


def unattended(uri: str) -> str:
    """The URI, so that ssh fails where it would ask for a password or about a host key."""
    query = urlsplit(uri).query
    if not is_ssh(uri) or "no_tty" in parse_qs(query):
        return uri
    return uri + ("&" if query else "?") + "no_tty=1"


@contextmanager
def ended_after(seconds: float) -> Iterator[threading.Event]:
    """End what this thread starts inside and has not come to its end in time; tells whether any
    was."""
    thread, ended = threading.get_native_id(), threading.Event()
    before = _children(thread)

    def end() -> None:
        for child in _children(thread) - before:
            ended.set()
            with suppress(ProcessLookupError):  # it ended at this very moment
                os.kill(child, signal.SIGTERM)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    finally:
        timer.cancel()


def _children(thread: int) -> frozenset[int]:
    """The processes that a thread of ours has started; none where the kernel does not tell."""
    try:
        told = Path(f"/proc/self/task/{thread}/children").read_text()
    except OSError:
        return frozenset()
    return frozenset(map(int, told.split()))


def reason(text: str) -> str:
    """Why ssh did not get through, in one sentence: libvirt shows all that it printed, greetings
    and warnings first."""
    for part in _AROUND:
        text = text.removeprefix(part).removesuffix(part)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1][-300:] if lines else "it said nothing"
    meant = (meaning for said, meaning in _MEANINGS.items() if said in text.lower())
    explained = next(meant, "")
    return f"ssh: {explained} ({last})" if explained else f"ssh: {last.removeprefix('ssh: ')}"
