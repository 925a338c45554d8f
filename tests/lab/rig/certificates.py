"""Certificates for encrypted migrations, made with certtool as QEMU's manual says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .shell import run

AUTHORITY = """\
cn = "authority of the lab"
ca
cert_signing_key
expiration_days = 2
"""
HOST = """\
cn = "{name}"
{others}
tls_www_server
tls_www_client
signing_key
encryption_key
"""
EXPIRED = 'activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2020-01-02 00:00:00"\n'
VALID = "expiration_days = 2\n"


class Authority:
    """Who signs certificates. Two of them know nothing of each other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.key, self.certificate = directory / "ca-key.pem", directory / "ca-cert.pem"
        _make_key(self.key)
        template = _template(directory, AUTHORITY)
        _certtool(
            "--generate-self-signed", "--load-privkey", self.key, *template, out=self.certificate
        )

    def issue(
        self, into: Path, name: str, addresses: Sequence[str], *, expired: bool = False
    ) -> None:
        """A certificate for a host, as server and as client, where its QEMU looks for both."""
        into.mkdir(parents=True, exist_ok=True)
        others = "\n".join(
            [f'dns_name = "{name}"', *(f'ip_address = "{address}"' for address in addresses)]
        )
        key, certificate = into / "server-key.pem", into / "server-cert.pem"
        shutil.copy(self.key, key)  # making one takes a second on a busy machine
        text = HOST.format(name=name, others=others) + (EXPIRED if expired else VALID)
        authority = ("--load-ca-certificate", self.certificate, "--load-ca-privkey", self.key)
        template = _template(self.directory, text)
        _certtool(
            "--generate-certificate", "--load-privkey", key, *authority, *template, out=certificate
        )
        shutil.copy(key, into / "client-key.pem")
        shutil.copy(certificate, into / "client-cert.pem")
        shutil.copy(self.certificate, into / "ca-cert.pem")


def _make_key(path: Path) -> None:
    _certtool("--generate-privkey", "--key-type", "rsa", "--bits", "2048", out=path)


def _template(directory: Path, text: str) -> tuple[str | Path, ...]:
    path = directory / "template"
    path.write_text(text)
    return "--template", path


def _certtool(*arguments: str | Path, out: Path) -> None:
    run(["certtool", *map(str, arguments), "--outfile", str(out)], name=f"certtool {arguments[0]}")
