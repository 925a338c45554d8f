"""libvirt's errors as ours: one sentence, with code and domain for the record."""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from balancerd.ports import BackendError


def sentence(error: libvirt.libvirtError) -> str:
    """The error's text on one line, without the name of the C function in front."""
    text = error.get_error_message() or str(error) or "libvirt gave no reason"
    return " ".join(str(text).split())[:500]


def code(error: libvirt.libvirtError) -> int:
    """The error's number, 0 where there is none."""
    return int(error.get_error_code() or 0)


@contextmanager
def telling(host: str, act: str) -> Iterator[None]:
    """Turn a libvirt error into a BackendError that says which host and what was tried."""
    try:
        yield
    except libvirt.libvirtError as error:
        domain = int(error.get_error_domain() or 0)
        raise BackendError(host, act, sentence(error), code(error), domain) from error
