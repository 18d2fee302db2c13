"""A model, ids in and ids, logits or what lies between them out: every way of asking for passes."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ids
from numbers import Integral

import numpy as np

from ..validation import check
from .kv_cache import Sequence
from .model_runner import ModelRunner, Options

MAX_ROWS = 512
"""Rows of one pass; a longer prefill takes several."""
MAX_LOGIT_ROWS = 128
"""Rows of one pass when every one of them wants logits: 50257 numbers each."""


class Engine(ModelRunner):
    """Weights, a KV cache and a team of threads: ids in, logits out.

    All but `prefill`, `decode` and `run_layer` may be called from several threads: passes take turns.
    """

    def prefill(self, sequence: Sequence, ids: Ids[int]) -> np.ndarray:
        """Append ids, at least one, to a sequence -> logits float32 [n_vocab] after the last, until the next pass."""
        last: np.ndarray = self._append(sequence, ids)[0]
        return last

    def decode(self, sequences: list[Sequence], ids: Ids[int]) -> np.ndarray:
        """One more token for each sequence -> logits float32 [n, n_vocab], valid until the next pass."""
        return self.forward(ids, sequences, range(len(ids)))

    def next_id(self, sequence: Sequence, ids: Ids[int], options: Options) -> int:
        """Append ids to a sequence and draw the id that follows."""
        with self._lock:
            self._append(sequence, ids, [options])
            return int(self._sampled[0])

    def next_ids(self, sequences: list[Sequence], ids: Ids[int], options: list[Options]) -> list[int]:
        """One more token for each sequence, and the ids drawn to follow them."""
        with self._lock:
            self.forward(ids, sequences, range(len(ids)), options)
            return [int(drawn) for drawn in self._sampled]

    def _append(self, sequence: Sequence, ids: Ids[int], sampling: Ids[Options] = ()) -> np.ndarray:
        """Append ids part by part -> logits float32 [1, n_vocab] after the last, which sampling draws from."""
        for start in range(0, len(ids), MAX_ROWS):
            part = ids[start : start + MAX_ROWS]
            last = [len(part) - 1] if start + MAX_ROWS >= len(ids) else []
            result = self.forward(part, [sequence] * len(part), last, sampling if last else ())
        return result

    def read(
        self,
        ids: Ids[int],
        sequences: list[Sequence],
        wants: Ids[int],
        sampling: Ids[Options] = (),
        kept: Ids[int] = (),
    ) -> tuple[list[int], np.ndarray]:
        """As `forward`, safe with several threads -> ids drawn, and a copy of logits float32 [len(kept), n_vocab].

        kept: which of the rows of logits to copy.
        """
        with self._lock:
            logits = self.forward(ids, sequences, wants, sampling)
            return self._sampled.tolist(), logits[list(kept)]

    def outputs(self, ids: Ids[int], sequences: list[Sequence], wants: Ids[int]) -> tuple[np.ndarray, np.ndarray]:
        """`forward` for a caller that takes turns with others: copies of the rows in wants.

        They are logits float32 [n, n_vocab] and the states that these are read from, after ln_f, float32 [n, n_embd].
        """
        with self._lock:
            logits = self.forward(ids, sequences, wants, is_observed=True).copy()
            return logits, self._buffers["ln_2"][: len(wants), : self.config.n_embd].copy()

    def check_room(self, ids: Ids[int], max_tokens: int) -> None:
        """Raise ValueError unless there is a prompt and it fits the context together with max_tokens new ids."""
        if not ids:
            raise ValueError("the prompt has no tokens; begin with the model's end of text")
        check("max_tokens", max_tokens, Integral, lambda n: n >= 1, "from 1 on")
        n_ctx, wanted = self.config.n_ctx, len(ids) + max_tokens
        if wanted > n_ctx:
            raise ValueError(
                f"prompt of {len(ids)} tokens and {max_tokens} new ones make {wanted}; this model's context is "
                f"{n_ctx}: shorten one of them"
            )

    def logits(self, ids: Ids[int]) -> Iterator[np.ndarray]:
        """Read ids from an empty context -> logits float32 [n, n_vocab] after each of them, part by part."""
        sequence = Sequence()
        try:
            for start in range(0, len(ids), MAX_LOGIT_ROWS):
                part = ids[start : start + MAX_LOGIT_ROWS]
                with self._lock:
                    result = self.forward(part, [sequence] * len(part), range(len(part))).copy()
                yield result
        finally:
            self.free(sequence)

    def surprises(self, ids: Ids[int], first: int = 1) -> np.ndarray:
        """-log p(id | the ids before it) in nats, float64 [len(ids) - first], of the ids from `first` >= 1 on."""
        sequence, parts = Sequence(), [np.empty(0)]
        try:
            start = 0
            while start < len(ids) - 1:
                unscored = max(0, first - 1 - start)
                rows = min(MAX_ROWS, unscored) if unscored else min(MAX_LOGIT_ROWS, len(ids) - 1 - start)
                targets = [] if unscored else ids[start + 1 : start + 1 + rows]
                with self._lock:
                    self.forward(ids[start : start + rows], [sequence] * rows, range(len(targets)), targets=targets)
                    parts.append(self._surprises)
                start += rows
        finally:
            self.free(sequence)
        return np.concatenate(parts)

    def surprises_of(self, texts: list[list[int]], shared: Ids[int] = ()) -> list[np.ndarray]:
        """-log p in nats of the ids of each text but its first, given those before them: float64 [len(text) - 1] each.

        shared: what stands before every text; it is read once.
        """
        past = Sequence()
        try:
            for start in range(0, len(shared), MAX_ROWS):
                with self._lock:
                    part = shared[start : start + MAX_ROWS]
                    self.forward(part, [past] * len(part), [])
            with self._lock:
                sequences = [self.cache.fork(past) for _ in texts]
        finally:
            self.free(past)
        lengths = [len(text) - 1 for text in texts]
        ids = [token for text in texts for token in text[:-1]]
        targets = [token for text in texts for token in text[1:]]
        found = np.empty(len(targets))
        for rows, owners in self._in_passes(sequences, lengths, MAX_LOGIT_ROWS):
            with self._lock:
                self.forward(ids[rows], owners, range(len(owners)), targets=targets[rows])
                found[rows] = self._surprises
        return np.split(found, np.cumsum(lengths))[:-1]

    def _in_passes(
        self, sequences: list[Sequence], lengths: list[int], max_rows: int
    ) -> Iterator[tuple[slice, list[Sequence]]]:
        """So many rows of each sequence, cut into passes: which rows, and whose; a sequence is freed after its last."""
        owners = [sequence for sequence, n in zip(sequences, lengths, strict=True) for _ in range(n)]
        try:
            for start in range(0, len(owners), max_rows):
                stop = min(start + max_rows, len(owners))
                yield slice(start, stop), owners[start:stop]
                unfinished = owners[stop] if stop < len(owners) else None
                for sequence in owners[start:stop]:
                    if sequence is not unfinished:
                        self.free(sequence)
        finally:
            for sequence in sequences:
                self.free(sequence)

    def hidden(self, texts: list[list[int]], layer: int) -> Iterator[np.ndarray]:
        """Read texts, each from an empty context -> the residual stream after so many layers, before ln_f.

        float32 [n, n_embd], a row for each token of the first text, then of the second, ..., part by part.
        """
        ids = [token for text in texts for token in text]
        for rows, sequences in self._in_passes([Sequence() for _ in texts], list(map(len, texts)), MAX_ROWS):
            with self._lock:
                self.forward(ids[rows], sequences, [], layers=(0, layer))
                part = self._buffers["x"][: len(sequences), : self.config.n_embd].copy()
            yield part

    def run_layer(
        self, sequence: Sequence, ids: Ids[int], layer: int, stream: np.ndarray | None
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """One layer over a text, part by part -> inputs of each matrix [n, n_in], the stream after it [n, n_embd].

        stream: the residual stream before the layer, float32 [len(ids), n_embd]; None: the embedding (layer 0).
        Inputs are views that the next part overwrites.
        """
        n_embd, n_inner, buffers = self.config.n_embd, self.config.n_inner, self._buffers
        for start in range(0, len(ids), MAX_ROWS):
            part = ids[start : start + MAX_ROWS]
            n = len(part)
            self._reserve(n, 0)
            if stream is not None:
                buffers["x"][:n, :n_embd] = stream[start : start + n]
            self.forward(part, [sequence] * n, [], layers=(layer, layer + 1))
            inputs = {
                "attn.c_attn.weight": buffers["ln_1"][:n, :n_embd],
                "attn.c_proj.weight": buffers["attended"][:n, :n_embd],
                "mlp.c_fc.weight": buffers["ln_2"][:n, :n_embd],
                "mlp.c_proj.weight": buffers["inner"][:n, :n_inner],
            }
            yield inputs, buffers["x"][:n, :n_embd].copy()

    def run_part(
        self,
        sequence: Sequence,
        ids: Ids[int],
        layers: tuple[int, int],
        stream: np.ndarray | None = None,
        logits: bool = False,
    ) -> dict[str, np.ndarray]:
        """Some layers alone, as in `forward` -> copies of what they leave in x, qkv and projected, by these names.

        layers: (0, 0) is the embedding alone; (n_layer, n_layer) with logits the head alone.
        stream: the residual stream that a first layer above 0 starts from, float32 [len(ids), n_embd].
        logits: of every row too, float32 [len(ids), n_vocab].
        """
        n, n_embd = len(ids), self.config.n_embd
        widths = {"x": n_embd, "qkv": 3 * n_embd, "projected": n_embd}
        with self._lock:
            self._reserve(n, n if logits else 0)
            if stream is not None:
                self._buffers["x"][:n, :n_embd] = stream
            result = self.forward(ids, [sequence] * n, range(n) if logits else (), layers=layers)
            copies = {name: self._buffers[name][:n, :width].copy() for name, width in widths.items()}
            return {**copies, "logits": result.copy()} if logits else copies
