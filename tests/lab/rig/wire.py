"""Listening on a host's cable, at the switch's end: all that passes there, both ways."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType

from .layout import LabError

LISTEN = """
import select, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
wire.bind((sys.argv[1], 0))
needle, seen, hits = bytes.fromhex(sys.argv[2]), 0, 0
print("ready", flush=True)
while True:
    ready, _, _ = select.select([wire, sys.stdin], [], [])
    if wire not in ready:
        break
    frame = wire.recv(1 << 17)
    seen, hits = seen + len(frame), hits + frame.count(needle)
print(seen, hits)
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """Bytes that passed, and how often the words that were listened for were among them."""

    bytes: int
    hits: int


class Wire:
    """Listens from `with` on; `stop` tells what was heard."""

    def __init__(self, in_network: list[str], device: str, words: bytes) -> None:
        self._process = subprocess.Popen(
            [*in_network, sys.executable, "-c", LISTEN, device, words.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Wire:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise LabError("cannot listen on the wire")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self) -> Heard:
        """What was heard up to now."""
        said, _ = self._process.communicate("", timeout=60)
        seen, hits = map(int, said.split())
        return Heard(seen, hits)
