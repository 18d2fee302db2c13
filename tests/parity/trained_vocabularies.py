"""Tiny vocabularies of every kind, trained on a few lines with Hugging Face's `tokenizers`."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    *(Path(__file__).parents[2] / "README.md").read_text("utf-8").splitlines(),
    *["吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "나는 고양이로소이다. 이름은 아직 없다."]
    * 9,
    *[
        "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
        "Naïve cafés, déjà vu: 2026 façades 😀 👍🏽",
        "MKTAYIAKQRQISFVK",
    ]
    * 9,
]
TEXTS = [
    "The kernels are compiled by Numba, once.",
    "  two  spaces\n\n\tand a tab \r\n",
    "don't DON'T we'll 2026 3.14 , . !",
    "naïve café 😀 👍🏽 日本語 中文 한국어 \u0000\u007f",
    "吾輩は猫である。春眠不觉晓 나는 고양이",
    "MKTAYIAKQRQISFVKSHFSRQ",
    "covid19 is not covid190, nor xcovid19",
    "ends with a space ",
    "x",
    " ",
    "the quick brown fox jumps over the lazy dog. " * 3,
]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet))


def byte_level_after_a_space():
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def byte_level_otherwise():
    """Another normalizer and another pre-tokenizer."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFKC()
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def bytes_of_the_corpus():
    """Byte-level BPE that has no token for a byte that it never saw."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL))


def unigram():
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return trained(tokenizer, trainers.UnigramTrainer(vocab_size=600, special_tokens=SPECIAL, unk_token="<unk>"))


def sentencepiece_bpe():
    """As KoGPT2: no bytes to fall back on."""
    tokenizer = tokenizers.SentencePieceBPETokenizer()
    tokenizer.train_from_iterator(CORPUS, vocab_size=900, special_tokens=SPECIAL, show_progress=False)
    return tokenizers.Tokenizer.from_str(tokenizer.to_str())


def byte_fallback():
    """As Llama: characters that have no token are written in bytes."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, limit_alphabet=90)
    spec = json.loads(trained(tokenizer, trainer).to_str())
    spec["model"]["vocab"] |= {octet: len(spec["model"]["vocab"]) + i for i, octet in enumerate(octets)}
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def word_piece():
    tokenizer = tokenizers.BertWordPieceTokenizer(lowercase=False)
    tokenizer.train_from_iterator(CORPUS, vocab_size=700, show_progress=False)
    return tokenizers.Tokenizer.from_str(tokenizer.to_str())


def words():
    tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(tokenizer, trainers.WordLevelTrainer(vocab_size=500, special_tokens=SPECIAL))


def residues():
    """As a model of proteins: a token for each letter."""
    vocabulary = {name: i for i, name in enumerate([*SPECIAL, *"LAGVESIKRDTPNQFYMHCWXUBZO"])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


KINDS = {
    make.__name__: make
    for make in (
        *(byte_level, byte_level_after_a_space, byte_level_otherwise, bytes_of_the_corpus, unigram),
        *(sentencepiece_bpe, byte_fallback, word_piece, words, residues),
    )
}
