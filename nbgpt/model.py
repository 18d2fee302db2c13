"""Text in, text out: the library's public face."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from functools import partial
from numbers import Integral
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .conversion.registry import open_model
from .engine.engine import Engine
from .engine.kv_cache import KVDtype
from .text.completion import Completion, Continuation
from .text.options import Options, check_options, parse
from .text.prompts import Prompt, Prompts, Text, as_prompts, is_one, new_writers
from .text.stream import Stream
from .validation import check
from .weights import Weights, tokenizer_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .analysis.passes import Edit
    from .analysis.trace import Trace
    from .decoding.beam_search import EarlyStopping
    from .tasks.classification import Classification
    from .tasks.embeddings import Pooling
    from .tasks.scoring import Score
    from .text.session import Session


class Model:
    """A GPT-2 with its tokenizer. Any number of threads may use one: their requests are batched.

    >>> import nbgpt
    >>> model = nbgpt.load()
    >>> print(model.generate("Once upon a time", max_tokens=5, greedy=True))
    , I was a little
    """

    def __init__(
        self, weights: Weights, threads: int | None = None, kv_dtype: KVDtype = "float32", kv_memory: int | None = None
    ) -> None:
        self.weights = weights
        self.config = weights.config
        self.tokenizer = tokenizer_of(weights)
        self.engine = Engine(weights, threads, kv_dtype, kv_memory)
        self.engine.runner.forbid(self.tokenizer.absent_ids(self.config.n_vocab))

    def __repr__(self) -> str:
        return f"<nbgpt.Model {self.name} {self.dtype}, context {self.config.n_ctx}, {self.n_threads} threads>"

    @property
    def name(self) -> str:
        return self.weights.name

    @property
    def dtype(self) -> str:
        return self.weights.dtype

    @property
    def n_threads(self) -> int:
        return self.engine.n_threads

    def encode(self, prompt: Text, bos: bool | None = None, *, special: bool = False) -> list[int]:
        """Token ids of a prompt.

        Args:
            prompt: a text, or token ids, which stay as they are.
            bos: begin with the token that begins texts; None: as the model's file says, and if the text is empty.
            special: the names of special tokens in the text stand for those tokens, and are not ordinary text.

        Returns:
            The ids, at least one.

        Raises:
            ValueError: the prompt is neither a text nor ids of the vocabulary, or bos is not True, False or None.
        """
        return self.tokenizer.encode_prompt(prompt, bos, special)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without the names of special tokens. Raises ValueError for an id that has no text."""
        return self.tokenizer.decode(ids)

    # two overloads, the narrow one first: for a wrong option type checkers list all of them, each with all options
    @overload
    def generate(self, prompt: Text | Prompt = "", *, n: None = None, **options: Unpack[Options]) -> Completion: ...

    @overload
    def generate(
        self, prompt: Text | Prompt | Prompts = "", *, n: int | None = None, **options: Unpack[Options]
    ) -> list[Completion]: ...

    def generate(self, prompt: Any = "", *, n: int | None = None, **options: Any) -> Completion | list[Completion]:
        """Continue a prompt, or several at once; each text is what it would be alone.

        Args:
            prompt: a text, token ids, or a `Prompt` with options of its own; or a list of these.
            n: number of samples of each prompt, which differ; None: one, and for one prompt no list.
            options: what is asked for: docs/api.md has a table of them, as has `python -m nbgpt generate --help`.
                `Sampler` says in which order they are applied; penalties and bans work in greedy mode too.

        Returns:
            The completion of one prompt if n is None, else a list: n samples of the first prompt, then of the second.

        Raises:
            ValueError: a value is out of range, a text does not fit the context, or every token is banned.
            TypeError: an option does not exist.
            RuntimeError: the model is closed.
            KVMemoryError: the KV cache is full of what other calls need; a MemoryError that says how much was wanted.
        """
        completions = [stream.finish() for stream in self._streams(prompt, n, options)]
        return completions[0] if is_one(prompt) and n is None else completions

    @overload
    def stream(self, prompt: Text | Prompt = "", *, n: None = None, **options: Unpack[Options]) -> Stream: ...

    @overload
    def stream(
        self, prompt: Text | Prompt | Prompts = "", *, n: int | None = None, **options: Unpack[Options]
    ) -> list[Stream]: ...

    def stream(self, prompt: Any = "", *, n: int | None = None, **options: Any) -> Stream | list[Stream]:
        """Continue a prompt piece by piece; arguments and errors as for `generate`.

        Several streams grow together, whichever is asked for a piece.

        Args:
            prompt: as for `generate`.
            n: as for `generate`.
            options: as for `generate`.
        """
        streams = self._streams(prompt, n, options)
        return streams[0] if is_one(prompt) and n is None else streams

    def _streams(self, prompts: Any, n: int | None, options: Mapping[str, Any]) -> list[Stream]:
        asked = parse(self.tokenizer, options)
        check("n", 1 if n is None else n, Integral, lambda n: n >= 1, "from 1 on")
        writers = []
        for prompt in as_prompts(prompts):
            own = parse(self.tokenizer, {**options, **prompt.options}) if prompt.options else asked
            writers += new_writers(self.engine, self.tokenizer, prompt.text, *own, n=n or 1)
        return Stream.together(self.engine, writers, asked[1].batch_size)

    def logits(self, ids: Sequence[int], *, edit: Edit | None = None) -> np.ndarray:
        """Next-token logits after every position of a sequence.

        Args:
            ids: token ids, at most n_ctx.
            edit: (layer, stream float32 [n, n_embd]) -> the stream to go on with; called before each layer, from 0 on
                (the embedding), and with n_layer before ln_f. An edit that changes nothing changes no bit.

        Returns:
            float32 [n, n_vocab]; row i scores what follows ids[: i + 1].

        Raises:
            ValueError: there are more than n_ctx ids, an id is outside 0..n_vocab - 1, or edit misbehaves.
            TypeError: an id is no integer.
        """
        ids = [index(token) for token in ids]
        if len(ids) > self.config.n_ctx:
            raise ValueError(f"{len(ids)} tokens; this model's context is {self.config.n_ctx}")
        from .analysis.passes import read_logits

        return read_logits(self.engine, ids, edit)

    def score(self, text: Text, *, bos: bool | None = None) -> Score:
        """Log-probability of each token of a text given those before it: see `scoring.score`."""
        from .tasks.scoring import score

        return score(self.engine, self.tokenizer, text, bos=bos)

    def score_batch(self, texts: Sequence[Text], *, bos: bool | None = None) -> list[Score]:
        """`score` of each text, many in one pass."""
        from .tasks.scoring import score_batch

        return score_batch(self.engine, self.tokenizer, texts, bos=bos)

    def rank(
        self, text: str, choices: Sequence[str], *, normalize: bool = True, bos: bool | None = None
    ) -> list[tuple[str, float]]:
        """Choices with their log-probabilities as continuations of the text, best first: see `scoring.rank`."""
        from .tasks.scoring import rank

        return rank(self.engine, self.tokenizer, text, choices, normalize=normalize, bos=bos)

    @overload
    def hidden_states(self, texts: Text, layer: int = -1, *, bos: bool | None = None) -> np.ndarray: ...

    @overload
    def hidden_states(
        self, texts: list[str] | list[list[int]], layer: int = -1, *, bos: bool | None = None
    ) -> list[np.ndarray]: ...

    def hidden_states(self, texts: Any, layer: int = -1, *, bos: bool | None = None) -> np.ndarray | list[np.ndarray]:
        """float32 [n_tokens, n_embd] after a layer, of each of several texts: see `embeddings.hidden_states`."""
        from .tasks.embeddings import hidden_states

        return hidden_states(self.engine, self.tokenizer, texts, layer, bos=bos)

    def embed(
        self,
        texts: Text | Sequence[Text],
        pooling: Pooling = "mean",
        *,
        layer: int = -1,
        normalize: bool = True,
        bos: bool | None = None,
    ) -> np.ndarray:
        """A vector for each text, float32 [n_texts, n_embd], or of one text [n_embd]: see `embeddings.embed`."""
        from .tasks.embeddings import embed

        return embed(self.engine, self.tokenizer, texts, pooling, layer=layer, normalize=normalize, bos=bos)

    def classify(self, texts: Sequence[Text], *, bos: bool | None = None) -> list[Classification]:
        """The label of each text, by a model that has a classification head: see `classification.classify`."""
        from .tasks.classification import classify

        return classify(self.engine, self.tokenizer, texts, bos=bos)

    def beam_search(
        self,
        prompt: Text = "",
        num_beams: int = 4,
        *,
        max_tokens: int = 50,
        num_return: int = 1,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
        bos: bool | None = None,
    ) -> list[Continuation]:
        """The continuations of a prompt that are likeliest as a whole, best first: see `beam_search.beam_search`."""
        from .decoding.beam_search import beam_search

        ids = self.encode(prompt, bos)
        found = beam_search(
            self.engine,
            ids,
            num_beams,
            max_tokens,
            num_return=num_return,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_ids=self.tokenizer.eos_ids,
        )
        decode = partial(self.tokenizer.decode_after, ids)
        return [Continuation(decode(one.ids), one.ids, one.score, one.finish_reason) for one in found]

    def contrastive_search(
        self, prompt: Text = "", *, alpha: float = 0.6, k: int = 4, max_tokens: int = 50, bos: bool | None = None
    ) -> Continuation:
        """Continue a prompt; each token is of the k likeliest and unlike the text so far: see `contrastive_search`."""
        from .decoding.contrastive_search import contrastive_search

        ids = self.encode(prompt, bos)
        eos_ids = self.tokenizer.eos_ids
        found = list(contrastive_search(self.engine, ids, max_tokens, alpha=alpha, k=k, eos_ids=eos_ids))
        finish_reason = "length" if len(found) == max_tokens else "stop"
        return Continuation(self.tokenizer.decode_after(ids, found), found, None, finish_reason)

    def compress(self, data: bytes) -> bytes:
        """Compress bytes without loss, text best; `decompress` of the same model returns them: see `codec.compress`."""
        from .compression import compress

        return compress(self.engine, self.tokenizer, data)

    def decompress(self, packed: bytes) -> bytes:
        """The bytes that `compress` was given: see `codec.decompress`."""
        from .compression import decompress

        return decompress(self.engine, self.tokenizer, packed)

    def session(self) -> Session:
        """A session: each of its texts reads only what follows the common beginning with the last one."""
        from .text.session import Session

        return Session(self.engine, self.tokenizer)

    def load_session(self, path: str | Path) -> Session:
        """A session that goes on from a file: see `Session.save` and `Session.load`."""
        from .text.session import Session

        return Session.load(self.engine, self.tokenizer, path)

    def astream(self, prompt: Text | Prompt = "", **options: Unpack[Options]) -> AsyncGenerator[str, None]:
        """Continue a prompt piece by piece without blocking asyncio's loop; options and errors as for `stream`.

        Several run side by side. When the task is cancelled or the generator is closed, the model stops after its step.
        """
        from .text.aio import begin

        check_options(self.tokenizer, options)
        return begin(partial(self.stream, prompt, **options))

    @overload
    def agenerate(
        self, prompt: Text | Prompt = "", *, n: None = None, **options: Unpack[Options]
    ) -> Awaitable[Completion]: ...

    @overload
    def agenerate(
        self, prompt: Text | Prompt | Prompts = "", *, n: int | None = None, **options: Unpack[Options]
    ) -> Awaitable[list[Completion]]: ...

    def agenerate(
        self, prompt: Any = "", *, n: int | None = None, **options: Any
    ) -> Awaitable[Completion | list[Completion]]:
        """`generate` without blocking asyncio's loop. When its task is cancelled, the model stops after its step."""
        from .text.aio import complete

        check_options(self.tokenizer, options)
        return complete(partial(self._streams, prompt, n, options), is_one(prompt) and n is None)

    def close(self) -> None:
        """Release memory and threads. Later calls that need the model, streams included, raise RuntimeError.

        The file's pages leave memory when no other model has them mapped.
        """
        self.engine.close()
        self.weights = self.engine.weights

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """To pickle a model is to load its file again, with threads and cache alike. TypeError if it has none."""
        path = self.weights.path.absolute()
        if not path.is_file():
            raise TypeError(f"model {self.name} has no file that another process could load: {path}")
        cache = self.engine.cache
        return load, (str(path), None, self.n_threads, cache.dtype, cache.memory.nbytes, self.weights.is_mapped)

    def trace(self, text: Text, *, bos: bool | None = None) -> Trace:
        """What each part of the model computes for a text, as arrays: see `Trace`; `explain.page` makes a page of it.

        bos: begin with <|endoftext|>; None: as the model's file says.
        Raises ValueError for a text that is longer than the context.
        """
        from .analysis.trace import trace

        return trace(self.engine, self.tokenizer, self.encode(text, bos))


def load(
    model: str | Path | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    kv_dtype: KVDtype = "float32",
    kv_memory: int | None = None,
    mmap: bool = True,
) -> Model:
    """Load a model.

    Args:
        model: a native file, a checkpoint (file or folder) or a name; None: the model that comes with nbgpt.
        dtype: float32, float16, bfloat16, int8 or int4. A checkpoint is converted to it (default int8), and the result
            is kept.
        threads: threads of the kernels; None: one for each physical core that this process may use.
        kv_dtype: type of keys and values in the KV cache; float16 takes half the memory, and rounds.
        kv_memory: limit of the KV cache in bytes; None: a quarter of the memory of the machine or its control group.
            Pages are taken when needed; cached prompts and idle sessions are dropped before a text has to wait.
        mmap: map the file, which processes then share; False: copy it, so that the model outlives a file that is
            written over or cut, or a disk that is taken away. These end a process that has it mapped (SIGBUS).

    Raises:
        ModelNotFoundError: no model has this name.
        FormatError: a file is damaged or of another kind.
        ValueError: an argument is out of range.
        OSError: a file cannot be read or written.
        MemoryError: the system does not give what is wanted; the message says how much.
        KernelError: the kernels cannot be compiled.
    """
    if isinstance(threads, bool):
        raise ValueError(f"threads is {threads}; it must be a whole number, or None for all physical cores")
    weights = open_model(model, dtype)
    return Model(weights if mmap else weights.unmapped(), threads, kv_dtype, kv_memory)
