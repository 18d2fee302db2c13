"""LoRA adapters as PEFT saves them, merged into the weights that are converted.

An adapter is `adapter_config.json` and `adapter_model.safetensors`: for each matrix that it changes two of low rank r,
and perhaps whole tensors that take the place of the base model's. Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large
Language Models": W + scale * B @ A, scale = lora_alpha / r, or lora_alpha / sqrt(r) (Kalajdzievski 2023, rsLoRA).

Source: https://github.com/huggingface/peft, tuners/lora/layer.py and utils/save_and_load.py. Its `fan_in_fan_out` says
what the shapes of A and B say too: that GPT-2's Conv1D is [n_in, n_out].
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..formats import Checkpoint, FormatError, Tensor
from ..formats.names import is_conv1d, short_name
from ..strict_json import read_object

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_LOW_RANK = re.compile(r"(?P<module>.+)\.lora_(embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
_BASE_LAYER = ".base_layer."  # between the name of a module that is adapted and that of its own tensor
_EMBEDDINGS = {"wte.weight", "lm_head.weight"}
_LARGEST_ALPHA = 1e6
_BY_PEFT = "merge it with PEFT's merge_and_unload and convert what that saves"


@dataclass(frozen=True)
class _Delta:
    """What is added to a matrix: scale * b @ a."""

    a: Tensor  # [r, n_in]
    b: Tensor  # [n_out, r]
    scale: float
    transposed: bool  # the matrix is [n_in, n_out]

    @property
    def shape(self) -> tuple[int, ...]:
        n_out, n_in = self.b.shape[0], self.a.shape[1]
        return (n_in, n_out) if self.transposed else (n_out, n_in)

    def add_to(self, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The sum with the matrix that `read` gives, in float32."""
        product = self.b.read().astype(np.float32, copy=False) @ self.a.read().astype(np.float32, copy=False)
        product *= np.float32(self.scale)
        product = product.T if self.transposed else product
        product += read()
        return np.ascontiguousarray(product)


@dataclass(frozen=True)
class _Adapter:
    """An adapter's tensors by the names of the base model."""

    files: list[Path]
    deltas: dict[str, _Delta]
    replaced: dict[str, Tensor]


def parse_lora(text: str) -> tuple[Path, float]:
    """FOLDER or FOLDER:WEIGHT -> the folder, and the weight or 1."""
    folder, _, weight = text.rpartition(":")
    if Path(text).exists() or not folder:
        return Path(text), 1.0
    try:
        return Path(folder), float(weight)
    except ValueError:
        return Path(text), 1.0


def merge(base: Checkpoint, adapters: Sequence[tuple[Path, float]]) -> Checkpoint:
    """A checkpoint with adapters (folder, weight) merged into it in their order, each tensor when it is read.

    If an adapter changes wte or a tied lm_head, they are tied no longer, since the adapted model has both.
    Raises FormatError for adapters that are broken, of another kind or of another model, ValueError for a weight.
    """
    for folder, weight in adapters:
        if not math.isfinite(weight):
            raise ValueError(f"{folder}: the adapter's weight is {weight}; it must be a number such as 0.5")
        base = _merge_one(base, folder, weight)
    return base


def _merge_one(base: Checkpoint, folder: Path, weight: float) -> Checkpoint:
    adapter = _read_adapter(folder, weight)
    config, tensors = base.config, dict(base.tensors)
    if config.tied_embeddings and not _EMBEDDINGS.isdisjoint([*adapter.deltas, *adapter.replaced]):
        config = replace(config, tied_embeddings=False)
        tensors["lm_head.weight"] = tensors["wte.weight"]
    if score := adapter.replaced.get("score.weight"):
        config = replace(config, n_labels=score.shape[0] if len(score.shape) == 2 else 0)
        tensors["score.weight"] = Tensor((config.n_labels, config.n_embd), score.read)
    for name, tensor in adapter.replaced.items():
        _check_fit(folder, name, tensor.shape, tensors)
        tensors[name] = tensor
    for name, delta in adapter.deltas.items():
        _check_fit(folder, name, delta.shape, tensors)
        tensors[name] = Tensor(delta.shape, partial(delta.add_to, tensors[name].read))
    note = f"merged {len(adapter.deltas)} matrices of the LoRA adapter {folder.resolve().name!r:.60}, weight {weight:g}"
    return replace(
        base,
        config=config,
        tensors=tensors,
        files=[*base.files, *adapter.files],
        labels=base.labels if len(base.labels) == config.n_labels else (),
        notes=(*base.notes, note),
    )


def _check_fit(folder: Path, name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> None:
    expected = tensors[name].shape if name in tensors else None
    if shape != expected:
        found = f"the base model's is {list(expected)}" if expected else "the base model has none"
        raise FormatError(
            f"{folder}: {name:.80} of the adapter is {list(shape)}, {found}: convert the model that it was trained on"
        )


def _read_adapter(folder: Path, weight: float) -> _Adapter:
    config_path = folder / _CONFIG
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not config_path.is_file():
        raise FormatError(f"{folder}: no LoRA adapter; PEFT saves one as {_CONFIG} and {_WEIGHTS[0]}")
    config = read_object(config_path)
    if config.get("peft_type") != "LORA":
        raise FormatError(f"{config_path}: peft_type is {config.get('peft_type')!r:.40}, not 'LORA': {_BY_PEFT}")
    pairs: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in _read_tensors(weights).items():
        if low_rank := _LOW_RANK.fullmatch(name):
            pairs.setdefault(low_rank["module"], {})[low_rank["side"]] = tensor
        elif ".lora_" in name:
            raise FormatError(f"{weights}: {name:.80} is of another kind of LoRA: {_BY_PEFT}")
        elif weight != 1 and not name.endswith(f"{_BASE_LAYER}weight"):  # this is a copy of the base model's
            raise FormatError(f"{weights}: {name:.80} takes the place of the base model's: the weight must be 1")
        else:
            replaced[short_name(name.replace(_BASE_LAYER, "."))] = tensor
    deltas = {}
    for module, pair in pairs.items():
        name = f"{short_name(module)}.weight"
        deltas[name] = _delta(weights, name, pair, weight * _alpha(config_path, config, module), config)
    if config.get("ensure_weight_tying") and not _EMBEDDINGS.isdisjoint([*deltas, *replaced]):
        raise FormatError(f"{config_path}: ensure_weight_tying is true: {_BY_PEFT}")
    return _Adapter([config_path, weights], deltas, replaced)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".bin":
        from ..formats.pytorch import read_tensors
    else:
        from ..formats.safetensors import read_tensors
    return {name: stored.tensor() for name, stored in read_tensors(path).items()}


def _delta(path: Path, name: str, pair: dict[str, Tensor], alpha: float, config: dict[str, Any]) -> _Delta:
    """The two matrices of a module, once their shapes are known to go together."""
    shapes = [pair[side].shape for side in ("A", "B") if side in pair]
    if len(shapes) != 2 or [len(shape) for shape in shapes] != [2, 2] or not shapes[0][0] == shapes[1][1] >= 1:
        raise FormatError(f"{path}: {name:.80} needs A [r, n_in] and B [n_out, r], found {shapes}; save it again")
    r = shapes[0][0]
    scale = alpha / (math.sqrt(r) if config.get("use_rslora") else r)
    return _Delta(pair["A"], pair["B"], scale, is_conv1d(name) or name in ("wte.weight", "wpe.weight"))


def _alpha(path: Path, config: dict[str, Any], module: str) -> float:
    """lora_alpha, or what alpha_pattern has for this module."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(re.fullmatch(r"[\w.]+", key) for key in patterns):
        raise FormatError(f"{path}: alpha_pattern {patterns!r:.60} is more than names of modules: {_BY_PEFT}")
    named = (value for key, value in patterns.items() if f".{module}".endswith(f".{key}"))
    alpha: Any = next(named, config.get("lora_alpha"))
    if type(alpha) not in (int, float) or not 0 <= alpha <= _LARGEST_ALPHA:
        raise FormatError(f"{path}: lora_alpha is {alpha!r:.40}; it must be a number from 0 to {_LARGEST_ALPHA:g}")
    return float(alpha)
