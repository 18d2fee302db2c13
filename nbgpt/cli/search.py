"""`generate --num-beams` and `--penalty-alpha`: texts that are searched for and not drawn."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from ..text.options import OPTIONS
from .terminal import write

if TYPE_CHECKING:
    from ..model import Model
    from ..text.prompts import Text
    from .parser import Parser


_OF_BEAMS = ("num_beams", "num_return", "length_penalty", "early_stopping")
_OF_CONTRAST = ("penalty_alpha", "top_k")
_OF_BOTH = (
    *("prompt", "file", "model", "dtype", "threads", "kv_dtype", "quiet"),
    *("max_tokens", "bos", "echo", "json", "run", "ids", "special"),
)


def define_search(command: Parser) -> None:
    """Add the options to `generate`: what is not given is not there."""
    group = command.add_argument_group(
        "search",
        "Instead of drawing: the text that is likeliest as a whole, or the least repetitive likely one. It is written "
        "when it is found; Ctrl-C before that leaves nothing.",
    )
    option = partial(group.add_argument, default=argparse.SUPPRESS)
    option("--num-beams", type=int, metavar="N", help="beam search with N beams")
    option("--num-return", type=int, metavar="N", help="the N best of them, with their scores in --json; default: 1")
    option("--length-penalty", type=float, metavar="X", help="above 0 favours long texts; default: 1")
    option(
        "--early-stopping",
        choices=("true", "false", "never"),
        help="stop when as many texts as beams have ended (true); when they have and the other beams look worse "
        "(false, the default); or when they have and no beam can become better (never)",
    )
    option("--penalty-alpha", type=float, metavar="A", help="contrastive search, say 0.6 with --top-k 4")


def wants_search(options: argparse.Namespace) -> bool:
    """True if a search is asked for. Raises ValueError for options that do not go together."""
    given = [name for name, value in vars(options).items() if value is not None and value is not False]
    if "num_beams" in given and "penalty_alpha" in given:
        raise ValueError("--num-beams and --penalty-alpha are given; choose one")
    if "num_beams" not in given and (of_beams := [name for name in given if name in _OF_BEAMS]):
        raise ValueError(f"{_flag(of_beams[0])} is given without --num-beams, which alone has a use for it")
    if "num_beams" not in given and "penalty_alpha" not in given:
        return False
    useful = (*_OF_BOTH, *(_OF_BEAMS if "num_beams" in given else _OF_CONTRAST))
    if others := [name for name in given if name not in useful]:
        raise ValueError(f"{_flag(others[0])} is given; a search has no use for it")
    return True


def _flag(name: str) -> str:
    declared = OPTIONS.get(name)
    return declared.flag if declared and declared.flag else f"--{name.replace('_', '-')}"


def search(model: Model, prompt: Text, options: argparse.Namespace) -> None:
    """Search and write."""
    from ..text.completion import Usage

    given = vars(options)
    asked = {name: given[name] for name in (*_OF_BEAMS, "max_tokens") if name in given}
    ids = model.encode(prompt, given.get("bos"), special=given.get("special", False))
    if "num_beams" in given:
        if "early_stopping" in given:
            asked["early_stopping"] = {"true": True, "false": False}.get(given["early_stopping"], "never")
        found = model.beam_search(ids, **asked)
    else:
        k = {"k": given["top_k"]} if "top_k" in given else {}
        found = [model.contrastive_search(ids, alpha=given["penalty_alpha"], **k, **asked)]
    is_echo, before = "echo" in given, prompt if isinstance(prompt, str) else model.tokenizer.decode(ids)
    for number, one in enumerate(found):
        whole = replace(one, text=before + one.text, tokens=[*ids, *one.tokens]) if is_echo else one
        if options.json:
            usage = Usage(len(ids), len(one.tokens))
            write(json.dumps({**asdict(whole), "usage": {**asdict(usage), "total_tokens": usage.total_tokens}}) + "\n")
        else:
            write("---\n" * (number > 0) + f"{whole}\n")
