"""`eval compare`: how far the predictions of one model are from those of another."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..progress import counting
from .eval_perplexity import REPLACES_FIRST, first_id
from .measures import add_json, shown, write_json, write_lines
from .parser import DTYPES, add, add_bos, add_running
from .terminal import printable, read_text

if TYPE_CHECKING:
    from ..analysis.comparison import Comparison
    from ..model import Model
    from .parser import Commands


def define_compare(measures: Commands) -> None:
    """Add the subcommand."""
    command = add(measures, "compare", "compare two models of one vocabulary: KL divergence, perplexities", _compare)
    for place, text in (("a", "the reference model"), ("b", "the model to compare with it")):
        command.add_argument(place, metavar=place.upper(), help=f"{text}: native file, folder, or name")
    command.add_argument("file", metavar="FILE", help="the text, UTF-8; - is standard input")
    for place in ("a", "b"):
        command.add_argument(
            f"--dtype-{place}", choices=DTYPES, help=f"of {place.upper()}; default: what the file has, or int8"
        )
    add_running(command)
    command.add_argument("--window", type=int, help="tokens read at once; default: the smaller context")
    add_bos(command, REPLACES_FIRST)
    add_json(command)


def _compare(options: argparse.Namespace) -> None:
    from ..analysis.comparison import compare
    from ..model import load

    text = read_text(options.file)
    how = options.threads, options.kv_dtype, options.kv_memory
    a, b = load(options.a, options.dtype_a, *how), load(options.b, options.dtype_b, *how)
    if a.tokenizer != b.tokenizer:
        raise ValueError(f"{a.name} and {b.name} have different vocabularies; only models of one can be compared")
    with counting("comparing", "window") as progress:
        ids, bos_id = a.tokenizer.encode(text), first_id(a, options.bos)
        found = compare(a.engine, b.engine, ids, options.window, bos_id, progress)
    if options.json:
        models = {"a": f"{a.name} {a.dtype}", "b": f"{b.name} {b.dtype}"}
        write_json({**models, "protocol": "llama.cpp", **vars(found), "ratio": found.ratio})
    else:
        write_lines([*_about(a, b, found), *_percentiles(found)])


def _about(a: Model, b: Model, found: Comparison) -> list[tuple[str, str]]:
    return [
        ("A", f"{printable(a.name)} {a.dtype}"),
        ("B", f"{printable(b.name)} {b.dtype}"),
        ("protocol", "llama.cpp, KL divergence of B from A: second half of windows that do not overlap"),
        ("window", str(found.window)),
        ("tokens scored", str(found.n_scored)),
        ("perplexity of A", shown(found.perplexity_a)),
        ("perplexity of B", shown(found.perplexity_b)),
        ("B / A", shown(found.ratio, 5)),
        ("ln(B / A)", shown(found.log_ratio, 5)),
        ("correlation", f"{100 * found.correlation:.2f} % of the log-probabilities"),
        ("same top token", shown(found.same_top, 3, 100, " %")),
        ("mean KLD", shown(found.divergence, 6, unit=" nats a token")),
        ("mean change of p", shown(found.change, 3, 100, " %")),
        ("RMS change of p", shown(found.change_rms, 3, 100, " %")),
    ]


def _percentiles(found: Comparison) -> list[tuple[str, str]]:
    """A line for each percentile: its KL divergence, and the change of the right token's probability."""
    named: dict[float, str] = {100: "maximum", 50: "median", 0: "minimum"}
    changes = found.change_percentiles
    return [
        (named.get(percent, f"{percent:g} %"), f"KLD {value:9.6f}   change of p {100 * changes[percent]:+8.3f} %")
        for percent, value in found.divergence_percentiles.items()
    ]
