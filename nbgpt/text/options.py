"""The options of `Model.generate`: declarations of those about text, and the conversion of all of them to ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, runtime_checkable

from ..sampling.declaration import Option, Range, check_fields, declared, option, whole
from ..sampling.params import LogitsProcessor, Overflow, PerRequestProcessor, SamplingParams

if TYPE_CHECKING:  # the command line reads the declarations before it may import NumPy
    from ..engine.engine import Engine
    from ..tokenizer import Tokenizer

Stop = str | int | Iterable[str | int]


@runtime_checkable
class DraftModel(Protocol):
    """A model that guesses tokens for another one: a `Model`."""

    engine: Engine


class Options(TypedDict, total=False):
    """The keyword arguments of `Model.generate` and `Model.stream`, for type checkers: `OPTIONS` has their meaning."""

    max_tokens: int | None
    min_tokens: int
    stop: Stop | None
    ignore_eos: bool
    max_time: float
    overflow: Overflow
    bos: bool | None
    special: bool
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
    batch_size: int

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
    logits_processors: Iterable[LogitsProcessor | PerRequestProcessor]
    choice: Iterable[str] | None
    regex: str | None
    json_schema: Mapping[str, Any] | bool | str | None

    logprobs: int | None
    echo: bool

    prompt_lookup: bool
    draft_model: DraftModel | None


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The options of a request that are about text, beside `SamplingParams`.

    Raises:
        ValueError: names the option, its value and what is allowed.
    """

    stop: tuple[str, ...] = option(
        None,
        "length",
        "end the text before any of these texts or token ids",
        Iterable,
        stored=(),
        takes="Stop | None",
        metavar="TEXT",
    )
    ignore_eos: bool = option(False, "length", "take <|endoftext|> for a token like any other", bool)
    bos: bool | None = option(None, "length", "begin with <|endoftext|>", bool, default_text="as the model's file says")
    special: bool = option(
        False, "words", "names of special tokens in the prompt stand for those tokens; else they are text", bool
    )
    greedy: bool = option(False, "sampling", "take the likeliest token, as temperature 0 does", bool)
    batch_size: int = whole(
        16,
        Range("from 1 on", lambda n: n >= 1),
        "samples",
        "N",
        "how many texts are generated together at most; each takes memory",
    )
    choice: Iterable[str] | None = option(None, "form", "the new text is one of these", Iterable, metavar="TEXT")
    regex: str | None = option(None, "form", "the new text matches this regular expression", str, metavar="PATTERN")
    json_schema: Mapping[str, Any] | bool | str | None = option(
        None, "form", "the new text is JSON that fits this schema", str, metavar="SCHEMA"
    )
    prompt_lookup: bool = option(False, "speed", "guess that the text repeats itself", bool)
    draft_model: DraftModel | None = option(  # noqa: RUF009 - a dataclass field
        None,
        "speed",
        "let a smaller model of the same vocabulary guess",
        DraftModel,
        allowed="a Model, as nbgpt.load gives it",
        metavar="MODEL",
    )
    has_max_tokens: bool = True
    """False if `SamplingParams.max_tokens` is the default, which the caller fits to the context."""
    has_seed: bool = True
    """False if `SamplingParams.seed` is the default, in place of which the caller puts a random one."""

    @property
    def forms(self) -> dict[str, Any]:
        """Forms that the new text must have, by the name of the option."""
        return {name: form for name in _FORMS if (form := getattr(self, name)) is not None}

    def __post_init__(self) -> None:
        check_fields(self)
        if self.prompt_lookup and self.draft_model is not None:
            raise ValueError("prompt_lookup and draft_model are given; choose one")


_FORMS = ("choice", "regex", "json_schema")
OPTIONS: Final[Mapping[str, Option]] = declared(SamplingParams) | declared(TextOptions)
"""Every keyword argument of `Model.generate`, by name."""


def check_names(options: Iterable[str]) -> None:
    """Raise TypeError for an option that does not exist, with the name nearest to it."""
    for name in options:
        if name not in OPTIONS:
            from difflib import get_close_matches

            near = get_close_matches(name, OPTIONS, 1)
            raise TypeError(f"no option is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def parse(tokenizer: Tokenizer, options: Mapping[str, Any]) -> tuple[SamplingParams, TextOptions]:
    """Check the options of a request, fill in defaults, and turn texts into token ids.

    Args:
        tokenizer: the model's.
        options: keyword arguments of `Model.generate`.

    Returns:
        The options in terms of ids, and those about text. If max_tokens or seed is None or not given, it has the
        default of `SamplingParams`, and has_max_tokens or has_seed of `TextOptions` is False.

    Raises:
        TypeError: an option does not exist.
        ValueError: a value is never allowed, whatever the model and the prompt.
    """
    check_names(options)
    given = {name: one.default for name, one in OPTIONS.items()} | dict(options)
    is_default = {name: one.default is None and given[name] is None for name, one in OPTIONS.items()}
    stop, stop_ids = _stops(given["stop"])
    text = TextOptions(
        **{name: given[name] for name in declared(TextOptions) if name != "stop"},
        stop=stop,
        has_max_tokens=not is_default["max_tokens"],
        has_seed=not is_default["seed"],
    )
    as_given = {name for name, one in declared(SamplingParams).items() if not (one.is_converted or is_default[name])}
    params = SamplingParams(
        **{name: given[name] for name in as_given},
        stop_ids=stop_ids if text.ignore_eos else stop_ids | tokenizer.eos_ids,
        prefix=_prefix(tokenizer, given["prefix"]),
        bad_words=tuple(ids for word in _list("bad_words", given["bad_words"]) for ids in _spellings(tokenizer, word)),
        dry_sequence_breakers=_breakers(tokenizer, given),
        logits_processors=(*_list("logits_processors", given["logits_processors"]), *_constraints(tokenizer, text)),
    )
    return (replace(params, temperature=0.0) if text.greedy else params), text


def check_options(tokenizer: Tokenizer, options: Mapping[str, Any]) -> None:
    """Raise what `parse` raises, but for the form of the text, which takes time to compile."""
    parse(tokenizer, {name: value for name, value in options.items() if name not in _FORMS})


def _prefix(tokenizer: Tokenizer, prefix: Any) -> tuple[int, ...]:
    OPTIONS["prefix"].checked(prefix)
    return tuple(tokenizer.encode(prefix))


def _stops(stop: Any) -> tuple[tuple[str, ...], frozenset[int]]:
    """The stop strings and the stop ids."""
    if stop is None:
        return (), frozenset()
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
    return tuple(texts), frozenset(ids)


def _constraints(tokenizer: Tokenizer, text: TextOptions) -> list[PerRequestProcessor]:
    """Logits processors for structured output."""
    asked = text.forms
    if not asked:
        return []
    from ..sampling.structured_output import Constraint

    return [Constraint(tokenizer, name, form) for name, form in asked.items()]


def _list(name: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} is {value!r}; it must be a list")
    return list(value)


def _spellings(tokenizer: Tokenizer, word: Any) -> list[tuple[int, ...]]:
    """Token ids of a bad word; of a text both without and with a space before it."""
    if isinstance(word, str):
        return [tuple(tokenizer.encode(text)) for text in dict.fromkeys((word, " " + word.lstrip(" ")))]
    if isinstance(word, Iterable) and not isinstance(word, (bytes, bytearray)):
        return [tuple(word)]
    raise ValueError(f"bad_words has {word!r}; each must be a text or a list of token ids")


def _breakers(tokenizer: Tokenizer, given: Mapping[str, Any]) -> frozenset[int]:
    """Ids of the tokens that contain a sequence breaker; none without DRY, since the search takes a while."""
    texts = _list("dry_sequence_breakers", given["dry_sequence_breakers"])
    if not given["dry_multiplier"]:
        return frozenset()
    result: set[int] = set()
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"dry_sequence_breakers has {text!r}; each must be a text")
        part = text.encode()
        found = [i for i, token in enumerate(tokenizer.tokens) if part in token]
        if not part or not found:
            raise ValueError(f"dry_sequence_breakers has {text!r}; each must stand in some token")
        result.update(found)
    return frozenset(result)
