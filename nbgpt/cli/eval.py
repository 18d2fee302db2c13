"""`eval`: perplexity of a text."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .parser import add, add_bos, add_model, load_model
from .terminal import printable, read_text, write

if TYPE_CHECKING:
    from .parser import Commands


def define_eval(commands: Commands) -> None:
    """Add the subcommand."""
    measures = add(commands, "eval", "measure a model").add_subparsers(
        title="measures", metavar="MEASURE", required=True
    )
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
    add_bos(command, "put <|endoftext|> in place of each window's first token; default: as the model's file says")


def _perplexity(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..analysis.perplexity import perplexity

    text = read_text(options.file)
    model = load_model(options)
    ids = model.tokenizer.encode(text)
    bos = model.weights.bos if options.bos is None else options.bos
    with tqdm(unit="window", desc="perplexity", file=sys.stderr, delay=0.5, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = perplexity(
            model.engine,
            ids,
            options.protocol,
            options.window,
            options.stride,
            model.tokenizer.bos_id if bos else None,
            progress,
        )
    write(f"model           {printable(model.name)} {model.dtype}\n")
    write(f"protocol        {result.protocol}\n")
    write(f"window          {result.window}\n")
    write(f"stride          {result.stride}\n")
    write(f"tokens scored   {result.n_scored}\n")
    write(f"NLL             {result.nll:.6f} nats a token\n")
    write(f"perplexity      {result.perplexity:.4f} +/- {result.standard_error:.4f}\n")
