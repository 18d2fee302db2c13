"""Reads protobuf messages without their schemas: https://protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

import struct

from .base import FormatError
from .leveldb import varint

_AGAIN = "download it again"

Fields = dict[int, list["int | bytes"]]  # a message: the number of a field -> its values


def fields(message: bytes) -> Fields:
    """The fields of a message by their wire types. Raises FormatError."""
    found: Fields = {}
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = varint(message, at)
            case 1 | 5 as wire:
                size = 8 if wire == 1 else 4
                value, at = int.from_bytes(message[at : at + size], "little"), at + size
            case 2:
                size, at = varint(message, at)
                value, at = message[at : at + size], at + size
            case wire:
                raise FormatError(f"protobuf field has wire type {wire}; {_AGAIN}")
        if at > len(message):
            raise FormatError(f"protobuf message ends inside a field; {_AGAIN}")
        found.setdefault(tag >> 3, []).append(value)
    return found


def number(message: Fields, field: int, default: int = 0) -> int:
    """The last value of a number."""
    value = message.get(field, [default])[-1]
    if not isinstance(value, int):
        raise FormatError(f"protobuf field {field} is not a number; {_AGAIN}")
    return value


def real(message: Fields, field: int) -> float:
    """The last value of a float32, 0 if there is none."""
    value: float = struct.unpack("<f", (number(message, field) & 0xFFFFFFFF).to_bytes(4, "little"))[0]
    return value


def messages(message: Fields, field: int) -> list[bytes]:
    """The values of a field that holds messages, texts or bytes."""
    values = message.get(field, [])
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(values):
        raise FormatError(f"protobuf field {field} is not a message; {_AGAIN}")
    return found
