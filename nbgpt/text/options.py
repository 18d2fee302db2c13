"""What may be asked of `generate` and `stream`, and what it means in ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from numbers import Integral
from operator import index
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..engine.scheduler import BATCH_SIZE, Overflow
from ..sampling.params import LogitsProcessor, PerText, SamplingParams
from ..tokenizer import Tokenizer
from ..validation import check

if TYPE_CHECKING:
    from ..model import Model

Stop = str | int | Iterable[str | int]
DRY_BREAKERS = ("\n", ":", '"', "*")


class Options(TypedDict, total=False):
    """The keyword arguments of `Model.generate` and `Model.stream`: see there what they mean."""

    max_tokens: int | None
    min_tokens: int
    stop: Stop | None
    ignore_eos: bool
    max_time: float
    overflow: Overflow
    bos: bool | None
    prefix: str

    temperature: float
    greedy: bool
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    mirostat_tau: float
    mirostat_eta: float
    seed: int | None
    sample: int

    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram_size: int
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_sequence_breakers: Iterable[str]
    logit_bias: Mapping[int, float]
    bad_words: Iterable[str | Sequence[int]]
    logits_processors: Iterable[LogitsProcessor | PerText]
    choice: Iterable[str] | None
    regex: str | None
    json_schema: Mapping[str, Any] | bool | str | None

    logprobs: int | None
    echo: bool
    batch_size: int
    prompt_lookup: bool
    draft_model: Model | None


def check_names(options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that does not exist, with the nearest that does."""
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, 1)
            raise TypeError(f"no option is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


@dataclass(frozen=True)
class Settings:
    """Options as the loop needs them: defaults filled in and texts as ids."""

    sampling: SamplingParams
    seed: int | None
    sample: int
    max_tokens: int | None
    stop_texts: list[str]
    stop_ids: frozenset[int]
    max_time: float
    overflow: Overflow
    bos: bool | None
    prefix: list[int]
    logprobs: int | None
    echo: bool
    batch_size: int
    prompt_lookup: bool
    draft_model: Model | None


def settle(
    tokenizer: Tokenizer,
    *,
    max_tokens: int | None = None,
    stop: Stop | None = None,
    ignore_eos: bool = False,
    max_time: float = inf,
    overflow: Overflow = "error",
    bos: bool | None = None,
    prefix: str = "",
    seed: int | None = None,
    sample: int = 0,
    logprobs: int | None = None,
    echo: bool = False,
    batch_size: int = BATCH_SIZE,
    prompt_lookup: bool = False,
    draft_model: Model | None = None,
    **choice: Any,
) -> Settings:
    """Raises ValueError for values that are never allowed, whatever the prompt."""
    _check_switches(ignore_eos=ignore_eos, echo=echo, prompt_lookup=prompt_lookup)
    check("prefix", prefix, str, allowed="a text")
    check("sample", sample, Integral, lambda n: 0 <= n < 1 << 64, "from 0 to 2^64 - 1")
    check("batch_size", batch_size, Integral, lambda n: n >= 1, "from 1 on")
    if prompt_lookup and draft_model is not None:
        raise ValueError("prompt_lookup and draft_model are given; choose one")
    stop_texts, stop_ids = _stops(stop)
    sampling = _sampling(tokenizer, seed=0 if seed is None else seed, **choice)
    return Settings(
        sampling=sampling,
        seed=None if seed is None else sampling.seed,
        sample=index(sample),
        max_tokens=max_tokens,
        stop_texts=stop_texts,
        stop_ids=stop_ids if ignore_eos else stop_ids | tokenizer.eos_ids,
        max_time=max_time,
        overflow=overflow,
        bos=bos,
        prefix=tokenizer.encode(prefix),
        logprobs=logprobs,
        echo=echo,
        batch_size=batch_size,
        prompt_lookup=prompt_lookup,
        draft_model=draft_model,
    )


def _sampling(
    tokenizer: Tokenizer,
    *,
    greedy: bool = False,
    dry_sequence_breakers: Iterable[str] = DRY_BREAKERS,
    bad_words: Iterable[str | Sequence[int]] = (),
    logits_processors: Iterable[LogitsProcessor | PerText] = (),
    choice: Iterable[str] | None = None,
    regex: str | None = None,
    json_schema: Mapping[str, Any] | bool | str | None = None,
    **numbers: Any,
) -> SamplingParams:
    _check_switches(greedy=greedy)
    breakers = _list("dry_sequence_breakers", dry_sequence_breakers)
    forms = {"choice": choice, "regex": regex, "json_schema": json_schema}
    processors = _list("logits_processors", logits_processors) + [
        _constraint(tokenizer, name, form) for name, form in forms.items() if form is not None
    ]
    sampling = SamplingParams(
        **numbers,
        bad_words=tuple(ids for word in _list("bad_words", bad_words) for ids in _spellings(tokenizer, word)),
        dry_sequence_breakers=_holding(tokenizer, breakers) if numbers.get("dry_multiplier") else frozenset(),
        logits_processors=tuple(processors),
    )
    return replace(sampling, temperature=0.0) if greedy else sampling


def _check_switches(**switches: Any) -> None:
    """Raise ValueError for what is neither on nor off: the text "false" would count as on."""
    for name, value in switches.items():
        check(name, value, (bool, np.bool_), allowed="True or False")


def _stops(stop: Any) -> tuple[list[str], frozenset[int]]:
    """The stop texts and the stop ids."""
    if stop is None:
        return [], frozenset()
    texts: list[str] = []
    ids: set[int] = set()
    for one in [stop] if isinstance(stop, (str, bytes, bytearray)) or not isinstance(stop, Iterable) else stop:
        if isinstance(one, str) and one:
            texts.append(one)
        elif isinstance(one, Integral) and not isinstance(one, bool):
            ids.add(int(one))
        else:
            raise ValueError(
                f"stop has {one!r}; it must be a text of at least one character, a token id, or a list of them"
            )
    return texts, frozenset(ids)


def _constraint(tokenizer: Tokenizer, name: str, form: Any) -> PerText:
    from ..sampling.structured_output import Constraint

    return Constraint(tokenizer, name, form)


def _list(name: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} is {value!r}; it must be a list")
    return list(value)


def _spellings(tokenizer: Tokenizer, word: Any) -> list[tuple[int, ...]]:
    """Ids of a bad word, which as a text has others after a space."""
    if isinstance(word, str):
        return [tuple(tokenizer.encode(text)) for text in dict.fromkeys((word, " " + word.lstrip(" ")))]
    if isinstance(word, Iterable) and not isinstance(word, (bytes, bytearray)):
        return [tuple(word)]
    raise ValueError(f"bad_words has {word!r}; each must be a text or a list of token ids")


def _holding(tokenizer: Tokenizer, texts: list[str]) -> frozenset[int]:
    """Ids of the tokens in which one of the texts stands."""
    result = set()
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"dry_sequence_breakers has {text!r}; each must be a text")
        part = text.encode()
        found = [i for i, token in enumerate(tokenizer.tokens) if part in token]
        if not part or not found:
            raise ValueError(f"dry_sequence_breakers has {text!r}; each must stand in some token")
        result.update(found)
    return frozenset(result)
