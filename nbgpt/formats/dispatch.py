"""Which reader opens a file or a folder."""

from __future__ import annotations

from pathlib import Path

from .base import Checkpoint, FormatError

_NANOGPT = "ckpt.pt"
_TORCH_ENDINGS = (".bin", ".pt", ".pth")


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

    known = (*WEIGHT_FILES, _NANOGPT)
    for name in known:
        if (folder / name).is_file():
            return folder / name
    if next(folder.glob("*.index"), None):
        from .tensorflow import find_index

        return find_index(folder)
    if (folder / "adapter_config.json").is_file():
        raise FormatError(
            f"{folder} is an adapter: merge it into its base model with `python -m nbgpt convert BASE --lora {folder}`"
        )
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return ggufs[0]
    found = f"{len(ggufs)} GGUF files: name one of them" if ggufs else "none of them"
    raise FormatError(f"{folder}: looked for {', '.join(known)}, a .index or one .gguf file; found {found}")


def _open(path: Path) -> Checkpoint:
    if not path.is_file():
        raise FormatError(f"{path}: no such file or folder")
    if path.suffix == ".index":
        from .tensorflow import open_tensorflow

        return open_tensorflow(path)
    if path.suffix == ".gguf":
        from .gguf import open_gguf

        return open_gguf(path)
    if path.suffix in _TORCH_ENDINGS:
        return _open_torch(path)
    if path.suffix == ".safetensors" or path.name.endswith(".index.json"):
        from .huggingface import open_hugging_face
        from .safetensors import read_header

        if path.suffix == ".safetensors" and read_header(path)[1].get("format") == "nbgpt":
            raise FormatError(f"{path} is a native file already: convert the official weights that it was made from")
        return open_hugging_face(path)
    endings = ", ".join((".safetensors", *_TORCH_ENDINGS, ".gguf", ".index"))
    raise FormatError(f"{path}: expected a folder, or a file that ends in {endings} or .index.json")


def _open_torch(path: Path) -> Checkpoint:
    """A file of torch, or one of llm.c, whose names end the same."""
    from .huggingface import open_hugging_face
    from .llm_c import is_llm_c, open_llm_c
    from .nanogpt import is_nanogpt, open_nanogpt
    from .pytorch import read_saved

    if is_llm_c(path):
        return open_llm_c(path)
    saved = read_saved(path)
    return open_nanogpt(path, saved) if is_nanogpt(saved) else open_hugging_face(path)
