"""`summarize`, `translate`, `answer` and `rank`: uses of a language model that need no training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..text.options import OPTIONS
from .generation_options import add_option, given_options
from .parser import add, add_bos, add_model, load_model
from .terminal import line_batches, read_prompt, read_text, write

if TYPE_CHECKING:
    from ..model import Model
    from ..tasks.zero_shot import Pairs
    from .parser import Commands, Parser

_GREEDY = {"max_tokens": "100", "temperature": "greedy", "top_k": "", "seed": "", "overflow": "", "bos": ""}
_DRAWN = {**_GREEDY, "temperature": "1", "top_k": "2"}
"""Options of a task, with the default where it is not that of `generate`: the paper's."""


def _add_task(commands: Commands, name: str, text: str, run: Any, given: str, options: Mapping[str, str]) -> Parser:
    """Add a subcommand that takes a text and answers with one."""
    command = add(commands, name, text, run)
    command.add_argument("prompt", metavar="TEXT", nargs="*", help=f"{given}; without it, --file or standard input")
    command.add_argument("-f", "--file", help=f"read {given} from a file; - is standard input")
    add_model(command)
    command.add_argument("--json", action="store_true", help="an object with the text, the prompt and the seed")
    for option, default in options.items():
        add_option(command, OPTIONS[option], default)
    return command


def _add_pairs(command: Parser, first: str, second: str) -> None:
    """Add the options for examples."""
    metavar = (first.upper(), second.upper())
    text = f"an example: a {first} and its {second}; may be repeated"
    command.add_argument("--pair", nargs=2, action="append", default=[], metavar=metavar, help=text)
    command.add_argument("--pairs", metavar="FILE", help=f"examples: on each line a {first}, a tab and its {second}")


def define_summarize(commands: Commands) -> None:
    """Add the subcommand."""
    about = "summarize an article: three sentences of what the model writes after TL;DR:"
    _add_task(commands, "summarize", about, _summarize, "the article", _DRAWN)


def define_translate(commands: Commands) -> None:
    """Add the subcommand."""
    about = "translate a sentence: examples show the model both languages"
    command = _add_task(commands, "translate", about, _translate, "the sentence", _GREEDY)
    _add_pairs(command, "sentence", "translation")


def define_answer(commands: Commands) -> None:
    """Add the subcommand."""
    about = "answer a question, about a text if one is given"
    command = _add_task(commands, "answer", about, _answer, "the question", _GREEDY)
    command.add_argument("--context", metavar="FILE", help="a text that the question is about")
    _add_pairs(command, "question", "answer")


def define_rank(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "rank", "sort choices by how likely they follow a text, likeliest first", _rank)
    command.add_argument("prompt", metavar="TEXT", nargs="*", help="the text; without it, --file or standard input")
    command.add_argument("-f", "--file", help="read the text from a file; - is standard input")
    command.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="TEXT",
        help='a choice; begin a word with a space: " yes"; may be repeated',
    )
    command.add_argument("--choices", metavar="FILE", help="choices, one a line")
    add_model(command)
    add_bos(command, "begin with <|endoftext|>; default: as the model's file says")
    command.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="sort by log-probability per token; default: yes",
    )
    command.add_argument("--json", action="store_true", help="a line of JSON for each choice")


def _text(options: argparse.Namespace) -> str:
    text = read_prompt(options)
    if not text.strip():
        raise ValueError("there is no text: give it as an argument, with --file, or on standard input")
    return text


def _pairs(options: argparse.Namespace) -> Pairs:
    """The examples, those of the file first. Raises ValueError for a line without a tab."""
    pairs = [tuple(pair) for pair in options.pair]
    if options.pairs is None:
        return pairs
    lines = [line for batch in line_batches(options.pairs) for line in batch if line.strip()]
    for line in lines:
        if line.count("\t") != 1:
            raise ValueError(f"{options.pairs} has the line {line!r:.60}; each needs two texts with a tab between them")
    return [*(tuple(line.split("\t")) for line in lines), *pairs]


def _run(options: argparse.Namespace, prompt: str, task: Callable[[Model, dict[str, Any]], str]) -> None:
    """Load the model, do the task, write its answer."""
    from ..engine.request import random_seed

    model = load_model(options)
    asked = {"seed": random_seed(), **given_options(options)}
    text = task(model, asked)
    fields = {"text": text, "prompt": prompt, "seed": asked["seed"]}
    write((json.dumps(fields, ensure_ascii=False) if options.json else text) + "\n")


def _summarize(options: argparse.Namespace) -> None:
    from ..tasks.zero_shot import summarize, summary_prompt

    article = _text(options)
    _run(options, summary_prompt(article), lambda model, asked: summarize(model, article, **asked))


def _translate(options: argparse.Namespace) -> None:
    from ..tasks.zero_shot import translate, translation_prompt

    text, pairs = _text(options), _pairs(options)
    if not pairs:
        raise ValueError('no example is given; a model needs some, as --pair "sea otter" "loutre de mer"')
    _run(options, translation_prompt(text, pairs), lambda model, asked: translate(model, text, pairs, **asked))


def _answer(options: argparse.Namespace) -> None:
    from ..tasks.zero_shot import answer, answer_prompt

    question, pairs = _text(options), _pairs(options)
    context = "" if options.context is None else read_text(options.context)
    prompt = answer_prompt(question, pairs, context)
    _run(options, prompt, lambda model, asked: answer(model, question, pairs, context, **asked))


def _rank(options: argparse.Namespace) -> None:
    text, choices = read_prompt(options), list(options.choice)
    if options.choices is not None:
        choices += [line for batch in line_batches(options.choices) for line in batch if line]
    if not choices:
        raise ValueError('no choice is given; give two or more, as --choice " yes" --choice " no"')
    for choice, logprob in load_model(options).rank(text, choices, normalize=options.normalize, bos=options.bos):
        fields = {"choice": choice, "logprob": logprob}
        write((json.dumps(fields, ensure_ascii=False) if options.json else f"{logprob:.4f}\t{choice}") + "\n")
