"""From the ids of a generation to its text, piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from threading import RLock

from ..engine.engine import Engine
from ..engine.scheduler import Generation, run
from ..sampling.logprobs import TokenLogprob
from ..tokenizer import Tokenizer
from .completion import Completion, Usage
from .stop_strings import StopTexts


class Writer:
    """The text of one generation as it grows, up to a stop text."""

    def __init__(self, tokenizer: Tokenizer, generation: Generation, stops: Collection[str], opening: str = "") -> None:
        """Take the texts that end it, and what to write first."""
        self.generation = generation
        self.pieces: deque[str] = deque()  # written and not yet asked for
        self.text: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.is_closed = False
        self._tokenizer = tokenizer
        self._stops = StopTexts(stops)
        self._n_free = generation.sampling.min_tokens  # as many are no part of a stop text
        self._opening = opening
        prompt, eos_id = tokenizer.stream(), tokenizer.eos_id  # where a text begins nothing is written
        given = generation.prompt if generation.echo else ()
        self._given = ["" if token == eos_id else prompt.push(token) for token in given]
        ignored = tokenizer.eos_ids - generation.stop_ids  # ends that are tokens like any other
        self._decoder = tokenizer.stream(generation.prompt, tokenizer.hidden_ids - ignored)
        self._said: list[str] = []  # what each new token completes

    def update(self) -> None:
        """Write what the generation has added, and end it after a stop text."""
        generation = self.generation
        self._write(self._opening)
        self._opening = ""
        for token in generation.tokens[len(self._said) :]:
            said = self._decoder.push(token) if token < self._tokenizer.n_vocab else ""  # beyond it is padding
            self._said.append(said)
            self._write(said if len(self._said) <= self._n_free else self._stops.push(said))
            if self._stops.found:
                generation.stop_after(len(self._said))
                break
        for one in generation.measured[len(self.logprobs) :]:
            at = len(self.logprobs) - len(self._given)
            said = self._said[at] if at >= 0 else self._given[at]
            octets = self._tokenizer.tokens[one.token] if one.token < self._tokenizer.n_vocab else b""
            self.logprobs.append(replace(one, text=said, bytes=octets))
        if generation.finish_reason and not self.is_closed:
            self.is_closed = True
            if not self._stops.found:
                self._write(self._stops.push(self._decoder.finish()) + self._stops.finish())

    def _write(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)
            self.text.append(piece)


class _Batch:
    """Writers whose generations grow together."""

    def __init__(self, model: Engine, writers: list[Writer], batch_size: int) -> None:
        self._open = {id(writer.generation): writer for writer in writers}
        self._steps = run(model, [writer.generation for writer in writers], batch_size)
        self._error: Exception | None = None

    def step(self) -> bool:
        """Let each grow; False if none can. An error in one ends them all: whoever asks is told."""
        if self._error is not None:
            raise self._error
        try:
            return self._step()
        except Exception as error:
            self._error = error
            raise

    def _step(self) -> bool:
        grown = next(self._steps, None)
        for generation in grown or ():
            writer = self._open[id(generation)]
            writer.update()
            if writer.is_closed:
                del self._open[id(generation)]
        if not self._open:
            self._steps.close()  # gives the memory back
        return grown is not None


class Stream(Iterator[str]):
    """Pieces of text as they are made; at the end, or when stopped before it, ask for `completion`.

    The model works when a piece is asked for. A stream that has come to its end or that nobody holds any more gives
    its memory back; those that were made together do so together. Several threads may ask one, or several that were
    made together, for pieces: they take turns.
    """

    def __init__(self, step: Callable[[], bool], writer: Writer, turn: RLock | None = None) -> None:
        """Take what lets the writer's generation grow, and says whether it could; and who else takes turns at it."""
        self._step = step
        self._writer = writer
        self._turn = turn or RLock()

    @classmethod
    def together(cls, model: Engine, writers: list[Writer], batch_size: int) -> list[Stream]:
        """Streams of generations that grow together, whichever of them is asked for a piece."""
        batch, turn = _Batch(model, writers, batch_size), RLock()
        return [cls(batch.step, writer, turn) for writer in writers]

    def __next__(self) -> str:
        with self._turn:
            while not self._writer.pieces:
                if self._writer.is_closed or not self._step():
                    self._step = lambda: False  # lets the memory go, whoever still holds the stream
                    raise StopIteration
            return self._writer.pieces.popleft()

    def finish(self) -> Completion:
        """Let the model write to the end -> `completion`; no pieces are left."""
        for _ in self:
            pass
        return self.completion

    def cancel(self) -> None:
        """End it before the model's next pass; any thread may ask for it. `finish_reason` will be "cancelled"."""
        self._writer.generation.cancel()

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Of the tokens so far, if they were asked for; with echo those of the prompt come first."""
        return self._writer.logprobs

    @property
    def completion(self) -> Completion:
        """What has been written so far, pieces that nobody has asked for yet included: tokens come in bursts."""
        generation, writer = self._writer.generation, self._writer
        tokens = [*(generation.prompt if generation.echo else ()), *generation.tokens]
        return Completion(
            "".join(writer.text),
            tokens,
            generation.finish_reason,
            Usage(len(generation.prompt), len(generation.tokens)),
            replace(generation.timing),
            generation.sampling.seed,
            writer.logprobs.copy() if generation.logprobs is not None else None,
            replace(generation.statistics) if generation.statistics else None,
        )
