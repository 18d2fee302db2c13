"""nanoGPT's `ckpt.pt`: a training checkpoint that says the model's sizes itself, in `model_args`.

Its matrices are [n_out, n_in], as torch's Linear has them, and with `bias=False` no layer has a bias.

Source: https://github.com/karpathy/nanoGPT, model.py and train.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import GPT2Config
from . import names
from .base import Checkpoint, FormatError, Tensor
from .pytorch import Saved
from .vocabulary import text_files

_SIZES = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "block_size": "n_ctx", "vocab_size": "n_vocab"}
_NO_MATTER = ("bias", "dropout")
_GELU = "gelu is nn.GELU's, as in nanoGPT since June 2023; older runs were trained with GPT-2's tanh form"


def is_nanogpt(saved: Saved) -> bool:
    """Whether a file of torch is one of nanoGPT's."""
    return isinstance(saved.values.get("model_args"), dict)


def open_nanogpt(path: Path, saved: Saved) -> Checkpoint:
    """The model in a training checkpoint. Raises FormatError for sizes that do not fit, and for those of a fork."""
    args = saved.values["model_args"]
    config = _config(path, args)
    parts, others = names.canonical(saved.tensors, path)
    tensors: dict[str, Tensor] = {}
    for name, stored in parts.items():
        tensor = stored.tensor()
        tensors[name] = tensor.transposed() if names.is_conv1d(name) and len(tensor.shape) == 2 else tensor
    if args.get("bias", True) is False:
        _add_biases(config, tensors)
    model = names.assemble(config, tensors, [path], path, tied=None, others=others)
    return replace(model, notes=(*model.notes, _GELU), tokenizer_files=text_files(path.parent))


def _config(path: Path, args: dict[Any, Any]) -> GPT2Config:
    if missing := [name for name in _SIZES if name not in args]:
        raise FormatError(f"{path}: model_args lacks {', '.join(missing)}; is this a checkpoint of nanoGPT's train.py?")
    if wrong := [name for name in _SIZES if type(args[name]) is not int]:  # not shown: it may be endless written out
        raise FormatError(
            f"{path}: model_args: {wrong[0]} is a {type(args[wrong[0]]).__name__}; it must be a whole number"
        )
    more = [name for name, value in args.items() if name not in _SIZES and name not in _NO_MATTER and value]
    if more:
        raise FormatError(f"{path}: model_args has {more[0]!r:.40}, of which nanoGPT knows nothing; is it of a fork?")
    try:
        return GPT2Config(activation="gelu", **{ours: args[name] for name, ours in _SIZES.items()})
    except ValueError as error:
        raise FormatError(f"{path}: model_args: {error}") from None


def _add_biases(config: GPT2Config, tensors: dict[str, Tensor]) -> None:
    """Give the layers that are there biases of zero."""
    for name, shape in names.expected_shapes(config):
        if name.endswith(".bias"):
            tensors.setdefault(name, _zeros(shape))
        elif name not in tensors:  # of the next layer, which may be one of millions
            break


def _zeros(shape: tuple[int, ...]) -> Tensor:
    return Tensor(shape, lambda: np.zeros(shape, np.float32))
