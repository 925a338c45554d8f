"""Tables that are mostly numbers, as bytes and back: what the ledger keeps in its BLOB columns.

A packed table is one zlib stream: a line of JSON, which has what is no number and says which
columns follow, and then the columns as they are in memory, to the last bit. Of numbers of eight
bytes all first bytes are written first, then all second ones: much of that compresses well.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancerd.core.files.codec import to_json
from balancerd.ports import LedgerError

_COMPRESSION = 1  # a third larger than the best, at a fifth of its time

Column = NDArray[Any]


def compress(text: bytes) -> bytes:
    """The bytes, compressed; several such pieces may be put one behind the other."""
    return zlib.compress(text, _COMPRESSION)


def decompress(blob: bytes) -> bytes:
    """What the pieces of `compress` held; LedgerError where they are not its work."""
    found = []
    while blob:
        piece = zlib.decompressobj()
        try:
            found.append(piece.decompress(blob))
        except zlib.error as error:
            raise damaged(error) from None
        if not piece.eof:
            raise damaged("it ends too soon")
        blob = piece.unused_data
    return b"".join(found)


def damaged(what: object) -> LedgerError:
    """The error of a document that makes no sense."""
    return LedgerError(f"a document in the ledger is damaged: {what}")


def pack(head: Any, columns: Mapping[str, Column]) -> bytes:
    """Anything that JSON can hold, and columns of numbers or truths beside it."""
    layout = [[name, column.dtype.str, len(column)] for name, column in columns.items()]
    line = to_json({"head": head, "columns": layout}).encode()
    return compress(b"\n".join((line, b"".join(map(_bytes, columns.values())))))


def unpack(blob: bytes) -> tuple[Any, dict[str, Column]]:
    """What `pack` was given; LedgerError where the blob is not its work."""
    line, _, body = decompress(blob).partition(b"\n")
    try:
        document = json.loads(line)
        columns, begin = {}, 0
        for name, kind, count in document["columns"]:
            columns[name], begin = _column(body, begin, np.dtype(kind), count)
        return document["head"], columns
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(error) from None


def _bytes(column: Column) -> bytes:
    size = column.dtype.itemsize
    plain = np.ascontiguousarray(column)
    return plain.tobytes() if size == 1 else plain.view(np.uint8).reshape(-1, size).T.tobytes()


def _column(body: bytes, begin: int, kind: np.dtype[Any], count: int) -> tuple[Column, int]:
    """One column, and where the next one begins."""
    size = kind.itemsize
    turned = np.frombuffer(body, np.uint8, count * size, begin).reshape(size, count)
    return np.ascontiguousarray(turned.T).reshape(-1).view(kind), begin + count * size
