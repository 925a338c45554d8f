"""What the configuration says of a host, as far as this adapter needs it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostConfig:
    """One host. URIs as virsh takes them.

    `peer_uri` is where the *other hosts'* libvirtd reach this one for a peer-to-peer migration,
    `migration_uri` where the guest's memory goes (for example "tcp://10.1.0.7"; "" lets libvirt
    choose). `shared` names path prefixes that every host of the site sees with the same content.
    """

    name: str
    uri: str
    peer_uri: str = ""  # "": the same as `uri`
    migration_uri: str = ""
    rack: str = ""
    speed: float = 1.0  # reference cores in one of its cores
    power_curve: tuple[float, ...] = ()  # W at equal steps of CPU use
    can_sleep: bool = False
    memory: int = 0  # bytes that may be counted on; 0: all that the host says it has
    shared: tuple[str, ...] = ()
    tls_name: str = ""  # the name in its certificate, where `migration_uri` has an address

    @property
    def reach(self) -> str:
        """The URI by which other hosts reach this one."""
        return self.peer_uri or self.uri
