"""`convert`: official weights to a native file."""

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
        help="folder or file: OpenAI's or gpt-2-simple's, Hugging Face's, nanoGPT's ckpt.pt, llm.c's .bin, GGUF; or a "
        "downloaded name",
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
        help="int4 only: balance rounding errors on a text that the model writes itself; takes minutes, disk "
        "space for a float32 copy beside the output, and about 25 n_inner^2 bytes of memory besides the model",
    )
    command.add_argument(
        "--calibration-text", metavar="FILE", help="calibrate on this text instead; - is standard input"
    )
    command.add_argument(
        "--lora",
        metavar="FOLDER[:WEIGHT]",
        action="append",
        default=[],
        help="merge into the weights a LoRA adapter that PEFT saved, times WEIGHT (default: 1); may be repeated",
    )
    add_bos(
        command, "whether texts of this model begin with the token that begins texts; default: as its tokenizer says"
    )


def _convert(options: argparse.Namespace) -> None:
    from ..conversion.lora import merge, parse_lora
    from ..conversion.registry import convert_with_progress, file_name, find_source, model_name, models_folder
    from ..formats import open_checkpoint

    source = find_source(options.source)
    adapters = [parse_lora(text) for text in options.lora]
    checkpoint = merge(open_checkpoint(source), adapters)
    name = model_name(source) if Path(options.source).exists() else options.source
    name = options.name or "-".join([name, *(folder.resolve().name for folder, _ in adapters)])
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
