"""`eval perplexity`: perplexity of a text, and pictures of how it comes about."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..partial import whole_file
from ..progress import counting
from .measures import add_json, write_json, write_lines
from .parser import add, add_bos, add_model, load_model
from .terminal import note, printable, read_text

if TYPE_CHECKING:
    from ..model import Model
    from .parser import Commands

REPLACES_FIRST = "put <|endoftext|> in place of each window's first token; default: as the model's file says"


def define_perplexity(measures: Commands) -> None:
    """Add the subcommand."""
    command = add(measures, "perplexity", "perplexity of a text", _perplexity)
    command.add_argument("file", help="the text, UTF-8; - is standard input")
    add_model(command)
    command.add_argument(
        "--protocol",
        choices=("llama.cpp", "strided"),
        default="llama.cpp",
        help="llama.cpp: score the second half of windows that do not overlap; strided: Hugging Face's recipe; "
        "default: %(default)s",
    )
    command.add_argument("--window", type=int, help="tokens read at once; default: the context")
    command.add_argument("--stride", type=int, help="tokens between windows (strided); default: half a window")
    add_bos(command, REPLACES_FIRST)
    command.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw loss by position and calibration into this SVG file, which is replaced; reads the text once more",
    )
    add_json(command)


def _perplexity(options: argparse.Namespace) -> None:
    from ..analysis.perplexity import perplexity

    text = read_text(options.file)
    model = load_model(options)
    ids = model.tokenizer.encode(text)
    bos_id = first_id(model, options.bos)
    with counting("perplexity", "window") as progress:
        result = perplexity(
            model.engine, ids, options.protocol, options.window, options.stride, bos_id, model.tokenizer, progress
        )
    if options.json:
        write_json({"model": model.name, "dtype": model.dtype, **vars(result)})
    else:
        write_lines(
            [
                ("model", f"{printable(model.name)} {model.dtype}"),
                ("protocol", result.protocol),
                ("window", str(result.window)),
                ("stride", str(result.stride)),
                ("tokens scored", str(result.n_scored)),
                ("NLL", f"{result.nll:.6f} nats a token"),
                ("perplexity", f"{result.perplexity:.4f} +/- {result.standard_error:.4f}"),
                ("bits per byte", "" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"),
            ]
        )
    if options.plot:
        _plot(model, ids, options.window, bos_id, options.plot)


def first_id(model: Model, bos: bool | None) -> int | None:
    """The id that takes the place of each window's first token; None if there is none."""
    return model.tokenizer.bos_id if (model.weights.bos if bos is None else bos) else None


def _plot(model: Model, ids: list[int], window: int | None, bos_id: int | None, output: Path) -> None:
    from ..analysis.curves import curves
    from ..analysis.plot import svg

    with counting("curves", "window") as progress:
        found = curves(model.engine, ids, window, bos_id, progress)
    with whole_file(output) as file:
        file.write(svg(found, printable(f"{model.name} {model.dtype}")).encode())
    note(f"loss by position and calibration are in {output}")
