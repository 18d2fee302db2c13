"""A range coder: symbols and their whole-number frequencies <-> bytes, within a fraction of a bit of the entropy.

The coder holds an interval of whole numbers, `low` and `size`. A symbol cuts it down to the symbol's share of it; bytes
that can no longer change leave at the top. Source: Martin 1979, "Range encoding: an algorithm for removing redundancy
from a digitised message", with the carry added to bytes that have left.

Why not a library: what Python calls of constriction (0.5) takes floats and rounds them itself, in floating point, in a
way that no document promises to stay the same; here the frequencies are integers already.
"""

from __future__ import annotations

_BITS = 64
_LEAST = 1 << (_BITS - 8)
"""The interval's least size between symbols. Frequencies sum to far less, so that their shares are hardly rounded."""


class Encoder:
    """Symbols in, bytes out."""

    def __init__(self) -> None:
        self._low, self._size, self._out = 0, 1 << _BITS, bytearray()

    def push(self, start: int, frequency: int, total: int) -> None:
        """A symbol of this frequency; start is the sum of the frequencies before it, total that of all, to 2^48."""
        share = self._size // total
        self._low += share * start
        self._size = share * frequency
        while self._size < _LEAST:
            self._shift()
            self._size <<= 8

    def finish(self) -> bytes:
        """All bytes. The last is the first one that keeps the number within the interval with zeros behind it."""
        self._low += _LEAST - 1
        self._shift()
        return bytes(self._out)

    def _shift(self) -> None:
        """Move the top byte of low to the output; add a carry to what stands there."""
        if self._low >> _BITS:
            place = len(self._out) - 1
            while self._out[place] == 0xFF:
                self._out[place] = 0
                place -= 1
            self._out[place] += 1
        self._out.append(self._low >> (_BITS - 8) & 0xFF)
        self._low = self._low << 8 & ((1 << _BITS) - 1)


class Decoder:
    """Bytes in, symbols out: `target` says where the next symbol lies, `take` tells which one that was."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._size = data, _BITS // 8, 1 << _BITS
        self._offset = int.from_bytes(data[: self._place].ljust(self._place, b"\0"), "big")  # from the interval's low

    @property
    def is_astray(self) -> bool:
        """True if no `Encoder` has written what was read: its bytes have long ended, or no symbol's share has it."""
        return self._place >= len(self._data) + _BITS // 8 or self._offset >= self._size

    def target(self, total: int) -> int:
        """A number below total: the next symbol is the last one with start <= it."""
        return min(self._offset // (self._size // total), total - 1)

    def take(self, start: int, frequency: int, total: int) -> None:
        """Remove a symbol, as `Encoder.push` added it."""
        share = self._size // total
        self._offset -= share * start
        self._size = share * frequency
        while self._size < _LEAST:
            following = self._data[self._place] if self._place < len(self._data) else 0
            self._offset, self._size, self._place = self._offset << 8 | following, self._size << 8, self._place + 1
