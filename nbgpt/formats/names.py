"""The tensors of a GPT-2: names, shapes, and the names that other programs give them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ..config import GPT2Config
from .base import Checkpoint, FormatError, Tensor, listed

T = TypeVar("T")

_PREFIXES = re.compile(r"(module\.|_orig_mod\.|(base_model\.)?model\.|transformer\.)*")
"""What DataParallel, torch.compile, PEFT, trainers and transformers put before a name, in any combination."""
_PART = re.compile(r"(wte|wpe|h|ln_f)\..*|(lm_head|score)\.weight", re.DOTALL)
_CONV1D = re.compile(r"h\.\d+\.(attn|mlp)\.c_\w+\.weight")
_LORA = re.compile(r"\.(lora_\w+|base_layer\.)")
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


def short_name(name: str) -> str:
    """The name without prefixes: `module.transformer.wte.weight` -> `wte.weight`."""
    return _PREFIXES.sub("", name, count=1)


def is_conv1d(name: str) -> bool:
    """Whether a tensor is a matrix [n_in, n_out] that other programs store as [n_out, n_in]."""
    return _CONV1D.fullmatch(name) is not None


def canonical(tensors: Mapping[str, T], where: Path) -> tuple[dict[str, T], list[str]]:
    """The tensors of a GPT-2 by their short names, and the names of other tensors; stored masks are in neither.

    Raises FormatError if two names become one, and for a LoRA adapter that is not merged.
    """
    found: dict[str, T] = {}
    others: list[str] = []
    for name, tensor in tensors.items():
        if _LORA.search(name):
            raise FormatError(
                f"{where}: {name:.80} is of a LoRA adapter: merge it into its base model with "
                "`python -m nbgpt convert BASE --lora FOLDER`, or with PEFT's merge_and_unload, and save that"
            )
        short = short_name(name)
        if _MASK.fullmatch(short):
            continue
        if not _PART.fullmatch(short):
            others.append(name)
        elif short in found:
            raise FormatError(f"{where}: {short} is stored twice, with and without a prefix as in {name:.80}")
        else:
            found[short] = tensor
    return found, others


def assemble(
    config: GPT2Config,
    tensors: Mapping[str, Tensor],
    files: list[Path],
    where: Path,
    *,
    tied: bool | None,
    others: Collection[str] = (),
    tokenizer_files: dict[str, Path] | None = None,
) -> Checkpoint:
    """A checkpoint of the tensors that the config asks for, under their canonical names.

    `tied` says whether the logits come from `wte.weight`, as Hugging Face's `tie_word_embeddings`; None leaves it to
    the file. A stored `lm_head.weight` that differs is used in any case. A `score.weight` sets the config's n_labels.
    `others` are names of tensors that are left out. Raises FormatError that names the tensor, what was expected and
    found.
    """
    score = tensors.get("score.weight")
    n_labels = score.shape[0] if score and score.shape else 0
    config = replace(config, n_labels=n_labels, tied_embeddings=_is_tied(tied, tensors))
    checked: dict[str, Tensor] = {}
    for name, shape in expected_shapes(config):  # one by one: a config may claim more layers than memory could list
        tensor = tensors.get(name)
        if tensor is None:
            strange = [*_strange(config, tensors), *others]
            instead = f"instead: {listed(strange)}" if strange else f"{len(tensors)} of its tensors and nothing else"
            raise FormatError(
                f"{where}: {name} {_show(shape)} is missing; found {instead}; do config and weights belong together?"
            )
        if tensor.shape != shape:
            raise FormatError(f"{where}: {name} is {_show(tensor.shape)}; the config asks for {_show(shape)}")
        checked[name] = tensor
    for name in tensors:
        if name.startswith(_BODY) and name not in checked:
            raise FormatError(
                f"{where}: {name} is no part of a GPT-2 of {config.n_layer} layers; is config.json the right one?"
            )
    notes = []
    if tied and not config.tied_embeddings:
        notes.append("lm_head.weight differs from wte.weight and is used, though the config says that they are tied")
    if others:
        notes.append(f"left out what is no part of a GPT-2: {listed(others)}")
    return Checkpoint(config, checked, files, tokenizer_files or {}, notes=tuple(notes))


def _strange(config: GPT2Config, tensors: Mapping[str, Tensor]) -> list[str]:
    """The tensors that no layer of the model has."""
    known = dict(expected_shapes(replace(config, n_layer=1)))
    return [name for name in tensors if name.startswith(_BODY) and re.sub(r"h\.\d+", "h.0", name, count=1) not in known]


def _is_tied(tied: bool | None, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the model needs no `lm_head.weight` of its own."""
    head, wte = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if head is None:
        return tied is not False or "score.weight" in tensors  # a classifier is saved without the head
    if tied is False or wte is None or head.shape != wte.shape:
        return False
    return (head.place is not None and head.place == wte.place) or _digest(head) == _digest(wte)


def _digest(tensor: Tensor) -> tuple[str, bytes]:
    """Digest of the values, to compare two large matrices with only one of them in memory."""
    values = tensor.read()
    return values.dtype.name, hashlib.sha256(values.reshape(-1).data).digest()


def _show(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
