"""The tensors that a GPT-2 is made of: what they are called, which shape they have, which of them are weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ..config import GPT2Config
from .base import Checkpoint, FormatError, Tensor

T = TypeVar("T")

_PREFIX = "transformer."
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # the causal mask, which old versions of transformers stored
_BODY = ("wte.", "wpe.", "h.", "ln_f.")  # a tensor here that is not known changes what the model computes


def expected_shapes(config: GPT2Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a model with its shape; Conv1D matrices are [n_in, n_out].

    Source: the checkpoints of https://github.com/openai/gpt-2, as Hugging Face names their tensors.
    """
    n_embd = config.n_embd
    yield "wte.weight", (config.n_vocab, n_embd)
    yield "wpe.weight", (config.n_ctx, n_embd)
    for layer in range(config.n_layer):
        block = f"h.{layer}."
        for norm in ("ln_1", "ln_2"):
            yield f"{block}{norm}.weight", (n_embd,)
            yield f"{block}{norm}.bias", (n_embd,)
        for matrix, (n_in, n_out) in config.matrices.items():
            yield block + matrix, (n_in, n_out)
            yield block + matrix.replace(".weight", ".bias"), (n_out,)
    yield "ln_f.weight", (n_embd,)
    yield "ln_f.bias", (n_embd,)
    if not config.tied_embeddings:
        yield "lm_head.weight", (config.n_vocab, n_embd)
    if config.n_labels:
        yield "score.weight", (config.n_labels, n_embd)


def canonical(tensors: Mapping[str, T], where: Path) -> dict[str, T]:
    """Without the `transformer.` prefix and without stored masks. Raises FormatError if two names become one."""
    found: dict[str, T] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(_PREFIX)
        if _MASK.fullmatch(short):
            continue
        if short in found:
            raise FormatError(f"{where}: {short} is stored twice, with and without the prefix {_PREFIX!r}")
        found[short] = tensor
    return found


def assemble(
    config: GPT2Config,
    tensors: Mapping[str, Tensor],
    files: list[Path],
    where: Path,
    *,
    tied: bool | None,
    tokenizer_files: dict[str, Path] | None = None,
) -> Checkpoint:
    """A checkpoint of the tensors that the config asks for, under their canonical names.

    `tied` says whether the logits come from `wte.weight`, as Hugging Face's `tie_word_embeddings`; None leaves it to
    the file: a stored `lm_head.weight` that differs is kept. A `score.weight` sets the config's n_labels. Heads that
    have nothing to do with text are left out. Raises FormatError that names the tensor, what was expected and found.
    """
    score = tensors.get("score.weight")
    n_labels = score.shape[0] if score and score.shape else 0
    config = replace(config, n_labels=n_labels, tied_embeddings=_is_tied(tied, tensors))
    checked: dict[str, Tensor] = {}
    for name, shape in expected_shapes(config):  # one by one: a config may claim more layers than memory could list
        tensor = tensors.get(name)
        if tensor is None:
            raise FormatError(
                f"{where}: {name} {_show(shape)} is missing; the config and the weights do not belong together"
            )
        if tensor.shape != shape:
            raise FormatError(f"{where}: {name} is {_show(tensor.shape)}; the config asks for {_show(shape)}")
        checked[name] = tensor
    for name in tensors:
        if name.startswith(_BODY) and name not in checked:
            raise FormatError(
                f"{where}: {name} is no part of a GPT-2 of {config.n_layer} layers; is config.json the right one?"
            )
    return Checkpoint(config, checked, files, tokenizer_files or {})


def _is_tied(tied: bool | None, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the model needs no `lm_head.weight` of its own."""
    head, wte = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if tied is not None:
        return tied or (head is None and "score.weight" in tensors)  # a classifier is saved without the head
    if head is None or wte is None:
        return True
    return head.shape == wte.shape and _digest(head) == _digest(wte)


def _digest(tensor: Tensor) -> tuple[str, bytes]:
    """Stands for the values, so that two large matrices are compared with one of them in memory."""
    values = tensor.read()
    return values.dtype.name, hashlib.sha256(values.reshape(-1).data).digest()


def _show(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
