"""Arrays in few characters, as files of results have the test rows."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 10_000_000
_KINDS = ("<u2", "<f4")


def pack(values: NDArray) -> str:
    """Write an array of class ids or scores in few characters.

    Example:
        >>> unpack(pack(np.array([0, 3, 1]))).tolist()
        [0, 3, 1]
    """
    kind = "<u2" if np.issubdtype(values.dtype, np.integer) else "<f4"
    return f"{kind} {base64.b64encode(zlib.compress(values.astype(kind).tobytes(), 9)).decode()}"


def unpack(text: str, most: int = MOST_ROWS) -> NDArray:
    """Read what `pack` wrote. `[rows]`.

    Args:
        text: the characters.
        most: no more rows than these are read, whatever the text would become.

    Raises:
        ValueError: it is something else, was cut off, or has more rows.
    """
    kind, _, content = text.partition(" ")
    if kind not in _KINDS:
        raise ValueError(f"{kind[:10]!r} is not one of {', '.join(_KINDS)}")
    size, reader = most * np.dtype(kind).itemsize, zlib.decompressobj()
    try:
        # One byte more tells that there are too many.
        data = reader.decompress(base64.b64decode(content, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(f"the content is damaged: {error}") from error
    if len(data) > size or not reader.eof:
        raise ValueError(f"the content was cut off, or has more than {most} rows")
    return np.frombuffer(data, dtype=kind)
