"""Texts of a given form: one of several, what a regular expression matches, or JSON that fits a schema.

llguidance (https://github.com/guidance-ai/llguidance) says which tokens may follow at each place of a grammar; the
model chooses among them. The end of text may follow exactly where the grammar allows an end; a text that max_tokens
cut short (finish_reason "length") is the beginning of one that fits. What the grammar forces is cut into tokens as the
tokenizer would; where there is a choice, so is how it is cut.
"""

from __future__ import annotations

import json
import reprlib
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from ..model import Model


def choice(model: Model, choices: Iterable[str]) -> Constraint:
    """For `logits_processors`: the text is one of these. Raises ValueError unless they are texts, none of them empty.

    GPT-2's words begin with the space before them, so after "The answer is" ask for " yes" and " no".
    """
    return Constraint(model.tokenizer, "choice", choices)


def regex(model: Model, pattern: str) -> Constraint:
    """For `logits_processors`: the whole text matches a pattern. Raises ValueError if it is none or matches nothing.

    The syntax is that of Rust (https://docs.rs/regex/#syntax), which lacks look-around and references to groups. `.` is
    not a line's end; `\\d` and `\\w` know all of Unicode.
    """
    return Constraint(model.tokenizer, "regex", pattern)


def json_schema(model: Model, schema: Mapping[str, Any] | bool | str) -> Constraint:
    """For `logits_processors`: the text is JSON that fits a schema, given as an object or as JSON; True: any JSON.

    It is written as json.dumps does it, properties in the order of the schema. Strings and lists end when the model
    says so: bound them with maxLength and maxItems. Raises ValueError if it is no schema, or uses keywords that
    llguidance does not have (see its docs/json_schema.md).
    """
    return Constraint(model.tokenizer, "json_schema", schema)


class Constraint:
    """A grammar that new texts follow, each from its beginning; several may follow it at a time."""

    def __init__(self, tokenizer: Tokenizer, name: str, value: Any) -> None:
        """Take the name of the option, "choice", "regex" or "json_schema", and its value.

        Raises ValueError for a value that the option does not have, ImportError if llguidance is not installed.
        """
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise ImportError(f'{name} needs the package llguidance: pip install "nbgpt[constrain]"') from None
        self.tokenizer = tokenizer
        self.asked = f"{name} is {reprlib.repr(value)}"
        make, self._demand = _GRAMMARS[name]
        try:
            grammar = make(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._refusal(str(error)) from None
        self._matcher = LLMatcher(_vocabulary(tokenizer), grammar, log_level=0)
        self.allowed(self._matcher)

    def for_text(self, n_given: int) -> Follower:
        """The processor of one text, of which so many ids were given before the grammar begins."""
        return Follower(self, self._matcher.deep_copy(), n_given)

    def allowed(self, matcher: LLMatcher) -> np.ndarray:
        """Which tokens may follow: bool [n_vocab]. Raises ValueError if the grammar is no good, or too much."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            raise self._refusal(matcher.get_error())
        allowed = np.unpackbits(bits, count=self.tokenizer.n_vocab, bitorder="little").astype(bool)
        allowed[sorted(self.tokenizer.eos_ids)] = matcher.is_accepting()
        return allowed

    def _refusal(self, message: str) -> ValueError:
        reason = f" ({_reason(message)})" if message else ""
        return ValueError(f"{self.asked}{reason}; it must be {self._demand}")


class Follower:
    """Says of one text, wherever it goes on, what may follow: a logits processor."""

    def __init__(self, constraint: Constraint, matcher: LLMatcher, n_given: int) -> None:
        self._constraint = constraint
        self._matcher = matcher
        self._n_given = n_given
        self._read: list[int] = []

    def __call__(self, ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Ban every token that the grammar does not have after ids int32 [n], in logits float32 [n_vocab].

        Raises ValueError if the grammar does not have what was written.
        """
        self._follow(ids[self._n_given :].tolist())
        allowed = self._constraint.allowed(self._matcher)
        logits[: len(allowed)][~allowed] = -np.inf
        logits[len(allowed) :] = -np.inf  # padding of the vocabulary
        return logits

    def _follow(self, ids: list[int]) -> None:
        """Come to the place after ids: on from the last one, or if that is no part of it, from the beginning."""
        tokenizer = self._constraint.tokenizer
        ends = [place for place, i in enumerate(ids) if i in tokenizer.eos_ids]
        if ends:  # that did not end it: another text begins
            ids = ids[ends[-1] + 1 :]
        n_read = len(self._read)
        if ids[:n_read] != self._read:
            self._matcher.reset()
            n_read = 0
        if not self._matcher.consume_tokens(ids[n_read:]):
            reason = _reason(self._matcher.get_error())
            raise ValueError(f"{self._constraint.asked}; a text cannot begin with {tokenizer.decode(ids)!r} ({reason})")
        self._read = ids


def _reason(message: str) -> str:
    """What is wrong, of all that llguidance says about it."""
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
    if text.strip() == "true":  # llguidance takes its options from an object alone
        text = "{}"
    return LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    )


def _escaped(text: str) -> str:
    """A pattern that a text alone matches."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


_GRAMMARS = {
    "choice": (_grammar_of_choices, "a list of texts, none of them empty"),
    "regex": (_grammar_of_pattern, "a regular expression without look-around and references, that fits some text"),
    "json_schema": (_grammar_of_schema, "a JSON schema, as an object or as text"),
}


_VOCABULARIES: dict[int, LLTokenizer] = {}


def _vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """A tokenizer as llguidance has it, which takes it a tenth of a second; kept as long as the tokenizer."""
    from llguidance import LLTokenizer, TokenizerWrapper

    key = id(tokenizer)
    if key not in _VOCABULARIES:
        _VOCABULARIES[key] = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)))
        weakref.finalize(tokenizer, _VOCABULARIES.pop, key)
    return _VOCABULARIES[key]


def _end_of(tokenizer: Tokenizer) -> int:
    """The id that llguidance takes for the end of text. Raises ValueError if the model has none."""
    if tokenizer.eos_id is None:
        raise ValueError("this model has no token that ends a text, so it cannot end one of a given form")
    return tokenizer.eos_id


class _Vocabulary:
    """What llguidance asks of a tokenizer; it must not keep it alive."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = _end_of(tokenizer)
        self.bos_token_id = None
        self.tokens = tokenizer.tokens
        self.special_token_ids = list(tokenizer.special.values())
        self._tokenizer = weakref.ref(tokenizer)

    def __call__(self, text: str) -> list[int]:
        tokenizer = self._tokenizer()
        return tokenizer.encode(text) if tokenizer else []
