"""Three real libvirt hosts with real QEMU guests on one machine.

    with Rig() as rig:
        guest = rig.start("a", "h1", GuestSpec(load=Load(cpu_percent=40)))
        guest.migrate("h2")
        assert guest.counter().boots == 1

See rig.py for the whole, hosts.py and guests.py for what can be done to each.
"""

from .certificates import Authority
from .console import Counter
from .guests import Disk, Guest, GuestSpec, Load, Moved
from .hosts import Host, HostSilentError
from .layout import HostSpec, LabError
from .rig import Rig, why_unavailable

__all__ = [
    "Authority",
    "Counter",
    "Disk",
    "Guest",
    "GuestSpec",
    "Host",
    "HostSilentError",
    "HostSpec",
    "LabError",
    "Load",
    "Moved",
    "Rig",
    "why_unavailable",
]
