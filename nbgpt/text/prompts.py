"""From prompts and options to requests, and to the writers that turn their ids into text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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


class Prompt:
    """A prompt with options of its own, for calls with several prompts: they go before the options of the call.

    >>> Prompt("Once upon a time", max_tokens=5, seed=1)
    Prompt('Once upon a time', max_tokens=5, seed=1)
    """

    def __init__(self, text: str, **options: Unpack[Options]) -> None:
        """Options as for `Model.generate`, but for batch_size, which is the call's."""
        if "batch_size" in options:
            raise TypeError("batch_size is given for one prompt; it belongs to the call")
        self.text = text
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Prompt({self.text!r}{options})"


Prompts = list[str] | list[Prompt] | list[str | Prompt] | tuple[str | Prompt, ...]


def as_prompts(prompts: Any) -> list[Prompt]:
    """One prompt or several, with options or without, as a list."""
    is_one = isinstance(prompts, (str, bytes, Prompt)) or not isinstance(prompts, Iterable)
    return [one if isinstance(one, Prompt) else Prompt(one) for one in ([prompts] if is_one else prompts)]


def new_writers(
    engine: Engine,
    tokenizer: Tokenizer,
    text: str,
    params: SamplingParams,
    asked: TextOptions,
    *,
    n: int = 1,
    kept: KeptText | None = None,
) -> list[Writer]:
    """A writer for each of n samples of a prompt, whose options `parse` has split into params and asked.

    kept: the text of a session that the prompt may begin with. Raises ValueError as `Model.generate`.
    """
    ids = tokenizer.encode_prompt(text, asked.bos)
    if not asked.has_max_tokens and params.overflow == "error":
        params = replace(params, max_tokens=max(1, min(params.max_tokens, engine.config.n_ctx - len(ids))))
    if not asked.has_seed:
        params = replace(params, seed=random_seed())
    writers = []
    for number in range(n):
        sampled = replace(params, sample=params.sample + number) if number else params
        request = Request(engine.config, ids, sampled, speculation=_speculation(engine, asked), kept=kept)
        writers.append(Writer(tokenizer, request, asked.stop, text if params.echo else ""))
    return writers


def _speculation(engine: Engine, asked: TextOptions) -> Speculation | None:
    if asked.draft_model is not None:
        return Speculation(ModelDraft(asked.draft_model.engine, engine))
    return Speculation(PromptLookup()) if asked.prompt_lookup else None
