"""The vocabularies of trained_vocabularies.py in each kind of checkpoint, as its own writer puts them there."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trained_vocabularies import KINDS
from zoo_checkpoints import (
    SIZES,
    Made,
    gguf,
    llm_c,
    nanogpt,
    saved,
    saved_by_transformers_4,
    tensorflow,
    torch_saved,
    transformers,
)

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Types of tokens in a GGUF file."""
Vocabulary = Any  # PreTrainedTokenizerFast, or None


def beside(make: Callable[..., Made], **options) -> Callable[[Path, Vocabulary, int], Made]:
    """A checkpoint with the files of its vocabulary beside it."""

    def made(folder, vocabulary, n_vocab):
        if vocabulary:
            vocabulary.save_pretrained(folder)
        return make(folder, **options, vocab_size=n_vocab)

    return made


def in_gguf(folder, vocabulary, n_vocab):
    return gguf(folder, add_vocabulary=partial(add_to_gguf, vocabulary), vocab_size=n_vocab)


def add_to_gguf(vocabulary, writer):
    """A vocabulary as llama.cpp's converter writes it, which knows bytes, Llama's pieces and BERT's words."""
    spec = json.loads(vocabulary.backend_tokenizer.to_str()) if vocabulary else {"model": {}, "decoder": {}}
    model, decoder = spec["model"], spec["decoder"] or {}
    kind = "gpt2" if decoder.get("type") == "ByteLevel" else "llama" if model.get("byte_fallback") else "none"
    writer.add_tokenizer_model("bert" if model.get("type") == "WordPiece" else kind)
    if kind == "none":
        return
    merges = ["".join(pair) for pair in model["merges"]]
    names = vocabulary.convert_ids_to_tokens(range(len(vocabulary)))
    special = {token.content for token in vocabulary.added_tokens_decoder.values()}
    writer.add_token_list(names)
    writer.add_token_types([type_of(name, name in special) for name in names])
    writer.add_token_scores([-float(merges.index(name)) if name in merges else 0.0 for name in names])
    if kind == "gpt2":
        before = spec["pre_tokenizer"]
        writer.add_tokenizer_pre("gpt-2" if before["type"] == "ByteLevel" else "tiny")
        writer.add_unk_token_id(names.index("<unk>"))
        writer.add_add_space_prefix(before.get("add_prefix_space", False))
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])


def type_of(name, is_special):
    if name.startswith("<0x"):
        return BYTE
    return NORMAL if not is_special else UNKNOWN if name == "<unk>" else CONTROL


FORMS: dict[str, Callable[[Path, Vocabulary, int], Made]] = {
    "safetensors, transformers 5": beside(saved),
    "safetensors, transformers 4": beside(saved_by_transformers_4),
    "state dict zip, torch": beside(torch_saved),
    "state dict legacy, torch": beside(torch_saved, zipped=False),
    "gpt-2-simple": beside(tensorflow, name="model-1000"),
    "nanoGPT": beside(nanogpt),
    "llm.c": beside(llm_c),
    "GGUF": in_gguf,
}
VOCABULARIES = {**KINDS, "none": lambda: None}
_NOT_IN_GGUF = ("byte_level_otherwise", "unigram", "sentencepiece_bpe", "word_piece", "words", "residues", "none")
REFUSED = {
    **{("none", form): "put its tokenizer.json beside them" for form in FORMS},
    **{(kind, "GGUF"): "convert the model's original folder instead" for kind in _NOT_IN_GGUF},
}
"""Vocabularies that nbgpt does not take -> the cure that it names."""


def make(kind: str, form: str, folder: Path) -> tuple[Made, Vocabulary]:
    """A checkpoint with a vocabulary, and transformers' tokenizer of it."""
    trained = VOCABULARIES[kind]()
    vocabulary = trained and transformers.PreTrainedTokenizerFast(tokenizer_object=trained)
    return FORMS[form](folder, vocabulary, max(len(vocabulary or ()), SIZES["vocab_size"])), vocabulary
