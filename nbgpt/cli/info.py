"""`info`: what a model is, where its file is, and what would run it here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..version import __version__
from .parser import DTYPES, add
from .terminal import printable, write

if TYPE_CHECKING:
    from ..config import GPT2Config
    from ..tokenizer import Tokenizer
    from ..weights import Weights
    from .parser import Commands

_PACKAGES = ("numba", "llvmlite", "numpy", "tiktoken")


def define_info(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "info", "say what a model is and what would run it", _info)
    command.add_argument("model", nargs="?", help="as for generate; default: the embedded model")
    command.add_argument("--dtype", choices=DTYPES, help="as for generate")


def _info(options: argparse.Namespace) -> None:
    from ..conversion.registry import open_model

    weights = open_model(options.model, options.dtype)
    for label, value in {**_of_model(weights), **_of_machine(weights.dtype)}.items():
        write(f"{label:12} {printable(value)}\n")


def _of_model(weights: Weights) -> dict[str, str]:
    config, metadata = weights.config, weights.metadata
    return {
        "model": weights.name,
        "file": str(weights.path),
        "size": f"{weights.block.size / 1e6:.1f} MB, {config.n_parameters / 1e6:.1f} M parameters",
        "dtype": weights.dtype + (" (calibrated)" if metadata.get("calibrated") == "true" else ""),
        "config": f"n_layer {config.n_layer}, n_head {config.n_head}, n_embd {config.n_embd}, "
        f"n_inner {config.n_inner}, n_ctx {config.n_ctx}, n_vocab {config.n_vocab}",
        "variant": ", ".join(_variants(config)),
        **_of_texts(weights),
        "source": f"{metadata.get('source', '?')}, SHA-256 {metadata.get('source_sha256', '?')}",
        **({"notes": metadata["notes"]} if "notes" in metadata else {}),
    }


def _of_texts(weights: Weights) -> dict[str, str]:
    """The vocabulary and its source, what begins and ends texts, and the makers' defaults that are not applied."""
    from ..formats import FormatError
    from ..weights import tokenizer_of

    try:
        tokenizer = tokenizer_of(weights)
    except (FormatError, ImportError) as error:
        return {"vocabulary": str(error)}
    bos_id, generation = tokenizer.bos_id, weights.generation
    ends = " or ".join(f"{_name(tokenizer, token)} ({token})" for token in sorted(tokenizer.eos_ids))
    origin = weights.metadata.get("vocabulary", "its own" if weights.tokenizer else "GPT-2's own")
    begins = weights.bos and bos_id is not None
    return {
        "vocabulary": f"{tokenizer.n_vocab} tokens: {origin}",
        "bos": f"texts begin with {_name(tokenizer, bos_id)}" if begins else "texts begin as they are",
        "eos": f"texts end with {ends}" if ends else "nothing ends texts",
        **({"not applied": ", ".join(f"{name} {value}" for name, value in generation.items())} if generation else {}),
    }


def _name(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.decode_bytes((token,)).decode(errors="replace")


def _variants(config: GPT2Config) -> list[str]:
    """The activation and epsilon, and what differs from GPT-2's own architecture."""
    return [
        config.activation,
        f"epsilon {config.layer_norm_epsilon:g}",
        *([] if config.tied_embeddings else ["own output embedding"]),
        *([] if config.scale_attn_weights else ["attention not scaled"]),
        *(["attention scaled by layer"] if config.scale_attn_by_inverse_layer_idx else []),
        *([f"{config.n_labels} labels"] if config.n_labels else []),
    ]


def _cache() -> str:
    from ..backend.kernel_cache import cache_folder

    try:
        return str(cache_folder().parent)
    except ValueError as error:  # the user has no home
        return str(error)


def _of_machine(dtype: str) -> dict[str, str]:
    """The CPU and threads, the kernels for a dtype, and the versions of packages."""
    import platform

    from ..abi.targets import amx_obstacle, current_target
    from ..backend.kernel_cache import find_object
    from ..backend.topology import default_threads

    target, kernels = current_target(), find_object(dtype)
    obstacle = amx_obstacle()
    ours = [f"nbgpt {__version__}", f"Python {platform.python_version()}"]
    return {
        "CPU": target.summary,
        "AMX": f"not used: {obstacle}" if obstacle else "used for prompts and batches with bfloat16, int8 and int4",
        "threads": str(default_threads()),
        "kernels": f"{kernels.state}: {kernels.path}, for {(kernels.target or target).summary}",
        "cache": _cache(),
        "versions": ", ".join([*ours, *map(_version, _PACKAGES)]),
    }


def _version(package: str) -> str:
    import importlib.metadata

    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"
