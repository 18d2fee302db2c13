"""A section of goals.py: features of many short texts, beside a long prompt and beside transformers if it is there."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator

import numpy as np
from figures import Figure, medians, share

from nbgpt.analysis.benchmark import Test, elapsed, random_weights
from nbgpt.config import OFFICIAL
from nbgpt.engine.engine import Engine
from nbgpt.tasks.features import pooled

N_TEXTS, N_TOKENS, N_THREADS = 2000, 60, 2
ROUNDS = 3


def features() -> Iterator[Figure]:
    """Features of 2000 texts of about 60 tokens, tokens a second."""
    engine = Engine(random_weights("124M", "int8"), N_THREADS)
    random = np.random.default_rng(0)
    lengths = random.integers(N_TOKENS // 2, N_TOKENS * 3 // 2 + 1, N_TEXTS)
    texts = [random.integers(0, engine.config.n_vocab, n).tolist() for n in lengths]
    n_tokens = sum(map(len, texts))
    layers = sorted({*np.linspace(0, engine.config.n_layer, 7).round().astype(int).tolist()})
    prefill = Test(n_prompt=512)
    runs: dict[str, Callable[[], float]] = {
        "prefill": lambda: prefill.n_tokens / elapsed(engine.runner, prefill),
        "last layer": speed(lambda: pooled(engine, texts, [engine.config.n_layer], "both", None), n_tokens),
        "seven layers": speed(lambda: pooled(engine, texts, layers, "both", None), n_tokens),
    }
    if importlib.util.find_spec("transformers"):
        quarter = texts[::4]  # which takes it as long as all of them take nbgpt
        runs["transformers"] = speed(peer(quarter), sum(map(len, quarter)))
    got = medians(runs, ROUNDS)
    for what in ("last layer", "seven layers"):
        explanation = f"{got[what]:.0f} of {got['prefill']:.0f} tokens/s"
        yield share(f"124M int8, features of the {what} / pp512", got[what] / got["prefill"], 0.85, explanation)
    if "transformers" in got:
        ratio = got["last layer"] / got["transformers"]
        measured = f"{ratio:.2f} ({got['last layer']:.0f} and {got['transformers']:.0f} tokens/s)"
        yield Figure("124M int8, features / transformers float32", "≥ 1.5", measured, ratio >= 1.5)


def speed(run: Callable[[], object], n_tokens: int) -> Callable[[], float]:
    """A call that measures tokens a second."""

    def measure() -> float:
        began = time.perf_counter()
        run()
        return n_tokens / (time.perf_counter() - began)

    return measure


def peer(texts: list[list[int]]) -> Callable[[], object]:
    """Hidden states of the same texts by transformers: sorted by length, padded, in batches of the best size."""
    import torch
    import transformers

    torch.set_num_threads(N_THREADS)
    config = OFFICIAL["gpt2"]
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    settings = transformers.GPT2Config(**sizes, vocab_size=config.n_vocab, n_positions=config.n_ctx)
    model = transformers.GPT2Model(settings).eval()
    ordered = sorted(texts, key=len)

    def read(part: list[list[int]], size: int) -> None:
        for start in range(0, len(part), size):
            batch = part[start : start + size]
            longest = len(batch[-1])
            ids = torch.tensor([one + [0] * (longest - len(one)) for one in batch])
            mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in batch])
            with torch.inference_mode():
                states = model(ids, attention_mask=mask, use_cache=False).last_hidden_state
                (states * mask[..., None]).sum(1)

    sample = ordered[:: max(1, len(ordered) // 64)]
    rates = {size: speed(lambda size=size: read(sample, size), 1)() for size in (8, 16, 32, 64) for _ in range(2)}
    best = max(rates, key=rates.__getitem__)
    return lambda: read(ordered, best)
