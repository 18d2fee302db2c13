"""From prompts and options to requests, and to the writers that turn their ids into text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decoding.speculative import ModelDraft, PromptLookup
from ..engine.engine import Engine
from ..engine.kept_text import KeptText
from ..engine.request import Request, random_seed
from ..engine.speculation import Speculation
from ..sampling.params import SamplingParams
from ..tokenizer import Tokenizer
from .options import Options, TextOptions
from .stream import Writer

if TYPE_CHECKING:
    from typing_extensions import Unpack


Text = str | Sequence[int]
"""A text, or its token ids."""


class Prompt:
    """A prompt with options of its own, for calls with several prompts: they go before the options of the call.

    >>> Prompt("Once upon a time", max_tokens=5, seed=1)
    Prompt('Once upon a time', max_tokens=5, seed=1)
    """

    def __init__(self, text: Text, **options: Unpack[Options]) -> None:
        """Options as for `Model.generate`, but for batch_size, which is the call's."""
        if "batch_size" in options:
            raise TypeError("batch_size is given for one prompt; it belongs to the call")
        self.text = text
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Prompt({self.text!r}{options})"


Prompts = list[str] | list[list[int]] | list[Prompt] | list[Text | Prompt] | tuple[str | Prompt, ...]
"""Several prompts."""


def as_prompts(prompts: Any) -> list[Prompt]:
    """One prompt or several, with options or without, as a list."""
    return [one if isinstance(one, Prompt) else Prompt(one) for one in ([prompts] if is_one(prompts) else prompts)]


def is_one(prompts: Any) -> bool:
    """True for a single prompt, which may be a list of token ids; False for a list of prompts."""
    if isinstance(prompts, (str, bytes, Prompt)) or not isinstance(prompts, Iterable):
        return True
    return isinstance(prompts, Sequence | np.ndarray) and len(prompts) > 0 and isinstance(prompts[0], Integral)


def new_writers(
    engine: Engine,
    tokenizer: Tokenizer,
    text: Text,
    params: SamplingParams,
    asked: TextOptions,
    *,
    n: int = 1,
    kept: KeptText | None = None,
) -> list[Writer]:
    """A writer for each of n samples of a prompt, whose options `parse` has split into params and asked.

    kept: the text of a session that the prompt may begin with. Raises ValueError as `Model.generate`.
    """
    ids = tokenizer.encode_prompt(text, asked.bos, asked.special)
    if not asked.has_max_tokens and params.overflow == "error":
        room = engine.config.n_ctx + 1 - len(ids)  # the last token is not read
        params = replace(params, max_tokens=max(1, min(params.max_tokens, room)))
    n_free = params.min_tokens
    if isinstance(text, str) and not text and not asked.forms:
        params = replace(params, min_tokens=max(1, n_free))  # a text, and not its end at once
    if not asked.has_seed:
        params = replace(params, seed=random_seed())
    opening = (text if isinstance(text, str) else tokenizer.decode(ids)) if params.echo else ""
    writers = []
    for number in range(n):
        sampled = replace(params, sample=params.sample + number) if number else params
        speculation = _speculation(engine, asked)
        request = Request(
            engine.config,
            ids,
            sampled,
            absent_ids=engine.absent_ids,
            can_draw=engine.runner.can_draw,
            speculation=speculation,
            kept=kept,
        )
        writers.append(Writer(tokenizer, request, asked.stop, n_free, opening))
    return writers


def _speculation(engine: Engine, asked: TextOptions) -> Speculation | None:
    if asked.draft_model is not None:
        return Speculation(ModelDraft(asked.draft_model.engine, engine))
    return Speculation(PromptLookup()) if asked.prompt_lookup else None
