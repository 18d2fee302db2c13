"""Bytes as tokens: whatever they are, the tokens spell them."""

import pytest
from folders import TOKENIZER
from hypothesis import given
from hypothesis import strategies as st

from nbgpt.compression.byte_tokens import encode_bytes
from nbgpt.tokenizer import ByteBPE

N_VOCAB = TOKENIZER.n_vocab


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.lists(st.sampled_from([b"the ", b"\xe9", b"\xed\xa0\x80", b"\xf0\x9f"])).map(b"".join)
)
def test_any_bytes(data):
    assert TOKENIZER.decode_bytes(encode_bytes(TOKENIZER, data, N_VOCAB)) == data


@pytest.mark.parametrize("text", ["", "it was a dark and stormy night", "Naïve 😀 日本", "<|endoftext|> is text"])
def test_text_is_encoded_as_text(text):
    assert encode_bytes(TOKENIZER, text.encode(), N_VOCAB) == TOKENIZER.encode(text)


def test_only_what_is_no_utf8_is_spelled_byte_by_byte():
    ids = encode_bytes(TOKENIZER, b"it was \xff\xfe a dark night", N_VOCAB)
    left, right = TOKENIZER.encode("it was "), TOKENIZER.encode(" a dark night")
    assert (ids[: len(left)], ids[len(left) + 2 :]) == (left, right)
    assert [TOKENIZER.decode_bytes([i]) for i in ids[len(left) :][:2]] == [b"\xff", b"\xfe"]


def test_a_vocabulary_that_changes_the_text_spells_it():
    """One whose texts begin with a space, which is not in the data."""
    stored = TOKENIZER.to_bytes()
    tokenizer = ByteBPE.from_bytes(stored)
    tokenizer.prefix_space = True
    assert tokenizer.decode_bytes(tokenizer.encode("dark")) == b" dark"
    assert tokenizer.decode_bytes(encode_bytes(tokenizer, b"dark", N_VOCAB)) == b"dark"


def test_a_vocabulary_without_all_bytes_is_refused():
    with pytest.raises(ValueError, match=r"bytes have no token in this model's vocabulary, the first is 0x"):
        encode_bytes(TOKENIZER, b"a", 100)
