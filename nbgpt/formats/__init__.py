"""Readers of other people's checkpoints, without their frameworks.

Every reader turns a path into a `Checkpoint`: a config, and tensors under the names of OpenAI's release as
Hugging Face spells them (`wte.weight`, `h.0.attn.c_attn.weight` [n_in, n_out], `h.0.ln_1.bias`, ...), without the
`transformer.` prefix and without stored masks. Nothing is read before a tensor is asked for, and nothing is
allocated before the sizes that a file claims have been checked against its length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config import GPT2Config

_TENSORFLOW_INDEX = "model.ckpt.index"


class FormatError(ValueError):
    """A file that is not what it should be: says which, what was expected, what was found and the cure."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that still lies in its file."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]  # -> float16 or float32 [shape]; bfloat16 is widened to float32


@dataclass(frozen=True)
class Checkpoint:
    """A model in somebody else's format, ready to be converted."""

    config: GPT2Config
    tensors: dict[str, Tensor]
    files: list[Path]  # the weight files, in the order in which they are hashed
    tokenizer_files: dict[str, Path] = field(default_factory=dict)  # "vocab" and "merges", where the folder has them
    labels: tuple[str, ...] = ()  # names of a classifier's labels in their order, if the folder gives them


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint: a weight file, or a folder with one, in any of the formats that this package reads.

    Raises FormatError if there is none, or if it is broken, unsafe, or of another architecture.
    """
    try:
        return _open(_weights_in(path) if path.is_dir() else path)
    except OSError as error:
        raise FormatError(f"{error.filename or path}: {error.strerror or error}") from None


def _weights_in(folder: Path) -> Path:
    """The file by which a folder is opened. Raises FormatError that lists what is looked for."""
    from .huggingface import WEIGHT_FILES

    known = (*WEIGHT_FILES, _TENSORFLOW_INDEX)
    for name in known:
        if (folder / name).is_file():
            return folder / name
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return ggufs[0]
    found = f"{len(ggufs)} GGUF files: name one of them" if ggufs else "none of them"
    raise FormatError(f"{folder}: looked for {', '.join(known)} or one .gguf file; found {found}")


def _open(path: Path) -> Checkpoint:
    if not path.is_file():
        raise FormatError(f"{path}: no such file or folder")
    if path.name == _TENSORFLOW_INDEX:
        from .tensorflow import open_tensorflow

        return open_tensorflow(path.parent)
    if path.suffix == ".gguf":
        from .gguf import open_gguf

        return open_gguf(path)
    if path.suffix in (".safetensors", ".bin", ".pt", ".pth") or path.name.endswith(".index.json"):
        from .huggingface import open_hugging_face
        from .safetensors import read_header

        if path.suffix == ".safetensors" and read_header(path)[1].get("format") == "nbgpt":
            raise FormatError(f"{path} is a native file already: convert the official weights that it was made from")
        return open_hugging_face(path)
    raise FormatError(f"{path}: expected a folder, or a file that ends in .safetensors, .bin, .gguf or .index.json")
