"""Structured output: a choice of texts, a match of a regular expression, or JSON that fits a schema.

llguidance (https://github.com/guidance-ai/llguidance) computes which tokens the grammar allows after the text so far;
the logits of all others become -inf. <|endoftext|> is allowed exactly where the grammar may end; a text that max_tokens
cuts short (finish_reason "length") is a prefix of one that fits. Where the grammar allows only one text, its tokens are
the ones that the tokenizer makes of it; elsewhere the model also chooses how the text is split into tokens.
"""

from __future__ import annotations

import json
import reprlib
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


class HasTokenizer(Protocol):
    """Anything with a tokenizer, such as `nbgpt.Model`."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose tokens the grammar constrains."""
        ...


def choice(model: HasTokenizer, choices: Iterable[str]) -> Constraint:
    """A logits processor that makes the text one of `choices`.

    GPT-2's words begin with the space before them: after "The answer is", use " yes" and " no".

    Raises:
        ValueError: choices is not a list of texts, or one is empty.
        ImportError: llguidance is not installed.
    """
    return Constraint(model.tokenizer, "choice", choices)


def regex(model: HasTokenizer, pattern: str) -> Constraint:
    r"""A logits processor that makes the whole text match a regular expression.

    The syntax is Rust's (https://docs.rs/regex/#syntax), without look-around and back-references. `.` does not match a
    line break; `\d` and `\w` include all of Unicode.

    Raises:
        ValueError: the pattern is not valid, or matches no text.
        ImportError: llguidance is not installed.
    """
    return Constraint(model.tokenizer, "regex", pattern)


def json_schema(model: HasTokenizer, schema: Mapping[str, Any] | bool | str) -> Constraint:
    """A logits processor that makes the text JSON that fits a schema; the schema True allows any JSON.

    The JSON is formatted as by json.dumps, with properties in the order of the schema. The model decides where strings
    and lists end; maxLength and maxItems bound them.

    Args:
        model: whose tokenizer is used.
        schema: a JSON schema, as an object or as JSON text.

    Raises:
        ValueError: the schema is not valid, or uses keywords that llguidance lacks (see its docs/json_schema.md).
        ImportError: llguidance is not installed.
    """
    return Constraint(model.tokenizer, "json_schema", schema)


class Constraint:
    """A compiled grammar; `for_request` makes a logits processor with its own state for each request."""

    def __init__(self, tokenizer: Tokenizer, name: str, value: Any) -> None:
        """Compile the grammar.

        Args:
            tokenizer: the model's tokenizer.
            name: "choice", "regex" or "json_schema".
            value: the value of that option.

        Raises:
            ValueError: the value is not valid for the option.
            ImportError: llguidance is not installed.
        """
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise ImportError(f'{name} needs the package llguidance: pip install "nbgpt[constrain]"') from None
        self.tokenizer = tokenizer
        self.description = f"{name} is {reprlib.repr(value)}"
        make_grammar, self._allowed_values = _GRAMMARS[name]
        try:
            grammar = make_grammar(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._refusal(str(error)) from None
        self._matcher = LLMatcher(_vocabulary(tokenizer), grammar, log_level=0)
        self.allowed(self._matcher)  # raises if llguidance cannot use the grammar

    def for_request(self, n_prompt: int) -> Follower:
        """A logits processor for one request; the grammar applies to the ids after the first n_prompt."""
        return Follower(self, self._matcher.deep_copy(), n_prompt)

    def allowed(self, matcher: LLMatcher) -> np.ndarray:
        """Mask of the tokens that may come next: bool [n_vocab].

        Raises:
            ValueError: the grammar is not valid, or too large for llguidance.
        """
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            raise self._refusal(matcher.get_error())
        allowed = np.unpackbits(bits, count=self.tokenizer.n_vocab, bitorder="little").astype(bool)
        allowed[sorted(self.tokenizer.eos_ids)] = matcher.is_accepting()
        return allowed

    def _refusal(self, message: str) -> ValueError:
        reason = f" ({_reason(message)})" if message else ""
        return ValueError(f"{self.description}{reason}; it must be {self._allowed_values}")


class Follower:
    """The logits processor of one request: bans the tokens that the grammar does not allow next."""

    def __init__(self, constraint: Constraint, matcher: LLMatcher, n_prompt: int) -> None:
        self._constraint = constraint
        self._matcher = matcher
        self._n_prompt = n_prompt
        self._consumed: list[int] = []

    def __call__(self, ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Set the logits of tokens that the grammar does not allow after ids to -inf, in place.

        Args:
            ids: int32 [n], the text so far, prompt included.
            logits: float32 [n_vocab].

        Returns:
            logits.

        Raises:
            ValueError: the text so far does not follow the grammar.
        """
        self._follow(ids[self._n_prompt :].tolist())
        allowed = self._constraint.allowed(self._matcher)
        logits[: len(allowed)][~allowed] = -np.inf
        logits[len(allowed) :] = -np.inf  # padding of the vocabulary
        return logits

    def _follow(self, ids: list[int]) -> None:
        """Advance the matcher over ids; restart it if they do not extend what it has consumed."""
        tokenizer = self._constraint.tokenizer
        ends = [place for place, token in enumerate(ids) if token in tokenizer.eos_ids]
        if ends:  # with ignore_eos: the grammar begins again after the last end of text
            ids = ids[ends[-1] + 1 :]
        n_consumed = len(self._consumed)
        if ids[:n_consumed] != self._consumed:
            self._matcher.reset()
            n_consumed = 0
        if not self._matcher.consume_tokens(ids[n_consumed:]):
            text, reason = tokenizer.decode(ids), _reason(self._matcher.get_error())
            raise ValueError(f"{self._constraint.description}; a text cannot begin with {text!r} ({reason})")
        self._consumed = ids


def _reason(message: str) -> str:
    """The cause from llguidance's multi-line error message, cut to 80 characters."""
    lines = [line.strip() for line in message.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    reason = errors[0] if errors else lines[0].rpartition("(in regex): ")[2]
    if reason.startswith("NoExtension"):
        return "it fits no text"
    return reason if len(reason) <= 80 else reason[:79] + "…"


def _grammar_of_choices(choices: Any) -> str:
    from llguidance import LLMatcher

    texts = list(choices) if isinstance(choices, Iterable) and not isinstance(choices, (str, Mapping)) else []
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError
    return LLMatcher.grammar_from_regex("|".join(map(_escaped, texts)))


def _grammar_of_pattern(pattern: Any) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_regex(pattern)


def _grammar_of_schema(schema: Any) -> str:
    from llguidance import LLMatcher

    text = schema if isinstance(schema, str) else json.dumps(schema)
    if text.strip() == "false":
        raise ValueError("it fits no text")
    if text.strip() == "true":  # llguidance applies `defaults` to objects only
        text = "{}"
    return LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    )


def _escaped(text: str) -> str:
    """A regular expression that matches exactly this text."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


_GRAMMARS = {
    "choice": (_grammar_of_choices, "a list of texts, none of them empty"),
    "regex": (_grammar_of_pattern, "a regular expression without look-around and references, that fits some text"),
    "json_schema": (_grammar_of_schema, "a JSON schema, as an object or as text"),
}


_VOCABULARIES: dict[int, LLTokenizer] = {}  # by the id() of our tokenizer


def _vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """llguidance's form of a tokenizer: takes 0.1 s to make, so it is cached as long as the tokenizer lives."""
    from llguidance import LLTokenizer, TokenizerWrapper

    key = id(tokenizer)
    if key not in _VOCABULARIES:
        made = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)))
        if _VOCABULARIES.setdefault(key, made) is made:  # no other thread was quicker
            weakref.finalize(tokenizer, _VOCABULARIES.pop, key)
    return _VOCABULARIES[key]


def _end_of(tokenizer: Tokenizer) -> int:
    """The id to give llguidance as the end of text. Raises ValueError if the model has none."""
    if tokenizer.eos_id is None:
        raise ValueError(
            "this model has no token that ends a text, so it cannot end one of a given form: name one as eos_token_id "
            "in the generation_config.json of its folder, and load or convert that again"
        )
    return tokenizer.eos_id


class _Vocabulary:
    """A tokenizer as llguidance's TokenizerWrapper expects it; a weak reference, so that the cache keeps none alive."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = _end_of(tokenizer)
        self.bos_token_id = None
        self.tokens = tokenizer.tokens
        self.special_token_ids = list(tokenizer.special.values())
        self._tokenizer = weakref.ref(tokenizer)

    def __call__(self, text: str) -> list[int]:
        tokenizer = self._tokenizer()
        return tokenizer.encode(text) if tokenizer else []
