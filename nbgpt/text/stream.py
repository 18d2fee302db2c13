"""From the ids of requests to text, piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import replace

from ..engine.engine import Engine
from ..engine.request import Request
from ..engine.scheduler import INTERRUPTED
from ..sampling.logprobs import TokenLogprob
from ..tokenizer import Tokenizer
from .completion import Completion, Usage
from .stop_strings import StopStrings


class Writer:
    """The text of one request as it grows, up to a stop string."""

    def __init__(self, tokenizer: Tokenizer, request: Request, stops: Collection[str], opening: str = "") -> None:
        """stops: strings that end the text. opening: what to write before it."""
        self.request = request
        self.pieces: deque[str] = deque()  # written and not yet asked for
        self.text: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.is_closed = False
        self._tokenizer = tokenizer
        self._stops = StopStrings(stops)
        self._n_free = request.params.min_tokens  # tokens that are no part of a stop string
        self._opening = opening
        prompt, bos_id = tokenizer.stream(), tokenizer.bos_id  # where a text begins nothing is written
        given = request.prompt if request.params.echo else ()
        self._given = ["" if token == bos_id else prompt.push(token) for token in given]
        ignored = tokenizer.eos_ids - request.params.stop_ids  # ends that are tokens like any other
        self._decoder = tokenizer.stream(request.prompt, tokenizer.hidden_ids - ignored)
        self._said: list[str] = []  # what each new token completes

    def update(self) -> None:
        """Write what the request has added, and end it after a stop string."""
        request = self.request
        self._write(self._opening)
        self._opening = ""
        for token in request.tokens[len(self._said) :]:
            said = self._decoder.push(token) if token in self._tokenizer else ""  # padding of the vocabulary
            self._said.append(said)
            self._write(said if len(self._said) <= self._n_free else self._stops.push(said))
            if self._stops.found:
                request.stop_after(len(self._said))
                break
        for one in request.measured[len(self.logprobs) :]:
            at = len(self.logprobs) - len(self._given)
            said = self._said[at] if at >= 0 else self._given[at]
            octets = self._tokenizer.tokens[one.token] if one.token in self._tokenizer else b""
            self.logprobs.append(replace(one, text=said, bytes=octets))
        if request.finish_reason and not self.is_closed:
            self.is_closed = True
            if not self._stops.found:
                self._write(self._stops.push(self._decoder.finish()) + self._stops.finish())

    def _write(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)
            self.text.append(piece)


class Batch:
    """Writers whose requests grow together."""

    def __init__(self, engine: Engine, writers: list[Writer], batch_size: int) -> None:
        """batch_size: how many of them grow at a time."""
        self._engine = engine
        self._open = list(writers)
        self._batch_size = batch_size
        self._error: Exception | None = None
        for writer in writers:
            engine.add(writer.request)

    def advance(self, writer: Writer) -> bool:
        """Let the requests grow by a step; False if this writer has come to its end.

        An error in one ends them all, and whoever asks for a piece of any is told, unless it was cancelled.
        """
        if self._error is not None and not writer.request.is_cancelled:
            raise self._error
        if writer.is_closed or not self._open:
            return False
        growing = [one.request for one in self._open[: self._batch_size]]
        try:
            self._engine.advance(growing, lambda: self._update(writer))
        except BaseException as error:
            self._error = error if isinstance(error, Exception) else RuntimeError(INTERRUPTED)
            unfinished, self._open = self._open, []
            self._engine.retire([one.request for one in unfinished])
            raise
        return True

    def _update(self, writer: Writer) -> bool:
        """Write what is new; True if there is some of this writer's."""
        growing = self._open[: self._batch_size]
        for one in growing:
            if one.request.error:
                raise one.request.error
            one.update()
        if any(one.is_closed for one in growing):
            for one in growing:
                if one.is_closed:
                    self._engine.scheduler.retire(one.request)
            self._open = [one for one in self._open if not one.is_closed]
        return bool(writer.pieces) or writer.is_closed


class Stream(Iterator[str]):
    """Pieces of text as they are made; at the end, or when stopped before it, ask for `completion`.

    The model works when a piece is asked for. A stream that has come to its end or that nobody holds any more gives
    its memory back; those that were made together do so together. Several threads may ask one, or several that were
    made together, for pieces: they take turns.
    """

    def __init__(self, batch: Batch, writer: Writer) -> None:
        self._batch = batch
        self._writer = writer

    @classmethod
    def together(cls, engine: Engine, writers: list[Writer], batch_size: int) -> list[Stream]:
        """Streams of requests that grow together, whichever of them is asked for a piece."""
        batch = Batch(engine, writers, batch_size)
        return [cls(batch, writer) for writer in writers]

    def __next__(self) -> str:
        while True:
            try:
                return self._writer.pieces.popleft()
            except IndexError:
                if not self._batch.advance(self._writer) and not self._writer.pieces:
                    raise StopIteration from None

    def finish(self) -> Completion:
        """Let the model write to the end -> `completion`; no pieces are left."""
        for _ in self:
            pass
        return self.completion

    def cancel(self) -> None:
        """End it before the model's next pass; any thread may ask for it. `finish_reason` will be "cancelled"."""
        self._writer.request.cancel()

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Of the tokens so far, if they were asked for; with echo those of the prompt come first."""
        return self._writer.logprobs

    @property
    def completion(self) -> Completion:
        """What has been written so far, with pieces that nobody has asked for yet."""
        request, writer = self._writer.request, self._writer
        tokens = [*(request.prompt if request.params.echo else ()), *request.tokens]
        return Completion(
            "".join(writer.text),
            tokens,
            request.finish_reason,
            Usage(len(request.prompt), len(request.tokens)),
            replace(request.timing),
            request.params.seed,
            writer.logprobs.copy() if request.params.logprobs is not None else None,
            replace(request.statistics) if request.statistics else None,
        )
