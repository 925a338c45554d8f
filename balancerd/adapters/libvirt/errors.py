"""libvirt's errors as ours: one sentence, with code and domain for the record."""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from balancerd.core.outcome import Against
from balancerd.ports import BackendError


def sentence(error: libvirt.libvirtError) -> str:
    """The error's text on one line, without the name of the C function in front."""
    text = error.get_error_message() or str(error) or "libvirt gave no reason"
    return " ".join(str(text).split())[:500]


def code(error: libvirt.libvirtError) -> int:
    """The error's number, 0 where there is none."""
    return int(error.get_error_code() or 0)


def numbers(error: libvirt.libvirtError) -> tuple[int, int]:
    """The error's number and its domain's."""
    return code(error), int(error.get_error_domain() or 0)


# What QEMU says when it reads the certificates, just before it would listen or connect, and when
# the two hosts show them to each other.
_READ = ("credentials", "certificate")
_SHOWN = ("certificate", "tls handshake")


def not_encrypted(cause: str, source: str, target: str) -> tuple[str, Against]:
    """What hosts that refused an encrypted migration lack, by QEMU's words, and whose moves wait
    for it; "" if it was not that.

    QEMU refuses certificates that are not there, have expired, or by its host's clock are not yet
    valid. The target serves, the source is its client; which of them lacks a CA's certificate, it
    does not tell, nor which of two hosts that do not accept each other is in the wrong.
    """
    _, read, reason = cause.partition("'object-add': ")
    if read and _any_of(_READ, cause):
        lacking, against = _lacking(cause, source, target)
        return (
            f"{lacking} is not set up for encrypted migrations: {reason}; "
            "install libvirt's certificates for QEMU, or say tls = false"
        ), against
    _, failed, reason = cause.partition("job 'migration out' failed: ")
    if failed and _any_of(_SHOWN, reason):
        return (
            f"{source} and {target} do not accept each other's certificates: "
            f"{reason.partition('. Message from ')[0]}; let one authority sign both, with the "
            "address in migration_uri, or with the name that tls_name says"
        ), Against.PAIR
    return "", Against.MOVE


def _any_of(words: tuple[str, ...], text: str) -> bool:
    return any(word in text.lower() for word in words)


def _lacking(cause: str, source: str, target: str) -> tuple[str, Against]:
    """Whose certificate was read, as far as its file's name tells, and whose moves wait for it."""
    if "/server-" in cause:
        return target, Against.TARGET
    if "/client-" in cause:
        return source, Against.SOURCE
    return f"{source} or {target}", Against.PAIR


@contextmanager
def telling(host: str, act: str) -> Iterator[None]:
    """Turn a libvirt error into a BackendError that says which host and what was tried."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise BackendError(host, act, sentence(error), *numbers(error)) from error
