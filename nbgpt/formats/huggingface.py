"""A Hugging Face folder: config.json, and weights in one file or in the shards that an index lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import GPT2Config
from ..strict_json import CONFIG_BYTES, read_object
from . import names
from .base import Checkpoint, FormatError
from .stored import Stored
from .vocabulary import text_files

WEIGHT_FILES = (  # in the order in which they are preferred
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def open_hugging_face(weights: Path) -> Checkpoint:
    """The model whose weights, or their index, are at this path, with `config.json` beside them.

    Raises FormatError if a part is missing or broken, or if the config describes another architecture.
    """
    folder = weights.parent
    config, tied, id2label = _read_config(folder / "config.json")
    if weights.name.endswith(".index.json"):
        placed = _read_index(weights)
        files = [folder / shard for shard in sorted(set(placed.values()))]
    else:
        placed, files = {}, [weights]
    stored: dict[str, Stored] = {}
    for file in files:
        shard = _read_tensors(file)
        twice = sorted(stored.keys() & shard.keys())
        if twice:
            raise FormatError(f"{file}: {twice[0]} is stored in {stored[twice[0]].path.name} too")
        stored |= shard
    for name, file_name in placed.items():
        if name not in stored or stored[name].path.name != file_name:
            raise FormatError(f"{weights}: says that {name} lies in {file_name}; it does not")
    parts, others = names.canonical(stored, folder)
    tensors = {name: place.tensor() for name, place in parts.items()}
    model = names.assemble(
        config, tensors, files, weights, tied=tied, others=others, tokenizer_files=text_files(folder)
    )
    return replace(model, labels=_labels(folder / "config.json", id2label, model.config.n_labels))


def _read_config(path: Path) -> tuple[GPT2Config, bool, Any]:
    """The config, whether it ties the embeddings, and what it says of labels, if it does."""
    if not path.is_file():
        raise FormatError(f"{path} is missing; it belongs beside the weights and says their architecture and sizes")
    fields = read_object(path, CONFIG_BYTES)
    tied = fields.get("tie_word_embeddings")
    try:
        config = GPT2Config.from_hugging_face(fields)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from None
    return config, True if tied is None else bool(tied), fields.get("id2label")


def _labels(path: Path, id2label: Any, n_labels: int) -> tuple[str, ...]:
    """The labels of a classifier; other models often have an id2label without meaning."""
    if id2label is None or not n_labels:
        return ()
    found = id2label if isinstance(id2label, dict) else {}
    labels = tuple(str(found[number]) for number in map(str, range(n_labels)) if number in found)
    if len(found) != n_labels or len(set(labels)) != n_labels:
        raise FormatError(
            f"{path}: id2label is {id2label!r:.80}; score.weight has {n_labels} labels: name each of them once"
        )
    return labels


def _read_index(path: Path) -> dict[str, str]:
    """Tensor -> the shard that holds it: a file of this folder, though it may be a link, as in the hub's cache."""
    weight_map: Any = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path}: expected a weight_map from tensors to files")
    for shard in set(map(str, weight_map.values())):
        if not shard or shard.startswith(".") or any(sign in shard for sign in "/\\:\0"):
            raise FormatError(f"{path}: shard {shard!r:.80} is not the plain name of a file in this folder")
        if not (path.parent / shard).is_file():
            raise FormatError(f"{path}: shard {shard} is missing; fetch the whole model")
    return {name: str(shard) for name, shard in weight_map.items()}


def _read_tensors(path: Path) -> dict[str, Stored]:
    if path.suffix == ".safetensors":
        from .safetensors import read_tensors
    else:
        from .pytorch import read_tensors
    return read_tensors(path)
