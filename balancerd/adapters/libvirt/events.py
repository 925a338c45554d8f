"""libvirt's event loop: one thread, for as long as the process lives.

Keepalive, close callbacks and domain events all need it, and it has to be registered before the
first connection is opened. Callbacks run in this one thread, so they may only note something down:
one that blocks would stop the keepalive of every host.
"""

import logging
import threading
import time

import libvirt

LOG = logging.getLogger(__name__)

_lock = threading.Lock()
_thread: threading.Thread | None = None


def ensure_running() -> None:
    """Register the loop and start its thread, the first time; later calls do nothing."""
    global _thread
    with _lock:
        if _thread is None:
            libvirt.virEventRegisterDefaultImpl()
            # An error is returned to the caller, who tells it; on standard error it would be twice.
            libvirt.registerErrorHandler(_silent, None)
            _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _thread.start()


def _silent(_context: object, _error: object) -> None:
    pass


def _run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except Exception:  # without this thread every keepalive stops
            LOG.exception("libvirt's event loop failed; it goes on")
            time.sleep(1)
