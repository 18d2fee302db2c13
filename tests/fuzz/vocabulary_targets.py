"""Targets that read vocabularies, and texts by them."""

from __future__ import annotations

import copy
import functools
from typing import Any

from harness import file_of, parts_of, strict_target, target


@target
def tokenizer_json(data: bytes) -> None:
    from nbgpt.formats.declared import Declared
    from nbgpt.formats.tokenizer_kinds import read_json

    read_json({"tokenizer": file_of(data, "tokenizer.json")}, Declared(), 1000).encode("a b")


@target
def vocab_and_merges(data: bytes) -> None:
    """Two files, and a tokenizer_config.json if there is a third part."""
    from nbgpt.formats.declared import read_declared
    from nbgpt.formats.tokenizer_kinds import read_vocab_and_merges

    vocab, merges, config = parts_of(data, 3)
    files = {"vocab": file_of(vocab, "vocab.json"), "merges": file_of(merges, "merges.txt")}
    declared = read_declared({"tokenizer_config": file_of(config or b"{}", "tokenizer_config.json")})
    read_vocab_and_merges(files, declared, 1000).encode("a b")


@target
def wordpiece(data: bytes) -> None:
    """vocab.txt, and a tokenizer_config.json if there is a second part."""
    from nbgpt.formats.declared import read_declared
    from nbgpt.formats.tokenizer_kinds import read_wordpiece

    vocab, config = parts_of(data, 2)
    declared = read_declared({"tokenizer_config": file_of(config or b"{}", "tokenizer_config.json")})
    read_wordpiece({"wordpiece": file_of(vocab, "vocab.txt")}, declared, 1000).encode("a b")


@target
def sentencepiece(data: bytes) -> None:
    from nbgpt.formats.declared import Declared
    from nbgpt.formats.tokenizer_kinds import read_sentencepiece

    read_sentencepiece({"sentencepiece": file_of(data, "spiece.model")}, Declared(), 1000).encode("a b")


@target
def declarations(data: bytes) -> None:
    """The small files beside a vocabulary, one after the other, and that vocabulary with them."""
    from nbgpt.formats.declared import read_declared
    from nbgpt.formats.tokenizer_kinds import read_json

    kinds = ("tokenizer_config", "special", "added", "config")
    files = {kind: file_of(part, kind) for kind, part in zip(kinds, data.split(b"\0", 3), strict=False)}
    declared = read_declared(files)
    vocabulary = file_of(b'{"model": {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": []}}', "tokenizer.json")
    tokenizer = read_json({"tokenizer": vocabulary}, declared, 10)
    for role in declared.roles:
        declared.ids_of(role, tokenizer)
    tokenizer.encode_prompt("a</s>b", special=True)


@target
def stored_vocabulary(data: bytes) -> None:
    from nbgpt.tokenizer import from_bytes

    tokenizer = from_bytes(data)
    tokenizer.decode(tokenizer.encode("a b"))


@functools.cache
def _vocabularies() -> list[Any]:
    """GPT-2's own; a small one whose ids are not in the order of its merges; the same with words of every kind."""
    import json

    from folders import TOKENIZER, VOCABULARY

    from nbgpt.tokenizer import AddedToken, ByteBPE
    from nbgpt.tokenizer.merges import read_merges

    spelled = json.loads(VOCABULARY["vocab"].read_bytes())
    n = max(spelled.values()) + 1
    words = [
        AddedToken(n, "ab"),
        AddedToken(n + 1, "abc", special=False),
        AddedToken(n + 2, "é!", special=False, lstrip=True, rstrip=True),
        AddedToken(n + 3, "a", special=False, single_word=True),
        AddedToken(n + 4, "  ", special=False, rstrip=True),
    ]
    pairs = read_merges(VOCABULARY["merges"].read_bytes())
    known = [ByteBPE.shipped(), TOKENIZER, ByteBPE.from_spellings(spelled, pairs, words, prefix_space=True)]
    for one in known:
        one.encode("a " * 2000)  # now it has read all ranks, and is quick
    return known


@strict_target
def tokenizer(data: bytes) -> None:
    """Texts come back as they were, but for spaces that belong to words; and token by token, from any token on.

    The first byte chooses the vocabulary, whether special tokens are read by their names, and whether the ids are also
    found as for a program's first text, which takes long.
    """
    number, text = (data or b"\0")[0], data[1:].decode(errors="replace")
    known, special = _vocabularies()[number % 3], number >= 128
    ids = known.encode(text, special)
    whole = known.decode(ids, skip_special=False)
    assert whole == text or (known.prefix_space and "".join(whole.split()) == "".join(text.split()))
    stream = known.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == known.decode(ids)
    assert b"".join(known.tokens[i] for i in ids) == known.decode_bytes(ids)
    cut = len(ids) // 2
    before = known.decode(ids[:cut])
    if not before.endswith("\ufffd"):
        assert before + known.decode_after(ids[:cut], ids[cut:]) == known.decode(ids)
    if number & 64:
        first = copy.copy(known)
        first._n_encoded, first._whole = 0, None
        assert first.encode(text, special) == ids
