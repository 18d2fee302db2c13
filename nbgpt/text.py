"""Text in, text out: the library's public face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .formats import FormatError
from .generation import DEFAULT_MAX_TOKENS, Generation, Overflow, Sampling, Timing, random_seed
from .library import open_model
from .model import GPT2
from .tokenizer import Tokenizer
from .weights import Weights

if TYPE_CHECKING:
    from .classification import Classification
    from .embedding import Pooling
    from .scoring import Score


@dataclass(frozen=True)
class Usage:
    """Tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Completion:
    """What a model wrote; `str()` of it is the text."""

    text: str
    tokens: list[int]
    finish_reason: str  # "stop": the model ended the text; "length": max_tokens were reached; "": not finished
    usage: Usage
    timing: Timing

    def __str__(self) -> str:
        return self.text


class Stream(Iterator[str]):
    """Pieces of text as they are made; at the end, or when stopped before it, ask for `completion`.

    The model works when a piece is asked for. A stream that nobody holds any more gives its memory back.
    """

    def __init__(self, tokenizer: Tokenizer, generation: Generation) -> None:
        self._generation = generation
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._pieces = _decode(tokenizer, generation, self._tokens)

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._text.append(piece)
        return piece

    @property
    def completion(self) -> Completion:
        """What has been written so far."""
        usage = Usage(len(self._generation.prompt), len(self._tokens))
        timing = replace(self._generation.timing)
        return Completion("".join(self._text), list(self._tokens), self._generation.finish_reason, usage, timing)


def _decode(tokenizer: Tokenizer, ids: Iterable[int], seen: list[int]) -> Iterator[str]:
    """Text of ids as they come; they are noted in `seen`."""
    decoder = tokenizer.stream()
    for token in ids:
        seen.append(token)
        if token < tokenizer.n_vocab and (piece := decoder.push(token)):  # some models pad their vocabulary
            yield piece
    if piece := decoder.finish():
        yield piece


class Model:
    """A GPT-2 with its tokenizer. Several threads may use one; their tokens take turns.

    >>> import nbgpt
    >>> model = nbgpt.load()
    >>> print(model.generate("Once upon a time", max_tokens=5, greedy=True))
    , I was a little
    """

    def __init__(self, weights: Weights, n_threads: int | None = None) -> None:
        self.weights = weights
        self.config = weights.config
        self.tokenizer = _tokenizer_of(weights)
        self.engine = GPT2(weights, n_threads)

    @property
    def name(self) -> str:
        return self.weights.metadata.get("name") or self.weights.path.stem

    @property
    def dtype(self) -> str:
        return self.weights.dtype

    @property
    def n_threads(self) -> int:
        return self.engine.team.n_threads

    def encode(self, prompt: str, bos: bool | None = None) -> list[int]:
        """Ids of a prompt, after <|endoftext|> if bos (None: as the model's file says) or if there is no text."""
        ids = self.tokenizer.encode(prompt)
        begin = self.weights.bos if bos is None else bos
        return [self.tokenizer.eos_id, *ids] if begin or not ids else ids

    def stream(
        self,
        prompt: str = "",
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 1.0,
        seed: int | None = None,
        greedy: bool = False,
        bos: bool | None = None,
        overflow: Overflow = "error",
        sample: int = 0,
    ) -> Stream:
        """Continue a prompt, piece by piece.

        max_tokens: how many at most; None: 200, or as many as the context has room for.
        temperature, top_k, top_p: see `Sampling`; greedy: always the likeliest token.
        seed: the same seed gives the same text; None: another text each time.
        bos: begin with <|endoftext|>; None: as the model's file says.
        overflow: what to do when the text outgrows the context: "error", or "truncate_left" to forget the beginning.
        sample: number of the sample; those of one seed differ.
        Raises ValueError for values out of range and for a text that does not fit.
        """
        ids = self.encode(prompt, bos)
        if max_tokens is None:
            room = self.config.n_ctx - len(ids) if overflow == "error" else DEFAULT_MAX_TOKENS
            max_tokens = max(1, min(DEFAULT_MAX_TOKENS, room))
        if seed is None:
            seed = random_seed()
        sampling = Sampling(temperature, top_k, top_p, seed)
        if greedy:
            sampling = replace(sampling, temperature=0.0)
        generation = Generation(self.engine, ids, max_tokens, sampling, self.tokenizer.eos_id, sample, overflow)
        return Stream(self.tokenizer, generation)

    def generate(self, prompt: str = "", **options: Any) -> Completion:
        """Continue a prompt; options as for `stream`."""
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        return stream.completion

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits float32 [n, n_vocab] after each of the ids [n].

        Raises ValueError past the context, TypeError for ids that are no whole numbers.
        """
        ids = [index(token) for token in ids]
        if len(ids) > self.config.n_ctx:
            raise ValueError(f"{len(ids)} tokens; this model's context is {self.config.n_ctx}")
        result = np.empty((len(ids), self.config.n_vocab), np.float32)
        start = 0
        for part in self.engine.logits(ids):
            result[start : start + len(part)] = part
            start += len(part)
        return result

    def score(self, text: str, *, bos: bool | None = None) -> Score:
        """Log-probability of each token of a text given those before it: see `scoring.score`."""
        from .scoring import score

        return score(self, text, bos=bos)

    def score_batch(self, texts: Sequence[str], *, bos: bool | None = None) -> list[Score]:
        """`score` of each text, many in one pass."""
        from .scoring import score_batch

        return score_batch(self, texts, bos=bos)

    def rank(
        self, text: str, choices: Sequence[str], *, normalize: bool = True, bos: bool | None = None
    ) -> list[tuple[str, float]]:
        """Choices with their log-probabilities as the text's continuation, best first: see `scoring.rank`."""
        from .scoring import rank

        return rank(self, text, choices, normalize=normalize, bos=bos)

    def hidden_states(self, text: str, layer: int = -1, *, bos: bool | None = None) -> np.ndarray:
        """float32 [n_tokens, n_embd] after a layer, as transformers counts them: see `embedding.hidden_states`."""
        from .embedding import hidden_states

        return hidden_states(self, text, layer, bos=bos)

    def embed(
        self, texts: Sequence[str], pooling: Pooling = "mean", *, normalize: bool = True, bos: bool | None = None
    ) -> np.ndarray:
        """A vector for each text, float32 [n_texts, n_embd]: see `embedding.embed`."""
        from .embedding import embed

        return embed(self, texts, pooling, normalize=normalize, bos=bos)

    def classify(self, texts: Sequence[str], *, bos: bool | None = None) -> list[Classification]:
        """The label of each text, by a model that has a classification head: see `classification.classify`."""
        from .classification import classify

        return classify(self, texts, bos=bos)


def _tokenizer_of(weights: Weights) -> Tokenizer:
    try:
        return Tokenizer.stored(weights.tokenizer)
    except ValueError as error:
        raise FormatError(f"{weights.path}: {error}") from None


def load(model: str | Path | None = None, dtype: str | None = None, threads: int | None = None) -> Model:
    """A model by its file, folder or name; None: the one that comes with nbgpt.

    dtype: float32, float16, int8 or int4; official weights are converted to it (default int8) and kept.
    threads: None: as many as there are physical cores to use.
    Raises ModelNotFoundError, FormatError, ValueError, OSError, KernelError.
    """
    return Model(open_model(model, dtype), threads)
