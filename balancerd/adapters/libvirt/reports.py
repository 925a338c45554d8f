"""News of migrations on its way from their threads to the loop."""

import threading

from balancerd.core.observation import JobReport


class Reports:
    """Keeps the newest progress of each VM, and every end exactly once, until they are drained."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: dict[str, JobReport] = {}
        self._ended: list[JobReport] = []

    def add(self, report: JobReport) -> None:
        """Note news. An end makes earlier progress of the same VM old news."""
        with self._lock:
            if report.ended:
                self._progress.pop(report.vm, None)
                self._ended.append(report)
            else:
                self._progress[report.vm] = report

    def drain(self) -> tuple[JobReport, ...]:
        """All news since the last call: ends in the order they came, then progress."""
        with self._lock:
            news = (*self._ended, *self._progress.values())
            self._ended, self._progress = [], {}
        return news
