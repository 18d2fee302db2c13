import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.paths import shipped
from nbgpt.tokenizer import ByteBPE, Tokenizer, from_bytes

FIXTURE = Path(__file__).parent / "fixtures" / "tokenizer"  # trained by Hugging Face's tokenizers: make_tokenizer.py
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
GPT2 = ByteBPE.shipped()
SMALL = ByteBPE.from_files(FIXTURE / "vocab.json", FIXTURE / "merges.txt")
BOTH = pytest.mark.parametrize("tokenizer", [GPT2, SMALL], ids=["gpt2", "small"])


def spelling() -> dict[int, str]:
    """OpenAI's bytes_to_unicode, by its rule: a byte that prints stands for itself, others follow from U+0100 on."""
    table, n = {}, 0
    for byte in range(256):
        if chr(byte).isprintable() and chr(byte) != " ":
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + n)
            n += 1
    return table


def vocabulary_of(merges: str) -> dict[str, int]:
    """OpenAI's encoder.json, one token at a time: printable bytes, the other bytes, merges, the end of text."""
    table = spelling()
    names = [table[byte] for byte in range(256) if table[byte] == chr(byte)]
    names += [table[byte] for byte in range(256) if table[byte] != chr(byte)]
    for line in merges.splitlines():
        if not line.startswith("#version"):
            left, right = line.split(" ")
            names.append(left + right)
    return {name: i for i, name in enumerate([*names, "<|endoftext|>"])}


def write(folder: Path, vocabulary: object, merges: str) -> tuple[Path, Path]:
    files = folder / "vocab.json", folder / "merges.txt"
    files[0].write_text(vocabulary if isinstance(vocabulary, str) else json.dumps(vocabulary))
    files[1].write_text(merges)
    return files


# ---- GPT-2's own vocabulary


def test_the_shipped_merges_are_openais():
    data = shipped("vocab.bpe").read_bytes()
    assert len(data) == 456_318
    assert hashlib.sha256(data).hexdigest() == "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def test_every_token_of_the_shipped_vocabulary():
    byte_of = {character: byte for byte, character in spelling().items()}
    vocabulary = vocabulary_of(shipped("vocab.bpe").read_text("utf-8"))
    assert (GPT2.n_vocab, GPT2.eos_id, GPT2.special) == (50257, 50256, {b"<|endoftext|>": 50256})
    assert len(vocabulary) == 50257
    assert GPT2.tokens == [bytes(byte_of[character] for character in name) for name in vocabulary]


def test_the_shipped_ranks_are_those_of_the_merges():
    """If not: `Path("weights/vocab.ranks").write_bytes(ByteBPE.from_merges(...).to_bytes())` makes them again."""
    merges = ByteBPE.from_merges(shipped("vocab.bpe").read_bytes())
    assert shipped("vocab.ranks").read_bytes() == merges.to_bytes()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("GPT2 inference runtime in C++ and CUDA", [38, 11571, 17, 32278, 19124, 287, 327, 4880, 290, 29369, 5631]),
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
        ("naïve café 😀", [2616, 38776, 40304, 30325, 222]),
        ("  hello   world\n\n\tfoo ", [220, 23748, 220, 220, 995, 628, 197, 21943, 220]),
        ("don't DON'T", [9099, 470, 23917, 6, 51]),
        ("Hello world, it's 2026!\n\n  ok", [15496, 995, 11, 340, 338, 1160, 2075, 0, 628, 220, 12876]),
        ("", []),
    ],
)
def test_published_ids(text: str, ids: list[int]):
    assert GPT2.encode(text) == ids
    assert GPT2.decode(ids) == text


def test_an_emoji_streams_as_a_whole():
    stream = GPT2.stream()
    assert [stream.push(i) for i in (2616, 38776, 40304, 30325, 222)] == ["na", "ïve", " café", " ", "😀"]
    assert stream.finish() == ""


def test_special_tokens_are_hidden_unless_asked_for():
    assert GPT2.decode([464, 50256]) == "The"
    assert GPT2.decode([464, 50256], skip_special=False) == "The<|endoftext|>"
    shown, hidden = GPT2.stream(hidden=()), GPT2.stream()
    assert [shown.push(i) for i in (464, 50256)] == ["The", "<|endoftext|>"]
    assert [hidden.push(i) for i in (464, 50256)] == ["The", ""]


@pytest.mark.parametrize("i", [50257, 50303, -1])
def test_an_id_without_a_token(i: int):
    with pytest.raises(ValueError, match=f"token id {i} is not in the vocabulary; its ids end at 50256"):
        GPT2.decode([464, i])
    with pytest.raises(ValueError, match=f"token id {i} "):
        GPT2.stream().push(i)
    assert GPT2.bytes_of(i) == b""


def test_the_bytes_of_a_token():
    assert [GPT2.bytes_of(i) for i in (464, 3290, 50256)] == [b"The", b" dog", b"<|endoftext|>"]
    assert GPT2.bytes_of(*GPT2.encode("é")[:1]) == "é".encode()


def test_ids_may_be_numpys():
    assert GPT2.decode(np.array([464, 3290], np.uint16)) == "The dog"


def test_lone_surrogates_are_replaced():
    assert GPT2.decode(GPT2.encode("a\ud800b\udcff")) == "a\ufffdb\ufffd"


def test_long_runs_of_one_character():
    for text in (" " * 100_000 + "x", "a" * 100_000, "\n" * 100_000):
        assert GPT2.decode(GPT2.encode(text)) == text


# ---- properties


@BOTH
@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_decoding_undoes_encoding(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert not {*ids} & {*tokenizer.special.values()}


def whole(tokenizer: Tokenizer) -> Tokenizer:
    """One that knows all ranks, as after many texts."""
    tokenizer = from_bytes(tokenizer.to_bytes())
    tokenizer.encode("x" * 10_000)
    return tokenizer


WHOLE = {len(tokenizer.tokens): whole(tokenizer) for tokenizer in (GPT2, SMALL)}
WORDS = st.text(st.sampled_from("The in's\n 語é😀\ud800"), max_size=60)


@BOTH
@settings(max_examples=200, deadline=None)
@given(text=TEXT | WORDS)
def test_a_first_text_has_the_ids_that_all_ranks_give(tokenizer: Tokenizer, text: str):
    assert from_bytes(tokenizer.to_bytes()).encode(text) == WHOLE[tokenizer.n_vocab].encode(text)


def test_many_texts():
    tokenizer = from_bytes(GPT2.to_bytes())
    text = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. " * 5
    assert {tuple(tokenizer.encode(text)) for _ in range(10)} == {tuple(GPT2.encode(text))}


@settings(max_examples=200, deadline=None)
@given(text=TEXT.filter(lambda text: "\ufffd" not in text))
def test_a_stream_never_shows_half_a_character(text: str):
    stream = GPT2.stream()
    pieces = [stream.push(i) for i in GPT2.encode(text)]
    assert "".join(pieces) == text
    assert stream.finish() == ""


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 50256) | st.integers(94, 255), max_size=30))
def test_a_stream_of_any_ids_is_their_text(ids: list[int]):
    stream = GPT2.stream()
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.finish() == GPT2.decode(ids)
    shown = GPT2.stream(hidden=())
    assert "".join([shown.push(i) for i in ids]) + shown.finish() == GPT2.decode(ids, skip_special=False)


@settings(max_examples=100, deadline=None)
@given(text=st.text("the in an\n'sé😀", max_size=40))
def test_merging_pair_by_pair_gives_the_same(text: str):
    """The reference: OpenAI's algorithm on the words that the pattern cuts, with the pairs of merges.txt."""
    import regex

    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    lines = (FIXTURE / "merges.txt").read_text("utf-8").splitlines()[1:]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
    vocabulary, table = json.loads((FIXTURE / "vocab.json").read_text("utf-8")), spelling()
    ids = []
    for word in regex.findall(pattern, text):
        parts = [table[byte] for byte in word.encode()]
        while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
            pair = min(pairs, key=ranks.__getitem__)
            at = next(i for i in range(len(parts)) if tuple(parts[i : i + 2]) == pair)
            parts[at : at + 2] = ["".join(pair)]
        ids += [vocabulary[part] for part in parts]
    assert SMALL.encode(text) == ids


# ---- a model's own vocabulary


@pytest.mark.parametrize(
    "case", json.loads((FIXTURE / "expected.json").read_text()), ids=lambda case: case["text"][:12]
)
def test_a_vocabulary_that_is_not_in_merge_order(case: dict):
    assert SMALL.encode(case["text"]) == case["ids"]
    assert SMALL.decode(case["ids"]) == case["text"]


def test_tokens_that_no_merge_makes_are_special():
    assert SMALL.n_vocab == 1000
    assert SMALL.special == {b"<s>": 0, b"<|pad|>": 1, b"<|endoftext|>": 2}
    assert SMALL.eos_id == 2
    assert SMALL.decode([1], skip_special=False) == "<|pad|>"


def test_files_with_gpt2s_vocabulary_are_the_shipped_one(tmp_path: Path):
    merges = shipped("vocab.bpe").read_text("utf-8")
    vocabulary = vocabulary_of(merges)
    assert ByteBPE.from_files(*write(tmp_path, vocabulary, merges)) == GPT2
    padded = ByteBPE.from_files(*write(tmp_path, vocabulary | {"<|pad|>": 50257}, merges.replace("\n", "\r\n")))
    assert padded != GPT2
    assert padded.n_vocab == 50258
    assert padded.eos_id == 50256
    assert padded.encode("The dog<|pad|>") == GPT2.encode("The dog<|pad|>")


def test_merges_as_text_without_a_version_line():
    merges = shipped("vocab.bpe").read_text("utf-8").partition("\n")[2]
    assert ByteBPE.from_merges(merges) == GPT2
    longer = ByteBPE.from_merges(merges, special=["<|endoftext|>", "<|user|>"])
    assert longer.special == {b"<|endoftext|>": 50256, b"<|user|>": 50257}


def test_no_merges_at_all():
    tokenizer = ByteBPE.from_merges("#version: 0.2\n")
    assert tokenizer.n_vocab == 257
    assert tokenizer.encode("!ab") == [0, 64, 65]


def test_special_tokens_may_have_any_characters(tmp_path: Path):
    vocabulary = vocabulary_of("") | {"<a b 語>": 257}
    assert ByteBPE.from_files(*write(tmp_path, vocabulary, "")).decode([257], False) == "<a b 語>"


def test_another_end_of_text(tmp_path: Path):
    vocabulary = vocabulary_of("")
    vocabulary["</s>"] = vocabulary.pop("<|endoftext|>")
    assert ByteBPE.from_files(*write(tmp_path, vocabulary, "")).eos_id == 256


BYTES = vocabulary_of("")
ABC = {"ab": 257, "bc": 258, "abc": 259}


@pytest.mark.parametrize(
    ("vocabulary", "merges", "message"),
    [
        ("{", "", r"vocab\.json: not valid JSON"),
        ("[" * 100_000, "", r"vocab\.json: JSON nested"),
        ([], "", r"vocab\.json: expected a JSON object"),
        ({"a": "b"}, "", r"vocab\.json: not an object from tokens to ids"),
        ({"a": True}, "", r"vocab\.json: not an object from tokens to ids"),
        ({"a": -1}, "", r"vocab\.json: not an object from tokens to ids"),
        (BYTES | {"x": 257, "y": 257}, "", "two tokens have one id"),
        (BYTES | {"<|pad|>": 1 << 40}, "", "258 tokens have ids up to 1099511627776"),
        ({"a": 0, "<|endoftext|>": 1}, "", "no id for b'!'"),
        (BYTES, "a b", r"vocab\.json, merges.txt: .*no id for b'ab', which the merges make"),
        (BYTES | {"ab": 257}, "a b c", "a line is not two tokens"),
        (BYTES | {"ab": 257}, "ab", "a line is not two tokens"),
        (BYTES | {"ab": 257}, "a b\n\na b", "a line is not two tokens"),
        (BYTES | {"ab": 257}, " ab", "a line is not two tokens"),
        (BYTES | {"ab": 257}, "ab ", "a line is not two tokens"),
        (BYTES | {"▁a": 257}, "▁ a", "a character stands for no byte"),
        (BYTES | {"a😀": 257}, "a 😀", "a character stands for no byte"),
        (BYTES | ABC, "a b\nb c\na bc", r"merges\.txt: merge 3 makes b'abc' in a way that ranks do not"),
        (BYTES | {"abc": 257}, "a bc", r"merge 1 makes b'abc' in a way"),
        (BYTES | {"ab": 257}, "a b\na b", r"merge 1 makes b'ab' in a way"),
    ],
)
def test_another_kind_of_tokenizer(tmp_path: Path, vocabulary: object, merges: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        ByteBPE.from_files(*write(tmp_path, vocabulary, merges))
    assert "\n" not in str(caught.value)


def test_merges_in_another_encoding(tmp_path: Path):
    vocab, merges = write(tmp_path, BYTES, "")
    merges.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"merges\.txt: "):
        ByteBPE.from_files(vocab, merges)


# ---- stored in a model file


@BOTH
def test_a_stored_vocabulary_is_the_same(tokenizer: Tokenizer):
    restored = from_bytes(tokenizer.to_bytes())
    assert restored == tokenizer
    assert restored.fingerprint == tokenizer.fingerprint
    assert restored.encode("The Time Traveller") == tokenizer.encode("The Time Traveller")
    assert (restored.eos_id, restored.special) == (tokenizer.eos_id, tokenizer.special)


def test_different_vocabularies_differ():
    assert GPT2 != SMALL
    assert GPT2.fingerprint != SMALL.fingerprint
    assert GPT2 != "gpt2"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with b''"),
        (b"nbgptbpe", "two counts"),
        (b"x" + SMALL.to_bytes()[1:], "begins with b'xbgptbpe'"),
        (SMALL.to_bytes()[:-1], "ends at byte"),
        (SMALL.to_bytes() + b"x", "ends at byte"),
        (SMALL.to_bytes()[:2000], "cannot hold 1000 tokens"),
        (b"nbgptbpe" + b"\xff" * 8, "cannot hold 4294967295 tokens"),
        (b"nbgptbpe" + bytes(8), "cannot hold 0 tokens"),
        (b"nbgptbpe" + b"\1\0\0\0" * 2 + b"\1\0\0\0" * 2 + b"a", "cannot hold"),  # ranks a token that is not there
        (b"nbgptbpe" + b"\1\0\0\0" * 2 + b"\1\0\0\0" + bytes(4) + b"a", "bytes have no token"),
    ],
)
def test_a_damaged_vocabulary(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        from_bytes(data)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SMALL.to_bytes()) - 1), st.integers(0, 255), st.integers(0, len(SMALL.to_bytes())))
def test_mutated_bytes_are_a_vocabulary_or_a_valueerror(place: int, octet: int, length: int):
    data = bytearray(SMALL.to_bytes())
    data[place] = octet
    for mutated in (bytes(data), bytes(data[:length])):
        try:
            tokenizer = from_bytes(mutated)
        except ValueError:
            continue
        assert tokenizer.decode(tokenizer.encode("The Time Traveller")) == "The Time Traveller"
