"""`generate --num-beams` and `--penalty-alpha`: texts that are searched for and not drawn."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..terminal import write

if TYPE_CHECKING:
    from ..completion import Continuation
    from ..text import Model
    from .parser import Parser


def define_search(command: Parser) -> None:
    """Add the options to `generate`."""
    group = command.add_argument_group(
        "search", "Instead of drawing: the text that is likeliest as a whole, or the least repetitive likely one."
    )
    option = group.add_argument
    option("--num-beams", type=int, metavar="N", help="beam search with N beams")
    option("--num-return", type=int, default=1, metavar="N", help="the N best of them, with their scores in --json")
    option("--length-penalty", type=float, default=1.0, metavar="X", help="above 0 favours long texts; default: 1")
    option(
        "--early-stopping",
        choices=("true", "false", "never"),
        default="false",
        help="when as many texts as beams have ended: stop; when others look worse; or when none can be better",
    )
    option("--penalty-alpha", type=float, metavar="A", help="contrastive search, say 0.6 with --top-k 4")


def is_search(options: argparse.Namespace) -> bool:
    """Is a text to be searched for?"""
    return options.num_beams is not None or options.penalty_alpha is not None


def search(model: Model, prompt: str, options: argparse.Namespace, asked: dict[str, Any]) -> None:
    """Search and write. Raises ValueError for options of `generate` that only drawing has."""
    if options.num_beams is not None and options.penalty_alpha is not None:
        raise ValueError("--num-beams and --penalty-alpha are given; choose one")
    shared = {name: asked.pop(name) for name in ("max_tokens", "bos") if asked.get(name) is not None}
    k = {"k": asked.pop("top_k")} if options.penalty_alpha is not None and "top_k" in asked else {}
    if others := [name for name, value in asked.items() if value not in ([], {}, None) and name != "echo"]:
        raise ValueError(f"--{others[0].replace('_', '-')} is given; a search has no use for it")
    if options.penalty_alpha is not None:
        found = [model.contrastive_search(prompt, alpha=options.penalty_alpha, **shared, **k)]
    else:
        early_stopping = {"true": True, "false": False}.get(options.early_stopping, options.early_stopping)
        found = model.beam_search(
            prompt,
            options.num_beams,
            num_return=options.num_return,
            length_penalty=options.length_penalty,
            early_stopping=early_stopping,
            **shared,
        )
    opening = prompt if asked.get("echo") else ""
    for number, one in enumerate(found):
        write(_as_json(one, opening) if options.json else "---\n" * (number > 0) + f"{opening}{one}\n")


def _as_json(one: Continuation, opening: str) -> str:
    return json.dumps({**asdict(one), "text": opening + one.text}) + "\n"
