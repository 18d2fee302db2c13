"""`generate`: continue a text."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any

from ..sampling.declaration import GROUPS
from ..text.options import OPTIONS
from .generation_options import add_option, given_options
from .parser import add, add_model, load_model
from .search import define_search, search, wants_search
from .shading import with_probabilities
from .terminal import dimmed, note, read_prompt, shaded, write, write_pieces

if TYPE_CHECKING:
    from ..model import Model
    from ..text.completion import Completion
    from ..text.stream import Stream
    from ..tokenizer import Tokenizer
    from .parser import Commands


def define_generate(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "generate", "continue a text", _generate)
    command.description = "Continue a text. It alone goes to standard output; figures go to standard error."
    option = command.add_argument
    option("prompt", nargs="*", help="text to continue; without it, --file, or standard input unless it is a terminal")
    option("-f", "--file", help="read the prompt from a file; - is standard input")
    option("--ids", action="store_true", help="the prompt is token ids, separated by spaces or commas, and not text")
    add_model(command)
    option("-q", "--quiet", action="store_true", help="no line of figures on standard error")
    groups = {name: command.add_argument_group(name, about) for name, about in GROUPS.items()}
    for declared in OPTIONS.values():
        if declared.flag and declared.name != "echo":
            add_option(groups[declared.group], declared)
    _add_others(groups)
    define_search(command)


def _add_others(groups: Mapping[str, argparse._ActionsContainer]) -> None:
    """What the command line alone offers."""
    add_to = {name: partial(group.add_argument, default=argparse.SUPPRESS) for name, group in groups.items()}
    add_to["length"](
        "--stop-id", action="append", type=int, metavar="ID", help="end before this token; may be repeated"
    )
    add_to["samples"](
        "--num-samples", type=int, metavar="N", help="write several texts, with a line of --- between them"
    )
    option = groups["output"].add_argument
    option(
        "--echo",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help=OPTIONS["echo"].help + "; default: a terminal shows the prompt dimmed",
    )
    option("--color", action="store_true", help="shade tokens by probability: red unlikely, green likely")
    option("--json", action="store_true", help="a line of JSON for each text instead of the text, with its --logprobs")


def _generate(options: argparse.Namespace) -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start threads that spin beside those of the model
    from ..engine.request import random_seed

    n = getattr(options, "num_samples", 1)
    if n < 1:
        raise ValueError(f"num-samples is {n}; it must be at least 1")
    if options.json and options.color:
        raise ValueError("--json and --color are given; choose one")
    if hasattr(options, "logprobs") and not options.json:
        raise ValueError("--logprobs is given without --json, which alone shows them")
    is_search = wants_search(options)
    prompt = _ids_of(read_prompt(options)) if options.ids else read_prompt(options)
    model = load_model(options)
    if is_search:
        return search(model, prompt, options)
    asked = {"seed": random_seed(), **_asked(options)}
    streams = model.stream(prompt, n=n, **asked)
    if options.json:
        return _write_json(streams, model, options.quiet)
    is_shown = "echo" not in asked and sys.stdout is not None and sys.stdout.isatty()
    opening = dimmed(prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)) if is_shown else ""
    for sample, stream in enumerate(streams):
        write("---\n" * (sample > 0) + opening)
        try:
            write_pieces(starmap(shaded, with_probabilities(stream)) if options.color else stream)
        finally:
            is_unheard = isinstance(sys.exc_info()[1], OSError)  # of the output
            _note_figures(stream, model, options.quiet or is_unheard)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `Model.generate` that were given."""
    asked = given_options(options)
    if hasattr(options, "stop_id"):
        asked["stop"] = [*asked.get("stop", ()), *options.stop_id]
    return asked | {"logprobs": 0} if options.color else asked


def _ids_of(prompt: str) -> list[int]:
    parts = prompt.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(f"--ids is given and the prompt is {prompt!r:.60}; it must be token ids, as 464 3290")
    return [int(part) for part in parts]


def _note_figures(stream: Stream, model: Model, is_quiet: bool) -> None:
    completion = stream.completion
    if is_quiet or not (completion.text or completion.finish_reason):  # an error came before any text
        return
    timing, found = completion.timing, completion.speculation
    guesses = f"{found.accepted} of {found.proposed} guesses right; " if found else ""
    note(
        f"{timing.prompt_tokens} prompt tokens, prefill {timing.prefill_speed:.1f} tokens/s; "
        f"{timing.new_tokens} new tokens, decode {timing.decode_speed:.1f} tokens/s; "
        f"{guesses}{model.name} {model.dtype}, {model.n_threads} threads, seed {completion.seed}"
    )


def _write_json(streams: list[Stream], model: Model, is_quiet: bool) -> None:
    """A line for each text. After Ctrl-C for what there is of each, and then KeyboardInterrupt is raised."""
    interruption = None
    for stream in streams:
        try:
            stream.finish()
        except KeyboardInterrupt as error:
            interruption = error
            for one in streams:
                one.cancel()
        completion = stream.completion
        ended = replace(completion, finish_reason=completion.finish_reason or "cancelled")
        write(json.dumps(_as_json(ended, model.tokenizer)) + "\n")
        _note_figures(stream, model, is_quiet)
    if interruption:
        raise interruption


def _as_json(completion: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    """Names and meanings are those of `Completion`; likeliest tokens come with their texts."""

    def text_of(token: int) -> str:
        return tokenizer.decode([token], skip_special=False) if token in tokenizer else ""

    return {
        "text": completion.text,
        "tokens": completion.tokens,
        "logprobs": completion.logprobs
        and [
            {
                "token": one.token,
                "text": one.text,
                "bytes": list(one.bytes),
                "logprob": one.logprob,
                "top": [{"token": i, "text": text_of(i), "logprob": value} for i, value in one.top.items()],
            }
            for one in completion.logprobs
        ],
        "finish_reason": completion.finish_reason,
        "usage": {**asdict(completion.usage), "total_tokens": completion.usage.total_tokens},
        "seed": completion.seed,
    }
