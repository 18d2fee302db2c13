"""HellaSwag: which of four endings continues a description? Zellers et al. 2019, by two protocols."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from ..engine.engine import Engine
from ..tokenizer import Tokenizer
from ..validation import check
from .choices import Norm, accuracies, score_examples
from .estimate import Measurement
from .examples import Example, Row, encode_apart, encode_pair, rows

Protocol = Literal["lm-eval", "llm.c"]
PROTOCOLS = get_args(Protocol)
_ABOUT = {
    "lm-eval": "lm-evaluation-harness, hellaswag: the activity before the context, brackets removed; acc by the sum of "
    "an ending's log-probabilities, acc_norm by the sum divided by its characters",
    "llm.c": "llm.c, dev/data/hellaswag.py: the context, a space, and each ending; acc by the sum of an ending's "
    "log-probabilities, acc_norm by their mean over its tokens",
}
_BRACKETS = re.compile(r"\[.*?\]")


def read_hellaswag(text: str, where: str, protocol: Protocol = "lm-eval") -> list[Example]:
    """Examples of a JSONL file as it is published (hellaswag_val.jsonl).

    Args:
        text: of the file.
        where: its name, for messages.
        protocol: "lm-eval" reads `activity_label`, `ctx_a`, `ctx_b`, `endings` and `label`; "llm.c" reads `ctx`,
            `endings` and `label`.

    Raises:
        FormatError: a line is of another form.
        ValueError: no protocol has this name.
    """
    check("protocol", protocol, str, lambda name: name in PROTOCOLS, " or ".join(PROTOCOLS))
    read = _of_the_harness if protocol == "lm-eval" else _of_llm_c
    return [read(row) for row in rows(text, where)]


def hellaswag(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    protocol: Protocol = "lm-eval",
    *,
    bos: bool | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Measurement:
    """How often the likeliest ending is the right one. Arguments, results and errors as for `choices.choices`.

    protocol: the one that the examples were read by. 124M has acc 0.2892 and acc_norm 0.3114 by lm-evaluation-harness,
    0.2859 and 0.2955 by llm.c (both as llm.c reports them).
    """
    encode, norm = _WAYS[protocol]
    found, n_truncated = score_examples(engine, tokenizer, examples, encode, bos, progress)
    return Measurement(_ABOUT[protocol], len(examples), n_truncated, accuracies(examples, found, norm))


_WAYS: dict[Protocol, tuple[Callable[..., tuple[list[int], list[int]]], Norm]] = {
    "lm-eval": (encode_pair, "characters"),
    "llm.c": (encode_apart, "tokens"),
}


def _of_the_harness(row: Row) -> Example:
    """As lm_eval/tasks/hellaswag/utils.py has it."""
    endings = row.texts("endings")
    context = f"{row.text('ctx_a')} {row.maybe_empty('ctx_b').capitalize()}"
    choices = tuple(map(_without_brackets, endings))
    return Example(
        _without_brackets(f"{row.text('activity_label')}: {context}") + " ", choices, row.label("label", len(endings))
    )


def _without_brackets(text: str) -> str:
    """The text without the marks that WikiHow's articles have left."""
    return _BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _of_llm_c(row: Row) -> Example:
    endings = row.texts("endings")
    return Example(f"{row.text('ctx')} ", tuple(endings), row.label("label", len(endings)))
