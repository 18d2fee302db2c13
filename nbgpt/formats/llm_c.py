"""llm.c's model files, such as `gpt2_124M.bin`: a header of 256 numbers of 32 bits, then the weights one by one.

A kind of tensor stands there for all layers, then the next kind; matrices are [n_out, n_in]; the token embedding is
padded with rows that stand for no token. The activation is GELU's tanh form.

Source: https://github.com/karpathy/llm.c, write_model and write_tensors in train_gpt2.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

from ..config import GPT2Config
from . import names
from .base import Checkpoint, FormatError, Tensor
from .stored import Stored, open_weights
from .vocabulary import text_files

_MAGIC = 20240326
_HEADER_BYTES = 4 * 256
_DTYPES = {3: ("F32", 4), 5: ("BF16", 2)}  # version -> dtype, bytes
_MODULES = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def is_llm_c(path: Path) -> bool:
    """Whether a file begins as llm.c's do."""
    with path.open("rb") as file:
        return file.read(4) == struct.pack("<i", _MAGIC)


def open_llm_c(path: Path) -> Checkpoint:
    """The model in a file of version 3 (float32) or 5 (bfloat16). Raises FormatError for others and for broken ones."""
    with open_weights(path) as (file, size):
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise FormatError(f"{path}: ends within its header; is it cut short? fetch it again")
    _, version, n_ctx, n_vocab, n_layer, n_head, n_embd, n_padded = struct.unpack_from("<8i", header)
    if version not in _DTYPES:
        raise FormatError(
            f"{path}: version {version}; nbgpt reads 3 (float32) and 5 (bfloat16): write it again with llm.c's newest "
            "train_gpt2.py"
        )
    try:
        config = GPT2Config(n_layer, n_head, n_embd, n_ctx, n_vocab)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None
    dtype, item_size = _DTYPES[version]
    n_bytes = _HEADER_BYTES + item_size * (config.n_parameters + (n_padded - n_vocab) * n_embd)
    if n_padded < n_vocab or n_bytes != size:
        raise FormatError(
            f"{path}: {size} bytes; the header asks for {n_bytes}, with {n_padded} rows for {n_vocab} tokens: "
            "is it cut short? fetch it again"
        )
    tensors = _tensors(path, config, n_padded, dtype, item_size)
    return names.assemble(config, tensors, [path], path, tied=True, tokenizer_files=text_files(path.parent))


def _tensors(path: Path, config: GPT2Config, n_padded: int, dtype: str, item_size: int) -> dict[str, Tensor]:
    """The tensors of a file that has been found long enough for them."""
    shapes, tensors, start = dict(names.expected_shapes(config)), {}, _HEADER_BYTES
    for name in _in_file_order(config.n_layer):
        shape, n_rows = shapes[name], n_padded if name == "wte.weight" else shapes[name][0]
        if names.is_conv1d(name):
            tensors[name] = Stored(path, name, dtype, shape[::-1], start).tensor().transposed()
        else:
            tensors[name] = Stored(path, name, dtype, shape, start).tensor()
        start += n_rows * prod(shape[1:]) * item_size
    return tensors


def _in_file_order(n_layer: int) -> Iterator[str]:
    yield from ("wte.weight", "wpe.weight")
    for module in _MODULES:
        for kind in ("weight", "bias"):
            for layer in range(n_layer):
                yield f"h.{layer}.{module}.{kind}"
    yield from ("ln_f.weight", "ln_f.bias")
