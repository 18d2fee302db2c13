"""The fingerprint of a model: what a file that belongs to a model names it by."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .native_file import LAYOUT, Weights

_SAMPLE = 2048
"""Bytes from each end of every tensor that go into the fingerprint."""


def fingerprint(weights: Weights, **facts: Any) -> str:
    """A SHA-256, in hexadecimal digits: equal for equal weights in the same layout, whatever the file is called.

    It covers the config, the type and layout of the weights, the checksum of what they were made from, and of each
    tensor its name, type and shape and the first and last 2 KiB.

    Args:
        weights: of the model.
        facts: what else has to be equal, as JSON.
    """
    stated = {
        "config": weights.config.to_dict(),
        "weights": [weights.dtype, LAYOUT, weights.metadata.get("source_sha256")],
        "tensors": [[name, entry.dtype, entry.shape] for name, entry in weights.entries.items()],
        **facts,
    }
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name in weights.entries:
        octets = weights.bytes_of(name)
        digest.update(octets[:_SAMPLE].data)
        digest.update(octets[-_SAMPLE:].data)
    return digest.hexdigest()
