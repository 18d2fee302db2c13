"""Finds the native file of a model's name; converts a checkpoint if there is none yet."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..config import OFFICIAL
from ..formats import FormatError
from ..progress import progress_bar
from ..validation import check
from ..weights import DTYPES, BaseReference, Weights, fingerprint, is_head, is_native, load, read_head

if TYPE_CHECKING:
    from ..formats import Checkpoint

EMBEDDED = "story-34m"
DEFAULT_DTYPE = "int8"
_CONVERTED = "converted"
_SMALL = 1 << 18  # bytes; read in less than a millisecond
_FILE_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index", ".json")


class ModelNotFoundError(ValueError):
    """No model has this name; the message has similar names, or says how to get it."""


def models_folder() -> Path:
    """Where converted models are kept."""
    return paths.home() / "models"


def _folders() -> Iterator[Path]:
    with suppress(ValueError):  # a user without a home has what comes with nbgpt
        yield models_folder()
    try:
        yield paths.shipped("vocab.bpe").parent
    except FileNotFoundError:
        return


def file_name(name: str, dtype: str) -> str:
    """Of the native file of a model, `OWNER/REPO` included."""
    return f"{name.replace('/', '--')}-{dtype}.safetensors"


def find(name: str, dtype: str | None = None) -> Path | None:
    """The native file of this name in the user's folder or among those that come with nbgpt."""
    for folder in _folders():
        for kind in (dtype,) if dtype else (DEFAULT_DTYPE, *DTYPES):
            path = folder / file_name(name, kind)
            with suppress(PermissionError):  # of a home that is another user's
                if path.is_file():
                    return path
    return None


def known() -> list[str]:
    """Names of models that can be loaded or downloaded."""
    stems = []
    for folder in _folders():
        with suppress(PermissionError):
            stems += [path.stem.rpartition("-") for path in folder.glob("*-*.safetensors")]
    return sorted({EMBEDDED, *OFFICIAL, *(name.replace("--", "/") for name, _, dtype in stems if dtype in DTYPES)})


def open_model(model: str | Path | None = None, dtype: str | None = None) -> Weights:
    """Weights of a model: a native file, a folder or file of official weights, a name, or nothing for the embedded one.

    Official weights are converted into the user's folder when that has not been done.
    Raises ModelNotFoundError, FormatError, OSError, and ValueError for a dtype that the native file does not have.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    check("model", model, (str, PathLike, type(None)), allowed="a file, folder or name")
    if model is not None and Path(model).exists():
        return _open_path(Path(model), dtype)
    name = EMBEDDED if model is None else str(model)
    if found := find(name, dtype):
        return _open_native(found)
    if folder := _downloaded(name):
        return _converted(folder, name, dtype)
    if other := find(name):
        return _with_dtype(_open_native(other), dtype)
    raise ModelNotFoundError(_advice(name))


def model_name(source: Path) -> str:
    """What a model is called after its folder or file; a file whose name every folder has says nothing."""
    if source.is_dir():
        return source.resolve().name
    return source.absolute().parent.name if source.name.startswith(("model.", "pytorch_model.")) else source.stem


def find_source(source: str) -> Path:
    """Official weights by their path, or by the name that they were downloaded under."""
    folder = None if Path(source).exists() else _downloaded(source)
    return folder or Path(source)


def _open_path(path: Path, dtype: str | None) -> Weights:
    if is_native(path) or is_head(path):
        return _with_dtype(_open_native(path), dtype)
    return replace(_converted(path, model_name(path), dtype), source=path.absolute())


def _open_native(path: Path) -> Weights:
    """A native file, or the file of a classifier with the base model that it names."""
    if not is_head(path):
        return load(path)
    name, head, base = read_head(path)
    weights = _base_of(path, base)
    config = weights.config
    if head.layer > config.n_layer or len(head.mean) != config.n_embd * (2 if head.pooling == "both" else 1):
        raise FormatError(
            f"{path}: layer {head.layer}, {len(head.mean)} features are not {base.name}'s: train it again"
        )
    about = {"name": name, "labels": json.dumps(head.labels), "notes": f"{base.about}; its base model: {weights.path}"}
    return replace(
        weights,
        path=path,
        config=replace(config, n_labels=len(head.labels), multi_label=head.multi_label),
        bos=base.bos,
        metadata={**weights.metadata, **about},
        head=head,
    )


def _base_of(path: Path, base: BaseReference) -> Weights:
    """The base model of a classifier: by its name, where it was in training, beside the classifier, or made again."""
    others = []
    for place, weights in _candidates(path.parent, base):
        if fingerprint(weights) == base.fingerprint:
            return weights
        others.append(place)
    wanted = f"{path} is a classifier on {base.name} {base.dtype}"
    if others:
        raise FormatError(f"{wanted}, and {others[0]} is another model: train it again, or put the right one there")
    place = _beside(path.parent, base.path)[0]
    if base.source:
        source = _beside(path.parent, base.source)[0]
        gone = f"neither that nor {source}, which it was made from, is there"
        raise FormatError(f"{wanted}, and {gone}: put one of them back, or train it again")
    if place.parent.name == _CONVERTED:
        again = f"`python -m nbgpt info FOLDER --dtype {base.dtype}`"
        raise FormatError(f"{wanted}, which is not at {place}: {again} of what it was made from makes it again")
    raise FormatError(f"{wanted}, which is not at {place}: put it beside the classifier, or train it again")


def _beside(folder: Path, relative: str) -> list[Path]:
    """Where something that a classifier names may be: as seen from its folder, or moved into that."""
    return [*dict.fromkeys([Path(os.path.normpath(folder / relative)), folder / Path(relative).name])]


def _candidates(folder: Path, base: BaseReference) -> Iterator[tuple[Path, Weights]]:
    """Models that may be the base model of a classifier in a folder, and where each was found.

    The last ones are converted, from what the base model was made from in training or from a download of its name.
    """
    named = find(base.name, base.dtype)
    for place in [*([named] if named else []), *_beside(folder, base.path)]:
        if place.is_file() and is_native(place):
            if place.parent.name == _CONVERTED:
                _note_use(place)
            yield place, load(place)
    for source in _beside(folder, base.source) if base.source else []:
        try:
            weights = _converted(source, base.name, base.dtype)
        except FormatError:
            if source.exists():
                raise
            continue  # another place may have it
        yield source, weights
    if downloaded := _downloaded(base.name):
        yield downloaded, _converted(downloaded, base.name, base.dtype)


def _with_dtype(weights: Weights, dtype: str | None) -> Weights:
    if dtype is None or dtype == weights.dtype:
        return weights
    raise ValueError(
        f"{weights.path} holds {weights.dtype} and you asked for {dtype}: "
        f"make it from the official weights with `python -m nbgpt convert FOLDER --dtype {dtype}`"
    )


def _is_on_hub(name: str) -> bool:
    """True for an official name, and for OWNER/REPO that is no path."""
    repository = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not name.endswith(_FILE_ENDINGS)
    return name in OFFICIAL or bool(repository)


def _downloaded(name: str) -> Path | None:
    """The folder of official weights that a download has left on this machine."""
    from .hub import locate

    with suppress(PermissionError):  # of a home that is another user's
        return locate(name) if _is_on_hub(name) else None
    return None


def _converted(source: Path, name: str, dtype: str | None) -> Weights:
    """The native file made from these weights; made now if it is not there or is damaged, or if they have changed."""
    from ..formats import open_checkpoint
    from .convert import VERSION

    dtype = dtype or DEFAULT_DTYPE
    checkpoint = open_checkpoint(source)
    files = {*checkpoint.files, *checkpoint.tokenizer_files.values()}
    state = _key((VERSION, checkpoint.config, checkpoint.labels, [_state(path) for path in sorted(files)]))
    folder, place = paths.home() / _CONVERTED, _key(source.resolve())
    output = folder / file_name(f"{name}-{place}-{state}", dtype)
    if _is_there(output):
        with suppress(FormatError):
            weights = load(output)
            _note_use(output)
            _say(name, weights.metadata.get("vocabulary", "of its file"))
            return weights
    convert_with_progress(checkpoint, dtype, output, name=name)
    for older in set(folder.glob(f"*-{place}-*-{dtype}.safetensors")) - {output}:
        older.unlink(missing_ok=True)
    return load(output)


def _note_use(output: Path) -> None:
    """Set the time of a conversion: `nbgpt cache --prune` removes what is not used."""
    with suppress(OSError):
        os.utime(output)


def _is_there(output: Path) -> bool:
    """Has this conversion been made? Raises PermissionError if it has not, and cannot be kept."""
    reason = f"{output.parent} cannot be written, and converted weights are kept there"
    try:
        if output.exists():
            return True
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{output.parent}: {error.strerror}, and converted weights are kept there"
    else:
        if os.access(output.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return False
    raise PermissionError(f"{reason}: set NBGPT_HOME to a folder that you can write")


def _state(path: Path) -> tuple[str, int, object]:
    """What changes when a file does: the content of a small one, which an editor may leave with its size and time."""
    import hashlib

    stat = path.stat()
    small = stat.st_size <= _SMALL
    return path.name, stat.st_size, hashlib.sha256(path.read_bytes()).hexdigest() if small else stat.st_mtime_ns


def _key(value: object) -> str:
    import hashlib

    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def convert_with_progress(
    checkpoint: Checkpoint,
    dtype: str,
    output: Path,
    *,
    name: str,
    bos: bool | None = None,
    calibrate: bool = False,
    text: str | None = None,
) -> None:
    """`convert`, with bars on standard error if that is a terminal, and a line there that says which vocabulary it has.

    calibrate: balance int4's rounding errors on a text, or on one that the model writes itself.
    Raises ValueError for calibration of another dtype, FormatError for a checkpoint without a vocabulary.
    """
    from ..formats import read_vocabulary
    from .convert import convert, n_bytes

    vocabulary = read_vocabulary(checkpoint)
    if not calibrate:
        size = n_bytes(checkpoint.config, dtype)
        with progress_bar(f"converting {name} to {dtype}", "B", size, unit_scale=True) as bar:
            convert(checkpoint, dtype, output, name=name, bos=bos, vocabulary=vocabulary, progress=bar.update)
        _say(name, vocabulary.origin)
        return
    if dtype != "int4":
        raise ValueError(f"calibrate is for int4, and dtype is {dtype}: choose --dtype int4 or leave --calibrate out")
    from .calibration import observing

    output.parent.mkdir(parents=True, exist_ok=True)
    with observing(checkpoint, output.parent, text) as inputs:
        convert(checkpoint, dtype, output, name=name, bos=bos, vocabulary=vocabulary, inputs=inputs)
    _say(name, vocabulary.origin)


def _say(name: str, vocabulary: str) -> None:
    print(f"nbgpt: {name} has the vocabulary {vocabulary}", file=sys.stderr)


def _advice(name: str) -> str:
    import difflib

    if name == EMBEDDED:
        return f"the embedded model {EMBEDDED} is missing: install nbgpt again"
    if _is_on_hub(name):
        return f"{name} is not on this machine: run `python -m nbgpt download {name}`"
    near = difflib.get_close_matches(name.lower(), known(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known())}"
    return f"no file, folder or model is called {name!r}; {hint}"
