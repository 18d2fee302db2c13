"""What a model is, where it lies, and what would run it here."""

from __future__ import annotations

import importlib.metadata
import json
import platform

from .. import __version__
from ..abi.targets import current_target
from ..backend.kernel_cache import cache_folder, find_object
from ..backend.thread_pool import default_threads
from ..formats import FormatError
from ..weights import Weights, tokenizer_of


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def _cache() -> str:
    try:
        return str(cache_folder().parent)
    except ValueError as error:
        return str(error)


def _text_of(weights: Weights) -> dict[str, str]:
    """Where the vocabulary comes from, what begins and ends texts, and which settings of its makers are not applied."""
    try:
        tokenizer = tokenizer_of(weights)
    except (FormatError, ImportError) as error:
        return {"vocabulary": str(error)}
    names = {i: tokenizer.decode_bytes((i,)).decode(errors="replace") for i in tokenizer.eos_ids}
    if tokenizer.bos_id is not None:
        names[tokenizer.bos_id] = tokenizer.decode_bytes((tokenizer.bos_id,)).decode(errors="replace")
    ends = " or ".join(f"{names[i]} ({i})" for i in sorted(tokenizer.eos_ids))
    generation = json.loads(weights.metadata.get("generation", "{}"))
    origin = weights.metadata.get("vocabulary", "its own" if weights.tokenizer else "GPT-2's own")
    return {
        "vocabulary": f"{tokenizer.n_vocab} tokens: {origin}",
        "bos": f"texts begin with {names[tokenizer.bos_id]}" if weights.bos else "texts begin as they are",  # type: ignore[index]
        "eos": f"texts end with {ends}" if ends else "nothing ends texts",
        **({"not applied": ", ".join(f"{name} {value}" for name, value in generation.items())} if generation else {}),
    }


def describe(weights: Weights) -> dict[str, str]:
    """Label -> text, in the order to show them."""
    config, kernels = weights.config, find_object(weights.dtype)
    variants = [
        config.activation,
        f"epsilon {config.layer_norm_epsilon:g}",
        *([] if config.tied_embeddings else ["own output embedding"]),
        *([] if config.scale_attn_weights else ["attention not scaled"]),
        *(["attention scaled by layer"] if config.scale_attn_by_inverse_layer_idx else []),
        *([f"{config.n_labels} labels"] if config.n_labels else []),
    ]
    return {
        "model": weights.metadata.get("name") or weights.path.stem,
        "file": str(weights.path),
        "size": f"{weights.block.size / 1e6:.1f} MB, {config.n_parameters / 1e6:.1f} M parameters",
        "dtype": weights.dtype + (" (calibrated)" if weights.metadata.get("calibrated") == "true" else ""),
        "config": f"n_layer {config.n_layer}, n_head {config.n_head}, n_embd {config.n_embd}, "
        f"n_inner {config.n_inner}, n_ctx {config.n_ctx}, n_vocab {config.n_vocab}",
        "variant": ", ".join(variants),
        **_text_of(weights),
        "source": f"{weights.metadata.get('source', '?')}, SHA-256 {weights.metadata.get('source_sha256', '?')}",
        "CPU": current_target().summary,
        "threads": str(default_threads()),
        "kernels": f"{kernels.state}: {kernels.path}",
        "cache": _cache(),
        "versions": ", ".join(
            [f"nbgpt {__version__}", f"Python {platform.python_version()}"]
            + [_version(package) for package in ("numba", "llvmlite", "numpy", "tiktoken")]
        ),
    }
