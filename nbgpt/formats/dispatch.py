"""Which reader opens a file or a folder."""

from __future__ import annotations

from pathlib import Path

from .base import Checkpoint, FormatError

_TENSORFLOW_INDEX = "model.ckpt.index"


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
