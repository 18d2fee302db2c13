"""A classifier as a folder for transformers' GPT2ForSequenceClassification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...abi.layout import HEAD_DTYPE
from ...formats.names import expected_shapes
from ...formats.safetensors import create
from ...partial import whole_file
from ...tokenizer import Tokenizer
from ...tokenizer.byte_bpe import ByteBPE
from ...tokenizer.hugging_face import MARK
from ...tokenizer.merges import merges_of, spelling
from ...weights import NUMPY, ClassifierHead, Weights, packing

_TOLERANCE = 1e-5
"""Of logits that float32 tensors give, as a share of the largest intercept."""


def export(weights: Weights, tokenizer: Tokenizer, head: ClassifierHead, bos: bool, folder: Path) -> None:
    """Write config.json, model.safetensors in float32, and the vocabulary.

    That class reads the last token's final hidden state and has `score.weight` without an intercept. So the scale of
    the features goes into `score.weight`, and what is left of the intercept into `ln_f.bias`. int8 and int4 weights are
    written as the numbers that they stand for; nbgpt rounds activations with them, which transformers does not.

    Raises:
        ValueError: the head reads anything else, or its intercept does not go into `ln_f.bias`.
        OSError: a file cannot be written.
    """
    score, shift = fold(head, weights.config.n_layer)
    folder.mkdir(parents=True, exist_ok=True)
    bias = weights.floats("ln_f.bias")[: len(shift)] + shift.astype(np.float32)
    changed = {"score.weight": score, "ln_f.bias": bias}
    config = replace(weights.config, n_labels=len(head.labels), tied_embeddings=True)  # there is no LM head
    shapes = dict(expected_shapes(config))
    stored = {("" if name == "score.weight" else "transformer.") + name: ("F32", shapes[name]) for name in shapes}
    with create(folder / "model.safetensors", stored, {"format": "pt"}) as file:
        for name, shape in shapes.items():
            values = changed[name] if name in changed else _values(weights, name, shape)
            file.write(np.ascontiguousarray(values, "<f4").data)
    files = {"config.json": _json(_config(weights, tokenizer, head)), **dict(_vocabulary(tokenizer, bos))}
    for name, data in files.items():
        with whole_file(folder / name) as file:
            file.write(data)


def fold(head: ClassifierHead, n_layer: int) -> tuple[np.ndarray, np.ndarray]:
    """score.weight float32 [n_labels, n_embd], and what ln_f.bias grows by, float64 [n_embd]. Raises ValueError."""
    if head.pooling != "last":
        raise ValueError(
            f"cannot export pooling {head.pooling!r}: GPT2ForSequenceClassification reads the last token; "
            "train with pooling 'last'"
        )
    if head.layer != n_layer:
        raise ValueError(
            f"cannot export layer {head.layer}: GPT2ForSequenceClassification reads the last, {n_layer}; train with it"
        )
    score = (head.coefficients / head.scale).astype(np.float32)
    wanted = head.intercept - head.coefficients @ (head.mean / head.scale)
    shift: np.ndarray = np.linalg.lstsq(score.astype(np.float64), wanted)[0]
    reached = score.astype(np.float64) @ shift.astype(np.float32)
    if np.abs(reached - wanted).max() > _TOLERANCE * max(1.0, np.abs(wanted).max()):
        raise ValueError(
            "cannot export: the intercept does not go into ln_f.bias, since the rows of score.weight depend on each "
            "other, and GPT2ForSequenceClassification has none of its own"
        )
    return score, shift


def _values(weights: Weights, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the model as Hugging Face has it, float32 [shape]."""
    if name == "wpe.weight":
        positions: np.ndarray = weights.floats(name)[:, : shape[1]]
        return positions
    if len(shape) == 1:
        vector: np.ndarray = weights.floats(name)[: shape[0]]
        return vector
    parts = tuple(
        _stored(weights, part) for part in (name, f"{name}.scale", f"{name}.offset") if part in weights.entries
    )
    if name == "wte.weight":
        return packing.decode(parts, HEAD_DTYPE[weights.dtype], *shape)
    n_in, n_out = shape  # Conv1D
    transposed: np.ndarray = packing.decode(parts, weights.dtype, n_out, n_in).T
    return transposed


def _stored(weights: Weights, name: str) -> np.ndarray:
    entry = weights.entries[name]
    return weights.bytes_of(name).view(NUMPY[entry.dtype]).reshape(entry.shape)


def _config(weights: Weights, tokenizer: Tokenizer, head: ClassifierHead) -> dict[str, Any]:
    """config.json. Batches of transformers are padded with the end of text, and it looks for the last other token."""
    config = weights.config
    same = ("n_layer", "n_head", "n_embd", "n_inner", "layer_norm_epsilon", "scale_attn_weights")
    return {
        "architectures": ["GPT2ForSequenceClassification"],
        "model_type": "gpt2",
        **{name: getattr(config, name) for name in (*same, "scale_attn_by_inverse_layer_idx")},
        "n_positions": config.n_ctx,
        "vocab_size": config.n_vocab,
        "activation_function": config.activation,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.eos_id,
        "id2label": dict(enumerate(head.labels)),
        "label2id": {label: number for number, label in enumerate(head.labels)},
        "problem_type": f"{'multi' if head.multi_label else 'single'}_label_classification",
    }


def _vocabulary(tokenizer: Tokenizer, bos: bool) -> Iterator[tuple[str, bytes]]:
    """The files of the vocabulary: tokenizer.json, or vocab.json and merges.txt; and what begins and ends texts."""
    if isinstance(tokenizer, ByteBPE):
        special = {token.id: token.content for token in tokenizer.added}
        ids = {
            special.get(i) or spelling(token): i for i, token in enumerate(tokenizer.tokens) if token or i in special
        }
        yield "vocab.json", _json(ids)
        yield "merges.txt", merges_of([tokenizer.tokens[i] for i in tokenizer.ranked.tolist()]).encode()
    else:
        yield "tokenizer.json", tokenizer.to_bytes().removeprefix(MARK)
    names = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.eos_id}
    contents = {token.id: token.content for token in tokenizer.added}
    marks = {role: contents[i] for role, i in names.items() if i in contents}
    yield "tokenizer_config.json", _json({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": bos, **marks})


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
