"""`fewshot`: a template is filled from each row of a table, and the model chooses or writes what follows."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import counting
from ..text.options import OPTIONS
from .generation_options import add_option, given_options
from .measures import shown
from .parser import add, add_model, load_model
from .terminal import note, write

if TYPE_CHECKING:
    from ..model import Model
    from .parser import Commands

_BATCH = 16
"""Rows whose texts are generated together."""
_OPTIONS = {"max_tokens": "30", "stop": "a line break", "seed": "0"} | dict.fromkeys(
    ("temperature", "greedy", "top_k", "top_p", "bos"), ""
)
"""Options of `generate`, with the default where it is another one."""
_DEFAULTS = {"max_tokens": 30, "stop": ["\n"], "seed": 0}
_EXAMPLE = """
a template that shows the model examples from another file:
  {% for one in examples %}{{ one.text }} => {{ one.label }}
  {% endfor %}{{ text }} =>

  python -m nbgpt fewshot sentiment.jinja reviews.csv --examples shown.csv --shots 8 --seed 1 \\
      --choice " good" --choice " bad" --label-column label
"""


def define_fewshot(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "fewshot", "fill a template from rows, then choose or write what follows", _fewshot)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.description = f'{command.description} Templates need pip install "nbgpt[templates]".'
    command.epilog = _EXAMPLE
    command.add_argument("template", help="a Jinja file, in which columns are variables")
    command.add_argument("data", help="rows: .csv, .tsv or .jsonl")
    command.add_argument("--examples", metavar="FILE", help="rows that the template shows, as `examples`")
    command.add_argument("--shots", type=int, metavar="N", help="how many of them, drawn by --seed; default: all")
    command.add_argument(
        "--choice",
        dest="choices",
        action="append",
        default=[],
        metavar="TEXT",
        help='choose among these; begin a word with a space: " yes"; may be repeated',
    )
    command.add_argument("--choices-column", metavar="NAME", help="the column of each row's own choices, a JSON list")
    command.add_argument("--label-column", metavar="NAME", help="the column of the right texts: shows the accuracy")
    add_model(command)
    command.add_argument("--json", action="store_true", help="a line of JSON for each row, with the prompt")
    group = command.add_argument_group("writing", "Without choices the model writes a text for each row.")
    for name, default in _OPTIONS.items():
        add_option(group, OPTIONS[name], default)


def _fewshot(options: argparse.Namespace) -> None:
    import numpy as np

    from ..analysis.estimate import mean_of
    from ..tasks.few_shot import FewShot, drawn
    from ..tasks.rows import column, read_rows
    from ..tasks.templates import TextTemplate

    asked = {**_DEFAULTS, **given_options(options)}
    template = TextTemplate(Path(options.template).read_text(encoding="utf-8"), options.template)
    rows, examples = read_rows(options.data), read_rows(options.examples) if options.examples else []
    if options.shots is not None:
        examples = drawn(examples, options.shots, asked["seed"])
    prompts = list(map(FewShot(template, examples).prompt, rows))
    labels = column(rows, options.label_column) if options.label_column else None
    choices = column(rows, options.choices_column) if options.choices_column else [options.choices] * len(rows)
    found = _chosen if options.choices or options.choices_column else _written
    results, texts = found(load_model(options), prompts, choices, asked), []
    with counting("fewshot", "row") as progress:
        for row, prompt, result in zip(rows, prompts, results, strict=True):
            texts.append(result["text"].strip())
            fields = {**result, "prompt": prompt, "row": row}
            write((json.dumps(fields, ensure_ascii=False) if options.json else _line(result)) + "\n")
            progress(len(texts), len(rows))
    if labels is not None:
        right = [text == str(label).strip() for text, label in zip(texts, labels, strict=True)]
        note(f"accuracy {shown(mean_of(np.array(right, float)))}, {sum(right)} of {len(rows)} rows")


def _chosen(model: Model, prompts: list[str], choices: list[Any], asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The likeliest choice of each row. Raises ValueError that names the row."""
    for number, (prompt, own) in enumerate(zip(prompts, choices, strict=True), start=1):
        try:
            ranked = model.rank(prompt, own, bos=asked.get("bos"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"row {number}: {error}") from None
        yield {"text": ranked[0][0], "logprobs": dict(ranked)}


def _written(model: Model, prompts: list[str], choices: list[Any], asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the model writes for each row. Raises ValueError that names the row."""
    for number, prompt in enumerate(prompts, start=1):
        n_tokens, n_ctx = len(model.encode(prompt, asked.get("bos"))), model.config.n_ctx
        if n_tokens + asked["max_tokens"] > n_ctx:
            raise ValueError(
                f"row {number}: its prompt has {n_tokens} tokens, beside --max-tokens {asked['max_tokens']} the "
                f"context has room for {n_ctx - asked['max_tokens']}: show fewer --shots"
            )
    for start in range(0, len(prompts), _BATCH):
        for one in model.generate(prompts[start : start + _BATCH], batch_size=_BATCH, **asked):
            yield {"text": one.text.strip(), "finish_reason": one.finish_reason}


def _line(result: dict[str, Any]) -> str:
    """A result in a line: the choice with its probability among the choices, or the text."""
    if "logprobs" not in result:
        return " ".join(result["text"].split("\n"))
    best = max(result["logprobs"].values())
    share = 1 / math.fsum(math.exp(logprob - best) for logprob in result["logprobs"].values())
    return f"{result['text'].strip()}\t{share:.4f}"
