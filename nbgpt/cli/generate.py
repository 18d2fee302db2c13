"""`generate`: continue a text."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .parser import Parser, add, add_bos, add_model, load_model
from .search import define_search, search, wants_search
from .terminal import decode, note, read_text, shaded, write, write_pieces

if TYPE_CHECKING:
    from ..model import Model
    from ..text.completion import Completion
    from ..text.stream import Stream
    from ..tokenizer import Tokenizer
    from .parser import Commands


def define_generate(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "generate", "continue a text", _generate)
    option = command.add_argument
    option("prompt", nargs="?", help="text to continue; without it, --file, or standard input if that is no terminal")
    option("-f", "--file", help="read the prompt from a file; - is standard input")
    add_model(command)
    option("-q", "--quiet", action="store_true", help="no line of figures on standard error")
    _define_length(command)
    _define_choice(command)
    _define_repetition(command)
    _define_words(command)
    define_search(command)
    _define_speed(command)
    _define_output(command)


def _group(command: Parser, title: str, lesson: str) -> Any:
    """Where to add options of `Model.generate`, which knows the defaults: what is not given is not there."""
    return partial(command.add_argument_group(title, lesson).add_argument, default=argparse.SUPPRESS)


def _define_length(command: Parser) -> None:
    option = _group(
        command, "length", "A text ends where the model says so by <|endoftext|>, or where one of these says so."
    )
    option("-n", "--max-tokens", type=int, help="how many at most; default: 200, or what the context has room for")
    option("--min-tokens", type=int, metavar="N", help="let nothing of the text end it before it has N tokens")
    option("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    option("--stop-id", action="append", type=int, metavar="ID", help="end before this token; may be repeated")
    option("--ignore-eos", action="store_true", help="write <|endoftext|> and go on with another text")
    option("--max-time", type=float, metavar="SECONDS", help="end after so long, however far it is")
    option(
        "--overflow",
        choices=("error", "truncate_left", "keep_first"),
        help="if the text would outgrow the context: do not start; forget its beginning; or keep the prompt (at most a "
        "quarter of the context if it is longer than half) and forget what follows it; default: error",
    )
    add_bos(command, "begin with <|endoftext|>; default: as the model's file says")
    option("--prefix", metavar="TEXT", help="what the new text must begin with")


def _define_choice(command: Parser) -> None:
    option = _group(
        command,
        "choice",
        "The model gives each token a probability, and one is drawn. Temperature makes the likely likelier or less so; "
        "the others, in this order, drop unlikely tokens first.",
    )
    option("--temperature", type=float, metavar="T", help="above 1 wilder, below tamer, 0 greedy; default: 0.8")
    option("--greedy", action="store_true", help="always take the likeliest token")
    option("--top-k", type=int, metavar="K", help="the K likeliest; 0: all; default: 40")
    option("--top-p", type=float, metavar="P", help="the likeliest that have probability P together; default: 1, all")
    option("--min-p", type=float, metavar="P", help="those at least P times as likely as the likeliest; default: 0")
    option(
        "--typical-p", type=float, metavar="P", help="the least unusual that have probability P together; default: 1"
    )
    option("--epsilon-cutoff", type=float, metavar="P", help="those of probability P or more, say 0.0003; default: 0")
    option("--eta-cutoff", type=float, metavar="P", help="the same, P falling where much is possible; default: 0")
    option(
        "--mirostat-tau",
        type=float,
        metavar="BITS",
        help="instead of all but the temperature: steer to this surprise a token, say 5; default: 0, off",
    )
    option("--mirostat-eta", type=float, metavar="RATE", help="how fast Mirostat steers; default: 0.1")
    option("--seed", type=int, help="the same seed gives the same text; default: another text each time")
    option("--num-samples", type=int, metavar="N", help="write several texts, with a line of --- between them")
    option("--batch-size", type=int, metavar="N", help="how many of them grow together, each in its own memory")


def _define_repetition(command: Parser) -> None:
    option = _group(
        command, "repetition", "Small models go round in circles; these make what was said less likely, also if greedy."
    )
    option(
        "--repetition-penalty", type=float, metavar="X", help="for all tokens of prompt and text, say 1.1; default: 1"
    )
    option("--presence-penalty", type=float, metavar="X", help="for each token of the text, once, say 0.5; default: 0")
    option("--frequency-penalty", type=float, metavar="X", help="the same for each time it was said; default: 0")
    option("--no-repeat-ngram-size", type=int, metavar="N", help="never say N tokens again; default: 0, off")
    option("--dry-multiplier", type=float, metavar="X", help="DRY, for going on as before, say 0.8; default: 0, off")
    option("--dry-base", type=float, metavar="X", help="by how much it grows with each token; default: 1.75")
    option("--dry-allowed-length", type=int, metavar="N", help="what may be repeated, in tokens; default: 2")
    option(
        "--dry-sequence-breaker",
        dest="dry_sequence_breakers",
        action="append",
        metavar="TEXT",
        help='repetition ends at tokens with this text; may be repeated; default: a new line, : " and *',
    )


def _define_words(command: Parser) -> None:
    option = _group(command, "words", "Single tokens can be made likelier or banned, and words that are several.")
    option(
        "--logit-bias",
        action="append",
        type=_bias,
        metavar="ID=BIAS",
        help="add to the logit of a token: 5 calls for it, -inf bans it; may be repeated",
    )
    option("--choice", action="append", metavar="TEXT", help="the text is one of these; may be repeated")
    option("--regex", metavar="PATTERN", help='the text matches this; like these needs pip install "nbgpt[constrain]"')
    option("--json-schema", metavar="SCHEMA", help="the text is JSON that fits this")
    option("--bad-word", dest="bad_words", action="append", metavar="TEXT", help="never say it; may be repeated")


def _define_speed(command: Parser) -> None:
    option = _group(command, "speed", "Guesses that one pass can check together; the text is the same.")
    option("--prompt-lookup", action="store_true", help="guess that the text repeats itself")
    option("--draft-model", metavar="MODEL", help="let a smaller model of the same vocabulary guess")


def _define_output(command: Parser) -> None:
    option = _group(command, "output", "Text alone goes to standard output, figures to standard error.")
    option("--echo", action="store_true", help="write the prompt too")
    option(
        "--color", action="store_true", default=False, help="shade tokens by probability: red unlikely, green likely"
    )
    option("--json", action="store_true", default=False, help="a JSON object a text, in one line, instead of the text")
    option("--logprobs", type=int, metavar="N", help="with --json: log-probabilities of tokens and of the N likeliest")


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=BIAS, as 262=-5") from None


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
    prompt = _read_prompt(options)
    model = load_model(options)
    if is_search:
        return search(model, prompt, options)
    asked = {"seed": random_seed(), **_asked(options)}
    streams = model.stream(prompt, n=n, **asked)
    if options.json:
        return _write_json(streams, model, options.quiet)
    for sample, stream in enumerate(streams):
        write("---\n" * (sample > 0))
        try:
            write_pieces(_shade(stream) if options.color else stream)
        finally:
            _note_figures(stream, model, options.quiet)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `Model.generate` that were given."""
    from ..model import load
    from ..text.options import Options

    asked = {name: value for name, value in vars(options).items() if name in Options.__annotations__}
    asked["stop"] = [*asked.get("stop", ()), *getattr(options, "stop_id", ())]
    if "draft_model" in asked:
        asked["draft_model"] = load(asked["draft_model"])
    asked["logit_bias"] = dict(asked.get("logit_bias", ()))
    return asked | {"logprobs": 0} if options.color else asked


def _read_prompt(options: argparse.Namespace) -> str:
    if options.prompt is not None and options.file is not None:
        raise ValueError("a prompt and --file are given; choose one")
    if options.prompt not in (None, "-"):
        return decode(options.prompt.encode(errors="surrogateescape"), "the prompt")
    file = options.prompt or options.file
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        return ""
    return read_text(file or "-").removesuffix("\n")


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


def _shade(stream: Stream) -> Iterator[str]:
    """The pieces of a stream, what each token says in its colour."""
    at, said, logprob = 0, "", 0.0
    for piece in stream:
        while piece:
            while not said and at < len(stream.logprobs):  # several tokens may make one character
                one = stream.logprobs[at]
                said, logprob, at = one.text, logprob + (one.logprob or 0.0), at + 1
            part = piece[: len(said) or None]
            yield shaded(part, math.exp(logprob))
            piece, said = piece[len(part) :], said[len(part) :]
            if not said:
                logprob = 0.0


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
        return tokenizer.decode([token]) if token < tokenizer.n_vocab else ""

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
