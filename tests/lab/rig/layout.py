"""Where a lab lies: directories, names and addresses, all following from its number.

Several labs can stand on one machine, each with a number of its own: number 0 is the user's
(`python -m tests.lab.rig up`), test sessions take the next free ones.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

MAX_HOSTS = 5
MAX_INSTANCES = 10
NETWORKS = ("mgmt", "migration")
_UUID_SPACE = uuid.UUID("6c616220-6f66-4262-a16c-616e63657264")


class LabError(Exception):
    """Something the lab cannot do, in one sentence for whoever asked."""


def cache_directory() -> Path:
    """What the installation script fills: the hosts' root tree and the guest's kernel."""
    return Path(os.environ.get("BALANCERD_LAB_CACHE", "/var/cache/balancerd-lab"))


@dataclass(frozen=True)
class HostSpec:
    """Size of one host. Less quota than CPUs makes a host slower than it looks."""

    cpus: int = 1
    memory_mib: int = 2048
    cpu_quota_percent: int | None = None  # of one real CPU; None: cpus * 100

    @property
    def quota_percent(self) -> int:
        return self.cpus * 100 if self.cpu_quota_percent is None else self.cpu_quota_percent


@dataclass(frozen=True)
class Layout:
    """Every path, name and address of one lab."""

    instance: int = 0
    run_base: Path = Path("/run")
    # Not below /run, which is memory: guests' disks are opened with O_DIRECT.
    storage_base: Path = Path("/var/tmp")

    @property
    def label(self) -> str:
        return "balancerd-lab" + (f"-{self.instance}" if self.instance else "")

    @property
    def run(self) -> Path:
        return self.run_base / self.label

    @property
    def storage(self) -> Path:
        return self.storage_base / self.label

    @property
    def shared(self) -> Path:
        """The storage all hosts share: /lab/shared inside them."""
        return self.storage / "shared"

    @property
    def state(self) -> Path:
        return self.run / "lab.json"

    @property
    def link(self) -> str:
        """This machine's own network device on the management network."""
        return f"blab{self.instance}"

    def address(self, network: str, index: int) -> str:
        """Host `index` is .1`index` on both networks; index 0 is this machine's root namespace."""
        second = 77 + NETWORKS.index(network)
        return f"10.{second}.{self.instance}.{10 + index if index else 1}"

    def mac(self, network: str, index: int) -> str:
        """Fixed, so that peers' ARP entries stay right when a host is powered off and on."""
        return f"52:54:00:{77 + NETWORKS.index(network):x}:{self.instance:02x}:{index:02x}"

    def host_uuid(self, index: int) -> str:
        return str(uuid.uuid5(_UUID_SPACE, f"{self.label}/h{index}"))

    def host_run(self, name: str) -> Path:
        """What a host has in memory only: gone when it is powered off."""
        return self.run / name

    def host_disk(self, name: str) -> Path:
        """What a host keeps when it is powered off."""
        return self.storage / name
