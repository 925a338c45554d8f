"""systemd's notification protocol, sd_notify(3): one datagram to the socket it names."""

import os
import socket


def notify(**fields: str | int) -> None:
    """Tell systemd `READY="1"`, `STATUS="…"` and the like; nothing where it did not ask."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    text = "\n".join(f"{key}={value}" for key, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(text.encode(), address)
    except OSError:
        # The service manager is away or its socket is gone: no reason to stop balancing.
        return
