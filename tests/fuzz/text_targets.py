"""Targets that read what is neither a model nor a request: JSON, tables, templates, benchmarks, compressed files."""

from __future__ import annotations

import functools
import json
import re
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest import mock

from harness import DOCUMENTED, file_of, json_or, parts_of, scratch, strict_target, target

_VALUES, _DEPTH = 40, 5


@target
def json_reader(data: bytes) -> None:
    """With limits that inputs can reach: what is read is within them, and what is refused is above them."""
    from nbgpt import strict_json

    value, refusal = None, ""
    with mock.patch.multiple(strict_json, MAX_VALUES=_VALUES, MAX_DEPTH=_DEPTH):
        try:
            value = strict_json.parse(data, "here")
        except ValueError as error:
            refusal = str(error)
    n_values, depth = _size(_parsed(data) if refusal else value)
    is_within = n_values <= _VALUES + 1 and depth <= _DEPTH
    if not refusal:
        assert is_within
    elif n_values and re.match("here: JSON (nested|of) more", refusal):
        assert not is_within, refusal


def _parsed(data: bytes) -> Any:
    """The document by Python's parser, objects as lists of their values; None if it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=lambda pairs: [value for _, value in pairs])
    return None


def _size(value: Any) -> tuple[int, int]:
    """The number of values, of which empty lists and objects count twice, and the depth; (0, 0) for None.

    The limit is on brackets that open and commas: one less than that, as the outermost value has no comma.
    """
    if not isinstance(value, (list, dict)):
        return int(value is not None), 0
    inner = [_size(one) for one in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(max(1, n) for n, _ in inner) + (not inner), 1 + max((depth for _, depth in inner), default=0)


@target
def table(data: bytes) -> None:
    from nbgpt.tasks.rows import read_rows

    for name in ("a.csv", "a.jsonl"):
        with suppress(*DOCUMENTED):
            read_rows(file_of(data, name))


@strict_target
def batch_rows(data: bytes) -> None:
    """The input of a batch, whose first byte says in which format: shards have the rows that the whole has."""
    from nbgpt.batch.index import build, rows_of
    from nbgpt.batch.job import OPENAI, Asker, Job, is_openai
    from nbgpt.batch.table import FORMATS, Table

    forms = [form for form in FORMATS if form != "parquet"]
    table = Table([file_of(data[1:], "rows")], forms[(data or b"\0")[0] % len(forms)])
    try:
        index = build(table, 2, lambda row: "id" if "id" in row.columns else None)
    except DOCUMENTED:
        return
    rows = [row for row, _ in table.rows()]
    assert rows == [row for number in index.shards(range(index.n_rows)) for row in rows_of(table, index.shard(number))]
    job = Job(OPENAI, id="custom_id") if is_openai(index.first) else Job(prompt="{text}, {label}")
    for row in rows:
        with suppress(ValueError):
            Asker(job).question(row, 0)


@target
def batch_output(data: bytes) -> None:
    """The manifest of a batch that goes on, beside a shard."""
    from nbgpt.batch.output import Output

    file_of(data, "batch/answers.manifest.json")
    file_of(b"{}\n", "batch/answers.jsonl")
    output = Output(scratch() / "batch" / "answers.jsonl")
    file_of(b"{}\n", "batch/answers.parts/00000001.jsonl")
    with output.locked():
        output.begin({"job": {"seed": 0}, "shard": "0/1"}, range(2))


@target
def benchmarks(data: bytes) -> None:
    from nbgpt.analysis.cbt import CBT
    from nbgpt.analysis.choices import CHOICES
    from nbgpt.analysis.hellaswag import HELLASWAG
    from nbgpt.analysis.lambada import LAMBADA

    for measure in (CBT, CHOICES, LAMBADA, *HELLASWAG.values()):
        with suppress(*DOCUMENTED):
            measure.read(data.decode(errors="replace"), "here")


@target
def template(data: bytes) -> None:
    """A template, and the values that it is given; without what takes time or memory, which nothing limits."""
    from nbgpt.tasks.templates import TextTemplate

    source, values = parts_of(data, 2)
    given = json_or(values, {})
    if len(source) < 400 and not re.search(rb"\*|\d{3}|(for.*){3}", source, re.DOTALL) and isinstance(given, dict):
        TextTemplate(source.decode(errors="replace"), "here").render(given)


@functools.cache
def bigrams() -> tuple[Any, Any]:
    """An engine whose logits depend on the last token alone, and its tokenizer."""
    import numpy as np
    from folders import TOKENIZER

    logits = np.random.default_rng(0).normal(0, 3, (TOKENIZER.n_vocab, TOKENIZER.n_vocab)).astype(np.float32)
    engine = SimpleNamespace(
        config=SimpleNamespace(n_ctx=16, n_vocab=TOKENIZER.n_vocab),
        cache=SimpleNamespace(n_pages=8),
        free=lambda sequence: None,
        append=lambda sequence, ids: None,
        logits_after=lambda ids, sequences: logits[ids],
    )
    return engine, TOKENIZER


def any_model() -> Any:
    """The module, for any model."""
    from nbgpt.compression import codec

    return mock.patch.multiple(codec, _identity=lambda engine, tokenizer: bytes(8), describe=lambda engine: "bigrams")


@target
def compressed(data: bytes) -> None:
    """A file as it is, and with the right checksum."""
    from nbgpt.compression import decompress
    from nbgpt.compression.container import _sealed

    for file in (data, _sealed(data)):
        with suppress(*DOCUMENTED), any_model():
            decompress(*bigrams(), file)


@strict_target
def compression(data: bytes) -> None:
    """Any bytes come back. The first three say how they are cut."""
    from nbgpt.compression import compress, decompress

    chunk_size, window, overlap, *_ = [*data[:3], 1, 1, 1]
    window = 1 + window % 16
    sizes = {"chunk_size": 1 + chunk_size, "window": window, "overlap": overlap % window}
    with any_model():
        assert decompress(*bigrams(), compress(*bigrams(), data[3:], **sizes), batch_size=1 + overlap % 5) == data[3:]
