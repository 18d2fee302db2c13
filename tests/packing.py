"""Arrays of the explain page, read by other means than those of its script."""

import base64
import zlib

import numpy as np


def unpacked(packed):
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(data, packed["dtype"]).reshape(packed["shape"])
