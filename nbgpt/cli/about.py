"""What a model is, where it lies, and what would run it here."""

from __future__ import annotations

import importlib.metadata
import platform

from .. import __version__
from ..abi.targets import current_target
from ..backend.kernel_cache import cache_folder, find_object
from ..backend.thread_pool import default_threads
from ..weights import Weights


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


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
        "bos": "texts begin with <|endoftext|>" if weights.bos else "texts begin as they are",
        "source": f"{weights.metadata.get('source', '?')}, SHA-256 {weights.metadata.get('source_sha256', '?')}",
        **({"notes": weights.metadata["notes"]} if "notes" in weights.metadata else {}),
        "CPU": current_target().summary,
        "threads": str(default_threads()),
        "kernels": f"{kernels.state}: {kernels.path}",
        "cache": str(cache_folder().parent),
        "versions": ", ".join(
            [f"nbgpt {__version__}", f"Python {platform.python_version()}"]
            + [_version(package) for package in ("numba", "llvmlite", "numpy", "tiktoken")]
        ),
    }
