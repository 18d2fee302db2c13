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
    """Writes the text of one request as its ids come, up to a stop string."""

    def __init__(
        self, tokenizer: Tokenizer, request: Request, stops: Collection[str], n_free: int, opening: str = ""
    ) -> None:
        """Prepare to write.

        stops: strings that end the text; n_free: how many of the first tokens are not searched for them.
        opening: text to write first, such as the prompt with echo.
        """
        params = request.params
        self.request = request
        self.pieces: deque[str] = deque()  # written, and not yet handed out
        self.text: list[str] = []  # all pieces
        self.logprobs: list[TokenLogprob] = []
        self.is_closed = False
        self._tokenizer = tokenizer
        self._stops = StopStrings(stops) if stops else None
        self._is_stopped = False  # by a stop string
        self._n_free = n_free
        ignored = tokenizer.eos_ids - params.stop_ids  # end-of-text ids that do not end this text: they are written
        unknown = {token for token in params.prefix if token not in tokenizer}  # absent ids: they have no text
        self._decoder = tokenizer.stream(request.prompt, (tokenizer.hidden_ids - ignored) | unknown)
        self._text_of_prompt = self._decode_prompt() if params.echo else []
        self._text_of_tokens: list[str] = []
        self._write(opening)

    def update(self) -> None:
        """Write what the request has added; a stop string ends the request."""
        request = self.request
        for token in request.tokens[len(self._text_of_tokens) :]:
            piece = self._decoder.push(token)
            self._text_of_tokens.append(piece)
            if self._stops and len(self._text_of_tokens) > self._n_free:
                piece = self._stops.push(piece)
                self._is_stopped = self._stops.found
            self._write(piece)
            if self._is_stopped:
                request.stop_after(len(self._text_of_tokens))
                break
        if len(request.measured) > len(self.logprobs):
            self._add_logprobs()
        if request.finish_reason and not self.is_closed:
            if not self._is_stopped:
                rest = self._decoder.finish()
                self._write(self._stops.push(rest) + self._stops.finish() if self._stops else rest)
            self.is_closed = True  # last: to another thread this says that all pieces are there

    def completion(self) -> Completion:
        """What has been written so far. The request may be ahead of it: another thread's step has made it grow."""
        request, written = self.request, self.request.tokens[: len(self._text_of_tokens)]
        return Completion(
            "".join(self.text),
            [*(request.prompt if request.params.echo else ()), *written],
            request.finish_reason if self.is_closed else "",
            Usage(len(request.prompt), len(written)),
            replace(request.timing),
            request.params.seed,
            self.logprobs.copy() if request.params.logprobs is not None else None,
            replace(request.statistics) if request.statistics else None,
        )

    def _write(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)
            self.text.append(piece)

    def _decode_prompt(self) -> list[str]:
        """The text that each id of the prompt completes; the empty text for bos_id."""
        decoder = self._tokenizer.stream()
        return ["" if token == self._tokenizer.bos_id else decoder.push(token) for token in self.request.prompt]

    def _add_logprobs(self) -> None:
        """Give the new log-probabilities the text and the bytes of their tokens."""
        texts = self._text_of_prompt + self._text_of_tokens
        for one in self.request.measured[len(self.logprobs) :]:
            octets = self._tokenizer.bytes_of(one.token)
            self.logprobs.append(replace(one, text=texts[len(self.logprobs)], bytes=octets))


class Batch:
    """Writers whose requests grow together."""

    def __init__(self, engine: Engine, writers: list[Writer], batch_size: int) -> None:
        """batch_size: how many of them grow at a time."""
        self.engine = engine
        self._open = list(writers)
        self._batch_size = batch_size
        self._error: Exception | None = None
        for writer in writers:
            engine.add(writer.request)

    def advance(self, writer: Writer) -> bool:
        """Let the requests grow by a step; False if this writer has come to its end.

        An error of one request ends them all: this raises it for each of the writers, except those that were cancelled.
        """
        if self._error is not None and not writer.request.is_cancelled:
            raise self._error
        if writer.is_closed or not self._open:
            return False
        growing = [one.request for one in self._open[: self._batch_size]]
        try:
            self.engine.advance(growing, lambda: self._update(writer))
        except BaseException as error:
            self._error = error if isinstance(error, Exception) else RuntimeError(INTERRUPTED)
            with self.engine.lock:  # or another thread, in `_update`, would bring back those that it has found open
                unfinished, self._open = self._open, []
                self.engine.retire([one.request for one in unfinished])
            raise
        return True

    def _update(self, writer: Writer) -> bool:
        """Write the new ids of all requests that grow; True if this writer then has pieces, or has come to its end."""
        growing = self._open[: self._batch_size]
        for one in growing:
            if one.request.error:
                raise one.request.error
            one.update()
        if any(one.is_closed for one in growing):
            for one in growing:
                if one.is_closed:
                    self.engine.scheduler.retire(one.request)
            self._open = [one for one in self._open if not one.is_closed]
        return bool(writer.pieces) or writer.is_closed


class Stream(Iterator[str]):
    """An iterator over the pieces of a text; `completion` is what has been written so far.

    The model works only while a piece is asked for. A stream's memory is freed at its end, or when nobody holds it any
    more; the streams of one call are freed together. Threads that iterate over the same stream, or over streams of the
    same call, take turns.
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
        """What has been written so far, with pieces that nobody has asked for yet.

        Until the text has ended, this waits for the step under way. So a logits processor must not wait for another
        thread that asks for it.
        """
        if self._writer.is_closed:  # nothing changes any more
            return self._writer.completion()
        return self._batch.engine.between_steps(self._writer.completion)  # a thread that iterates might be writing
