"""`SamplingParams`: the options of a request in terms of ids, each with its default, allowed values and help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from ..validation import check
from .declaration import Range, check_fields, number, option, whole
from .rng import uniform

if TYPE_CHECKING:  # the command line reads the declarations before it may import NumPy
    import numpy as np

Overflow = Literal["error", "truncate_left", "keep_first"]
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)
DRY_BREAKERS = ("\n", ":", '"', "*")
_LARGEST = 10**9
"""Bound of penalties and the like: far beyond any use, and sums of a few of them are finite in float32."""

# Which values an option may have; and of these, which are usual, and why. A terminal asks whether others are meant.
_TEMPERATURE = Range(
    "from 0 (greedy) to 10^9",
    lambda x: 0 <= x <= _LARGEST,
    Range("from 0 to 2; far above 1, tokens are drawn almost blindly", lambda x: x <= 2),
)
_TOP_K = Range(
    "from 0 (off) to 2^31 - 1",
    lambda k: 0 <= k < 1 << 31,
    Range("from 0 to 1000; more keep what no reader would expect", lambda k: k <= 1000),
)
_MASS = Range(
    "above 0 and at most 1 (off)",
    lambda p: 0 < p <= 1,
    Range("from 0.1 to 1; less leaves little but the likeliest token, as greedy does", lambda p: p >= 0.1),
)
_MIN_P = Range(
    "from 0 (off) to 1",
    lambda p: 0 <= p <= 1,
    Range("from 0 to 0.5; above, little but the likeliest token is left", lambda p: p <= 0.5),
)
_CUTOFF = Range(
    "from 0 (off) to less than 1",
    lambda p: 0 <= p < 1,
    Range("from 0 to 0.05; few tokens have a higher probability", lambda p: p <= 0.05),
)
_BITS = Range(
    "from 0 (off) to 10^9 bits",
    lambda x: 0 <= x <= _LARGEST,
    Range("from 0 to 16 bits, the surprisal of a token drawn blindly", lambda x: x <= 16),
)
_RATE = Range(
    "from 0 to 10^9", lambda x: 0 <= x <= _LARGEST, Range("from 0 to 1; above, it overshoots", lambda x: x <= 1)
)
_WORD = Range("from 0 to 2^64 - 1", lambda n: 0 <= n < 1 << 64)
_LENGTH = Range("from 1 on", lambda n: n >= 1, Range("from 1 to 10000 tokens, some 25 pages", lambda n: n <= 10_000))
_FROM_ONE = Range("from 1 on", lambda n: n >= 1)
_COUNT = Range("of tokens, 0 for none", lambda n: n >= 0)
_NGRAM = Range(*_COUNT[:2], Range("0 or from 2 on; 1 lets no token come twice, not even a comma", lambda n: n != 1))
_TIME = Range("above 0 seconds", lambda seconds: seconds > 0)
_FACTOR = Range(
    "from 10^-9 to 10^9, 1 for none",
    lambda x: 1 / _LARGEST <= x <= _LARGEST,
    Range("from 0.8 to 2; more bans every word that came before, even `the`", lambda x: 0.8 <= x <= 2),
)
_PENALTY = Range(
    "from -10^9 to 10^9, 0 for none",
    lambda x: abs(x) <= _LARGEST,
    Range("from -2 to 2; 2 makes a token seven times less likely", lambda x: abs(x) <= 2),
)
_AMOUNT = Range(
    "from 0 (off) to 10^9",
    lambda x: 0 <= x <= _LARGEST,
    Range("from 0 to 5; 5 makes a token 148 times less likely", lambda x: x <= 5),
)
_BASE = Range(
    "from 1 to 10^9",
    lambda x: 1 <= x <= _LARGEST,
    Range("from 1 to 4; the penalty grows as its powers", lambda x: x <= 4),
)
_TOP = Range("from 0 to n_vocab", lambda n: n >= 0)


class LogitsProcessor(Protocol):
    """Changes the logits of the next token. The arguments may be changed in place."""

    def __call__(self, ids: np.ndarray, logits: np.ndarray, /) -> np.ndarray:
        """Process the logits after a text.

        Args:
            ids: int32 [n], the text so far, prompt first.
            logits: float32 [n_vocab], what the model and earlier processors give.

        Returns:
            float32 [n_vocab], -inf for banned tokens.
        """


@runtime_checkable
class PerRequestProcessor(Protocol):
    """Makes a logits processor for each request: for those that keep state, or need the length of the prompt."""

    def for_request(self, n_prompt: int) -> LogitsProcessor:
        """The processor of one request, of which the first n_prompt ids are the prompt."""


class DrawParams(NamedTuple):
    """What compiled code needs to draw one token: see kernels/draw.py."""

    temperature: float
    top_k: int
    top_p: float
    uniform: float
    """Random number in [0, 1)."""


@dataclass(frozen=True)
class SamplingParams:
    """The options of a request, in terms of token ids.

    `Sampler` says in which order the options are applied, logits_processors.py what each does.

    Raises:
        ValueError: names the option, its value and what is allowed.
    """

    temperature: float = number(
        0.8, _TEMPERATURE, "sampling", "T", "divide the logits by T: above 1 more random, below 1 less, 0 greedy"
    )
    top_k: int = whole(40, _TOP_K, "sampling", "K", "keep the K likeliest tokens; 0: all")
    top_p: float = number(
        1.0, _MASS, "sampling", "P", "keep the likeliest tokens, up to probability P together; 1: all"
    )
    seed: int = whole(
        None, _WORD, "samples", "SEED", "key of the random numbers", stored=0, default_text="another one each time"
    )
    _: KW_ONLY
    min_p: float = number(
        0.0, _MIN_P, "sampling", "P", "keep tokens at least P times as likely as the likeliest; 0: all"
    )
    typical_p: float = number(
        1.0, _MASS, "sampling", "P", "keep tokens of typical surprisal, up to probability P together; 1: all"
    )
    epsilon_cutoff: float = number(
        0.0, _CUTOFF, "sampling", "P", "keep tokens of probability P or more, say 0.0003; 0: all"
    )
    eta_cutoff: float = number(
        0.0,
        _CUTOFF,
        "sampling",
        "P",
        "keep tokens of probability P or more, and less likely ones where the entropy is high; 0: all",
    )
    mirostat_tau: float = number(
        0.0, _BITS, "sampling", "BITS", "Mirostat 2 in place of the six above: the surprisal to aim at, say 5; 0: off"
    )
    mirostat_eta: float = number(0.1, _RATE, "sampling", "RATE", "how fast Mirostat steers")
    sample: int = whole(
        0,
        _WORD,
        "samples",
        "",
        "index of the (first) sample; those of one seed have different random numbers",
        flag=None,
    )
    max_tokens: int = whole(
        None,
        _LENGTH,
        "length",
        "N",
        "maximum number of new tokens",
        stored=200,
        default_text="200, or as many as the context has room for",
        short="-n",
    )
    min_tokens: int = whole(
        0, _COUNT, "length", "N", "let neither <|endoftext|> nor a stop end the text before it has N new tokens"
    )
    stop_ids: frozenset[int] = frozenset()
    max_time: float = number(
        inf,
        _TIME,
        "length",
        "SECONDS",
        "end the text when this many seconds have passed and the current token is done",
        default_text="no limit",
    )
    overflow: Overflow = option(  # noqa: RUF009 - a dataclass field
        "error",
        "length",
        "what to do with a text that outgrows the context: refuse it (error); forget its beginning (truncate_left); or "
        "keep the prompt (the context's first quarter, if the prompt takes more than half of the context) and forget "
        "the older half of what follows (keep_first)",
        str,
        choices=OVERFLOWS,
    )
    prefix: tuple[int, ...] = option(
        "",
        "length",
        "text that the new text begins with, as if the model had chosen it",
        str,
        allowed="a text",
        stored=(),
        takes="str",
        metavar="TEXT",
    )
    repetition_penalty: float = number(
        1.0,
        _FACTOR,
        "repetition",
        "X",
        "divide the logits of tokens of prompt and new text by X, say 1.1, and multiply negative ones by it; 1: off",
    )
    presence_penalty: float = number(
        0.0, _PENALTY, "repetition", "X", "subtract X from the logits of tokens of the new text, say 0.5"
    )
    frequency_penalty: float = number(
        0.0, _PENALTY, "repetition", "X", "subtract X from a token's logit for each time that the new text has it"
    )
    no_repeat_ngram_size: int = whole(
        0, _NGRAM, "repetition", "N", "let no sequence of N tokens stand in the text twice; 0: off"
    )
    dry_multiplier: float = number(
        0.0, _AMOUNT, "repetition", "X", "DRY: penalty of tokens that continue a repeated sequence, say 0.8; 0: off"
    )
    dry_base: float = number(
        1.75, _BASE, "repetition", "X", "DRY: factor by which the penalty grows with each repeated token"
    )
    dry_allowed_length: int = whole(
        2, _FROM_ONE, "repetition", "N", "DRY: sequences shorter than N tokens may be repeated"
    )
    dry_sequence_breakers: frozenset[int] = option(
        DRY_BREAKERS,
        "repetition",
        "DRY: repeated sequences end at tokens that contain one of these texts",
        Iterable,
        stored=frozenset(),
        takes="Iterable[str]",
        default_text='a new line, : " and *',
        flag="--dry-sequence-breaker",
        metavar="TEXT",
    )
    logit_bias: Mapping[int, float] = option(
        {},
        "words",
        "add numbers to the logits of tokens, by id: 5 makes one very likely, -inf bans it",
        Mapping,
        allowed="a mapping from token ids to what to add",
        metavar="ID=BIAS",
    )
    bad_words: tuple[tuple[int, ...], ...] = option(
        (),
        "words",
        "never write these texts, with or without a space before them",
        Iterable,
        takes="Iterable[str | Sequence[int]]",
        flag="--bad-word",
        metavar="TEXT",
    )
    logits_processors: tuple[LogitsProcessor | PerRequestProcessor, ...] = option(
        (),
        "words",
        "functions (ids int32 [n], logits float32 [n_vocab]) -> logits, called after penalties and bans",
        Iterable,
        takes="Iterable[LogitsProcessor | PerRequestProcessor]",
        flag=None,
    )
    logprobs: int | None = whole(
        None, _TOP, "output", "N", "log-probabilities of the tokens, and of the N likeliest in their places"
    )
    echo: bool = option(False, "output", "begin with the prompt, in the log-probabilities too", bool)

    def __post_init__(self) -> None:
        check_fields(self)
        most = self.max_tokens
        check("min_tokens", self.min_tokens, Integral, lambda n: n <= most, f"up to max_tokens, {most}")
        check("tokens of prefix", len(self.prefix), Integral, lambda n: n < most, f"below max_tokens, {most}")
        for token, bias in self.logit_bias.items():
            allowed = "from -10^9 to 10^9, or -inf to ban the token"
            check(f"logit_bias of token {token}", bias, Real, lambda x: abs(x) <= _LARGEST or x == -inf, allowed)
        if () in self.bad_words:
            raise ValueError("bad_words has an empty one; each must have at least one token")
        for processor in self.logits_processors:
            if not callable(processor) and not isinstance(processor, PerRequestProcessor):
                raise ValueError(f"logits_processors has {processor!r}; each must be callable with ids and logits")

    def check_vocabulary(self, n_vocab: int) -> None:
        """Check what depends on the model.

        Args:
            n_vocab: size of the vocabulary.

        Raises:
            ValueError: an id is not in the vocabulary, or logprobs is above n_vocab.
        """
        named = {"logit_bias": self.logit_bias, "bad_words": [token for word in self.bad_words for token in word]}
        for name, ids in named.items():
            for token in ids:
                if not (isinstance(token, Integral) and 0 <= token < n_vocab):
                    raise ValueError(f"{name} has token {token!r}; it must be a whole number from 0 to {n_vocab - 1}")
        for token in self.stop_ids:
            check("token in stop", token, Integral, lambda n: 0 <= n < n_vocab, f"from 0 to {n_vocab - 1}")
        if self.logprobs is not None:
            check("logprobs", self.logprobs, Integral, lambda n: n <= n_vocab, f"from 0 to {n_vocab}")

    def draw_params(self, position: int) -> DrawParams:
        """What compiled code needs to draw new token number `position`. Greedy choice uses no random number."""
        chance = uniform(self.seed, self.sample, position) if self.temperature else 0.0
        return DrawParams(self.temperature, self.top_k, self.top_p, chance)
