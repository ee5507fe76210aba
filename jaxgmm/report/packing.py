"""Arrays as short texts, for `assets/decode.js`.

A text is base64 of zlib of a line of JSON, `[[name, type, length], …]`, and the bytes of the arrays. Numbers of several
bytes are stored byte plane by byte plane, which compresses better: neighbours have the same high bytes.
"""

import base64
import json
import zlib
from collections.abc import Mapping

import numpy as np

# Higher levels take twice the time for 1% less.
_LEVEL = 6


def packed(arrays: Mapping[str, np.ndarray]) -> str:
    """Arrays as one text in ASCII."""
    heads, bodies = [], []
    for name, given in arrays.items():
        values = np.ascontiguousarray(given).ravel()
        values = values.astype(values.dtype.newbyteorder("<"))
        heads.append([name, values.dtype.kind + str(values.dtype.itemsize), values.size])
        bodies.append(values.view(np.uint8).reshape(values.size, values.dtype.itemsize).T.tobytes())
    head = json.dumps(heads, separators=(",", ":")).encode() + b"\n"
    return base64.b64encode(zlib.compress(head + b"".join(bodies), _LEVEL)).decode()


def unpacked(text: str) -> dict[str, np.ndarray]:
    """The arrays of such a text, as `assets/decode.js` finds them: one axis each."""
    content = zlib.decompress(base64.b64decode(text))
    head, _, body = content.partition(b"\n")
    arrays, at = {}, 0
    for name, kind, size in json.loads(head):
        dtype = np.dtype(f"<{kind}")
        planes = np.frombuffer(body, np.uint8, size * dtype.itemsize, at).reshape(dtype.itemsize, size)
        arrays[name] = np.ascontiguousarray(planes.T).view(dtype).ravel()
        at += size * dtype.itemsize
    return arrays
