"""The range coder, against one that keeps all of its digits, and against the entropy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbgpt.compression.coder import Decoder, Encoder


def encode(counts, symbols) -> bytes:
    """counts: of every symbol; the same all along."""
    encoder = Encoder()
    for symbol in symbols:
        encoder.push(sum(counts[:symbol]), counts[symbol], sum(counts))
    return encoder.finish()


def decode(counts, data, n) -> list[int]:
    decoder, symbols = Decoder(data), []
    for _ in range(n):
        target = decoder.target(sum(counts))
        symbol = next(i for i in range(len(counts)) if target < sum(counts[: i + 1]))
        decoder.take(sum(counts[:symbol]), counts[symbol], sum(counts))
        if decoder.is_astray:
            break
        symbols.append(symbol)
    return symbols


def encode_with_all_digits(counts, symbols) -> bytes:
    """The same interval as a number of unlimited size: nothing leaves, so there is no carry."""
    low, size, n_bytes = 0, 1 << 64, 8
    for symbol in symbols:
        share = size // sum(counts)
        low, size = low + share * sum(counts[:symbol]), share * counts[symbol]
        while size < 1 << 56:
            low, size, n_bytes = low << 8, size << 8, n_bytes + 1
    top = -(-low >> 56) if low % (1 << 56) == 0 else (low >> 56) + 1
    assert low <= top << 56 < low + size
    return top.to_bytes(n_bytes - 7, "big")


@st.composite
def messages(draw):
    counts = draw(st.lists(st.integers(1, 1 << draw(st.integers(1, 42))), min_size=1, max_size=6))
    return counts, draw(st.lists(st.integers(0, len(counts) - 1), max_size=40))


@given(messages())
def test_any_message(message):
    counts, symbols = message
    data = encode(counts, symbols)
    assert data == encode_with_all_digits(counts, symbols)
    assert decode(counts, data, len(symbols)) == symbols
    entropy = sum(math.log2(sum(counts) / counts[symbol]) for symbol in symbols)
    assert 8 * len(data) <= entropy * 1.001 + 16


@pytest.mark.parametrize("counts", [[1, 65535], [65535, 1], [1, 1, 254], [(1 << 40) - 3, 1, 2], [1]])
def test_long_messages_with_many_carries(rng, counts):
    p = np.array(counts) / sum(counts)
    symbols = rng.choice(len(counts), 3000, p=0.5 * p + 0.5 / len(counts)).tolist()
    data = encode(counts, symbols)
    assert data == encode_with_all_digits(counts, symbols)
    assert decode(counts, data, len(symbols)) == symbols


@given(st.binary(max_size=30))
def test_no_bytes_decode_without_an_end(data):
    """A symbol takes at least a bit here; a text that claims to be longer than its bytes ends with them."""
    assert len(decode([2, 1, 1], data, 10_000)) <= 8 * len(data) + 8
