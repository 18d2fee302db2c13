"""CRC-32C, the checksum of TensorFlow's checkpoints, at the speed of NumPy's XOR.

Polynomial: Castagnoli's, 0x1EDC6F41, bits reflected (RFC 3720, appendix B.4). Method: Russell 2024, "Chorba: A novel
CRC32 implementation", arXiv:2412.16398. A message is a polynomial over GF(2), its first bit the highest power, and only
its remainder modulo the generator counts. The generator divides x^6777 + x^484 + x^100 + 1, so a bit may be cleared if
the bits 6777 - 484, 6777 - 100 and 6777 places later are flipped. Over GF(2) the square of f(x) is f(x^2): three
squarings turn places into bytes, six into words of 64 bits, and whole arrays are folded onto the items behind them.
"""

from __future__ import annotations

import numpy as np

_GENERATOR = 0x82F63B78  # reflected, without its highest power
_DEGREE = 6777
_SHIFTS = (6777 - 484, 6777 - 100, 6777)
_PIECE = 1 << 18  # bytes folded at a time: they stay in the cache of one core


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_GENERATOR if byte & 1 else 0)
    return byte


_TABLE = [_table_entry(byte) for byte in range(256)]


def crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """CRC-32C of the bytes of a contiguous buffer, from 0 to 2**32 - 1."""
    octets = np.frombuffer(data, np.uint8)
    if octets.size < 8:
        return _bytewise(octets.tobytes(), 0xFFFFFFFF) ^ 0xFFFFFFFF
    whole = octets.size // 8 * 8
    rest = np.empty(0, np.uint64)
    for start in range(0, whole, _PIECE):
        stream = np.concatenate((rest, octets[start : min(start + _PIECE, whole)].view(np.uint64)))
        if start == 0:
            stream.view(np.uint8)[:4] ^= 0xFF  # the register starts as ones: the same as flipping the first 32 bits
        rest = _fold(stream)
    tail = _fold(np.concatenate((rest.view(np.uint8), octets[whole:])))
    return _bytewise(tail.tobytes(), 0) ^ 0xFFFFFFFF


def unmask(masked: int) -> int:
    """The CRC that belongs to the masked form that LevelDB and TensorFlow store (leveldb/util/crc32c.h)."""
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _fold(stream: np.ndarray) -> np.ndarray:
    """Fold a stream of bytes or words from the front, in place; the last `_DEGREE` items are what remains."""
    while (excess := len(stream) - _DEGREE) > 0:
        head = stream[: min(_SHIFTS[0], excess)]
        for shift in _SHIFTS:
            stream[shift : shift + len(head)] ^= head
        stream = stream[len(head) :]
    return stream


def _bytewise(octets: bytes, register: int) -> int:
    for octet in octets:
        register = _TABLE[(register ^ octet) & 0xFF] ^ register >> 8
    return register
