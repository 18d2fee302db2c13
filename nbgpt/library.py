"""Which file a model's name stands for, and making that file from official weights when it is not there yet."""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import download, paths
from .config import OFFICIAL
from .weights import DTYPES, Weights, is_native, load

if TYPE_CHECKING:
    from .formats import Checkpoint

EMBEDDED = "story-34m"
DEFAULT_DTYPE = "int8"


class ModelNotFoundError(ValueError):
    """No model by this name: says which ones are near, or how to get it."""


def models_folder() -> Path:
    """Where converted models are kept."""
    return paths.home() / "models"


def _folders() -> Iterator[Path]:
    yield models_folder()
    try:
        yield paths.shipped("vocab.bpe").parent
    except FileNotFoundError:
        return


def file_name(name: str, dtype: str) -> str:
    """Of the native file of a model, `OWNER/REPO` included."""
    return f"{name.replace('/', '--')}-{dtype}.safetensors"


def find(name: str, dtype: str | None = None) -> Path | None:
    """A native file of this name in the user's folder or among those that come with nbgpt."""
    for folder in _folders():
        for kind in (dtype,) if dtype else (DEFAULT_DTYPE, *DTYPES):
            path = folder / file_name(name, kind)
            if path.is_file():
                return path
    return None


def known() -> list[str]:
    """Names of models that can be loaded or downloaded."""
    files = [path.stem.rpartition("-")[0] for folder in _folders() for path in folder.glob("*-*.safetensors")]
    return sorted({EMBEDDED, *OFFICIAL, *files})


def open_model(model: str | Path | None = None, dtype: str | None = None) -> Weights:
    """Weights of a model: a native file, a folder or file of official weights, a name, or nothing for the embedded one.

    Official weights are converted into the user's folder when that has not been done.
    Raises ModelNotFoundError, FormatError, OSError, and ValueError for a dtype that the native file does not have.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    path = Path(model) if model is not None else None
    if path is not None and path.exists():
        return _open_path(path, dtype)
    name = EMBEDDED if model is None else str(model)
    if found := find(name, dtype):
        return load(found)
    if model is not None and (name in OFFICIAL or name.count("/") == 1) and (folder := download.locate(name)):
        return _converted(folder, name, dtype)
    if other := find(name):
        return _with_dtype(load(other), dtype)
    raise ModelNotFoundError(_advice(name))


def _open_path(path: Path, dtype: str | None) -> Weights:
    if is_native(path):
        return _with_dtype(load(path), dtype)
    return _converted(path, path.resolve().name if path.is_dir() else path.stem, dtype)


def _with_dtype(weights: Weights, dtype: str | None) -> Weights:
    if dtype is None or dtype == weights.dtype:
        return weights
    raise ValueError(
        f"{weights.path} holds {weights.dtype} and you asked for {dtype}: "
        f"make it from the official weights with `python -m nbgpt convert FOLDER --dtype {dtype}`"
    )


def _converted(source: Path, name: str, dtype: str | None) -> Weights:
    """The native file made from these weights, made now if it is not there or they have changed since."""
    from .formats import open_checkpoint

    dtype = dtype or DEFAULT_DTYPE
    checkpoint = open_checkpoint(source)
    state = "\n".join(f"{p.resolve()} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in checkpoint.files)
    key = hashlib.sha256(state.encode()).hexdigest()[:8]
    path = models_folder() / file_name(f"{name}-{key}", dtype)
    if not path.exists():
        convert_with_progress(checkpoint, dtype, path, name=name)
    return load(path)


def convert_with_progress(checkpoint: Checkpoint, dtype: str, output: Path, *, name: str, bos: bool = False) -> None:
    """`convert`, with a bar on standard error."""
    from tqdm import tqdm

    from .convert import convert, n_bytes

    label = f"converting {name} to {dtype}"
    total = n_bytes(checkpoint.config, dtype)
    with tqdm(total=total, unit="B", unit_scale=True, desc=label, file=sys.stderr, delay=0.5) as bar:
        convert(checkpoint, dtype, output, name=name, bos=bos, progress=bar.update)


def _advice(name: str) -> str:
    if name in OFFICIAL or name.count("/") == 1:
        return f"{name} is not on this machine: run `python -m nbgpt download {name}`"
    near = difflib.get_close_matches(name, known(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known())}"
    return f"no file, folder or model is called {name!r}; {hint}"
