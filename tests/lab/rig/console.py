"""What guests write to their consoles, read from outside while it happens.

Every guest appends "beat BOOT NUMBER UPTIME_MS LARGEST_GAP_MS" to one file on the shared storage,
wherever it runs. The numbers prove that it ran on without a reboot, a hole or a double run. How
long it stood still only the arrival times tell: a guest's own clock stops while it is moved.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Counter:
    """What a guest's console proves."""

    boots: int  # how often the guest started; 1 for one that only moved
    beats: int  # lines seen, ten a second
    holes: int  # beats that are missing
    doubles: int  # beats that came twice or late: two copies were running
    largest_gap_s: float  # longest silence, in real time, within one boot
    silent_s: float  # since the last beat
    guest_gap_ms: int  # longest silence by the guest's own clock


@dataclass
class Console:
    """The reading of one guest's console, carried on as the file grows."""

    path: Path
    offset: int = 0
    rest: str = ""
    boot: str = ""
    number: int = 0
    boots: int = 0
    beats: int = 0
    holes: int = 0
    doubles: int = 0
    guest_gap_ms: int = 0
    last_arrival: float | None = None
    largest_gap_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def poll(self) -> None:
        with self.lock:
            try:
                with self.path.open("rb") as file:
                    file.seek(self.offset)
                    data = file.read()
            except FileNotFoundError:
                return
            if not data:
                return
            # What is there at the first look arrived at unknown times.
            live = self.offset > 0 or self.last_arrival is not None
            self.offset += len(data)
            lines = (self.rest + data.decode(errors="replace")).split("\n")
            self.rest = lines.pop()
            self._take([line.rstrip("\r") for line in lines], live=live)

    def _take(self, lines: list[str], *, live: bool) -> None:
        now = time.monotonic()
        for line in lines:
            words = line.split()
            if len(words) != 5 or words[0] != "beat" or not words[2].isdigit():
                continue
            same_boot = words[1] == self.boot
            self._count(words[1], int(words[2]))
            if live and same_boot and self.last_arrival is not None:
                self.largest_gap_s = max(self.largest_gap_s, now - self.last_arrival)
            self.last_arrival = now
            self.guest_gap_ms = int(words[4])

    def _count(self, boot: str, number: int) -> None:
        self.beats += 1
        if boot != self.boot:
            self.boots += 1
            self.boot, self.number = boot, 0
        if number <= self.number:
            self.doubles += 1
            return
        self.holes += number - self.number - 1
        self.number = number

    def reset_gap(self) -> None:
        with self.lock:
            self.largest_gap_s = 0.0

    def tail(self, length: int = 2000) -> str:
        """The end of what the guest wrote, for a person who asks why it does not beat."""
        if not self.path.exists():
            return "(no console)"
        return self.path.read_bytes()[-length:].decode(errors="replace")

    def counter(self) -> Counter:
        self.poll()
        with self.lock:
            last = self.last_arrival
            silent = time.monotonic() - last if last is not None else float("inf")
            return Counter(
                boots=self.boots,
                beats=self.beats,
                holes=self.holes,
                doubles=self.doubles,
                largest_gap_s=max(self.largest_gap_s, silent if last is not None else 0.0),
                silent_s=silent,
                guest_gap_ms=self.guest_gap_ms,
            )


class Listener:
    """A thread that follows all consoles of a lab. Started with the first of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.consoles: dict[str, Console] = {}
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None

    def console(self, guest: str) -> Console:
        if guest not in self.consoles:
            self.consoles[guest] = Console(self.directory / f"{guest}.log")
        if self.thread is None:
            self.stopping.clear()
            self.thread = threading.Thread(target=self._follow, daemon=True)
            self.thread.start()
        return self.consoles[guest]

    def forget(self, guest: str) -> None:
        self.consoles.pop(guest, None)

    def stop(self) -> None:
        self.stopping.set()
        if self.thread is not None:
            self.thread.join()
        self.thread = None
        self.consoles.clear()

    def _follow(self) -> None:
        while not self.stopping.wait(POLL_SECONDS):
            for console in list(self.consoles.values()):
                console.poll()
