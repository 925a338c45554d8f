"""libvirt's errors as ours: one sentence, with code and domain for the record."""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from balancerd.core.observation import Against
from balancerd.ports import BackendError


def sentence(error: libvirt.libvirtError) -> str:
    """The error's text on one line, without the name of the C function in front."""
    text = error.get_error_message() or str(error) or "libvirt gave no reason"
    return " ".join(str(text).split())[:500]


def code(error: libvirt.libvirtError) -> int:
    """The error's number, 0 where there is none."""
    return int(error.get_error_code() or 0)


def not_encrypted(cause: str, source: str, target: str) -> tuple[str, Against]:
    """What hosts that refused an encrypted migration lack, by QEMU's words, and whose moves wait
    for it; "" if it was not that.

    QEMU reads its certificates just before it would listen or connect, and refuses those that are
    not there, have expired, or by its host's clock are not yet valid. The target serves, the
    source is its client; which of them lacks a CA's certificate, it does not tell.
    """
    said = cause.lower()
    if "object-add" not in said or not ("credentials" in said or "certificate" in said):
        return "", Against.MOVE
    lacking, against = f"{source} or {target}", Against.PAIR
    if "/server-" in said:
        lacking, against = target, Against.TARGET
    elif "/client-" in said:
        lacking, against = source, Against.SOURCE
    _, found, reason = cause.partition("'object-add': ")
    detail = reason if found else cause
    return (
        f"{lacking} is not set up for encrypted migrations: {detail}; "
        "install libvirt's certificates for QEMU, or say tls = false"
    ), against


@contextmanager
def telling(host: str, act: str) -> Iterator[None]:
    """Turn a libvirt error into a BackendError that says which host and what was tried."""
    try:
        yield
    except libvirt.libvirtError as error:
        domain = int(error.get_error_domain() or 0)
        raise BackendError(host, act, sentence(error), code(error), domain) from error
