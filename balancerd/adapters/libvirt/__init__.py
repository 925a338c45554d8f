"""The libvirt adapter: hosts and VMs as libvirtd tells them, and real migrations.

Only this folder says "domain" for a VM, and only it imports `libvirt`.
"""

from balancerd.adapters.libvirt.backend import LibvirtBackend
from balancerd.adapters.libvirt.hosts import HostConfig

__all__ = ["HostConfig", "LibvirtBackend"]
