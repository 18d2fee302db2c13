"""`convert`, `download`, `info` and `warmup`: models before they run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import DTYPES, add, add_bos
from .terminal import printable, read_text, write

if TYPE_CHECKING:
    from .parser import Commands


def define_convert(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "convert", "make a native file from official weights", _convert)
    command.add_argument(
        "source",
        help="OpenAI folder, Hugging Face folder (safetensors or pytorch_model.bin), GGUF file, or downloaded name",
    )
    command.add_argument("--dtype", choices=DTYPES, default="int8", help="default: %(default)s")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file or folder; default: NAME-DTYPE.safetensors where --model finds it by its name",
    )
    command.add_argument("--name", help="name of the model; default: that of the folder")
    command.add_argument(
        "--calibrate",
        action="store_true",
        help="int4 only: balance rounding errors on a text that the model writes itself; takes minutes, a float32 copy "
        "beside the output meanwhile, and memory for about 25 n_inner^2 bytes besides the model",
    )
    command.add_argument(
        "--calibration-text", metavar="FILE", help="calibrate on this text instead; - is standard input"
    )
    add_bos(
        command, "whether texts of this model begin with the token that begins texts; default: as its tokenizer says"
    )


def _convert(options: argparse.Namespace) -> None:
    from ..conversion.registry import convert_with_progress, file_name, find_source, model_name, models_folder
    from ..formats import open_checkpoint

    source = find_source(options.source)
    checkpoint = open_checkpoint(source)
    name = options.name or (model_name(source) if Path(options.source).exists() else options.source)
    output = options.output or models_folder()
    if output.is_dir() or options.output is None:
        output /= file_name(name, options.dtype)
    convert_with_progress(
        checkpoint,
        options.dtype,
        output,
        name=name,
        bos=options.bos,
        calibrate=options.calibrate or options.calibration_text is not None,
        text=None if options.calibration_text is None else read_text(options.calibration_text),
    )
    write(f"{printable(str(output))}\n")


def define_download(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "download", "fetch official weights from the hub and convert them", _download)
    command.add_argument("name", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/REPO")
    command.add_argument("--dtype", choices=DTYPES, default="int8", help="default: %(default)s")


def _download(options: argparse.Namespace) -> None:
    from ..conversion.hub import fetch
    from ..conversion.registry import convert_with_progress, file_name, models_folder
    from ..formats import open_checkpoint

    checkpoint = open_checkpoint(fetch(options.name))
    output = models_folder() / file_name(options.name, options.dtype)
    convert_with_progress(checkpoint, options.dtype, output, name=options.name)
    write(f"{printable(str(output))}\n")


def define_info(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "info", "say what a model is and what would run it", _info)
    command.add_argument("model", nargs="?", help="as for generate; default: the embedded model")
    command.add_argument("--dtype", choices=DTYPES, help="as for generate")


def _info(options: argparse.Namespace) -> None:
    from ..conversion.registry import open_model
    from .about import describe

    for name, value in describe(open_model(options.model, options.dtype)).items():
        write(f"{name:12} {printable(value)}\n")


def define_warmup(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "warmup", "compile the kernels ahead of their first use", _warmup)
    command.add_argument("--dtype", choices=DTYPES, action="append", help="may be repeated; default: int8")


def _warmup(options: argparse.Namespace) -> None:
    from ..backend.kernel_cache import find_object, load_kernels

    for dtype in options.dtype or ["int8"]:
        load_kernels(dtype)
        write(f"{find_object(dtype).path}\n")
