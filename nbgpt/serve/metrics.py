"""Metrics in Prometheus's text format, by the names of vLLM's where it has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.request import Request

_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96)


@dataclass
class TextTiming:
    """When a text reached its stations, in seconds of `time.monotonic`; 0: not yet."""

    arrived: float
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    n_tokens: int = 0


class Metrics:
    """Counts and times of a server; each application has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http_requests = self._counter("http_requests", "Answers by route and status.", ["route", "status"])
        self._ended = self._counter("request_success", "Texts that ended, by reason.", ["finished_reason"])
        self._failed = self._counter("request_failure", "Texts that failed or were given up.", [])
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, cached ones included.", [])
        self._new_tokens = self._counter("generation_tokens", "New tokens.", [])
        self._queue_time = self._seconds("request_queue_time_seconds", "From arrival until the prompt is being read.")
        self._first_token = self._seconds("time_to_first_token_seconds", "From arrival until the first token.")
        self._gap = self._seconds("inter_token_latency_seconds", "Between two tokens of a text.")
        self._whole = self._seconds("e2e_request_latency_seconds", "From arrival until the last token.")

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"nbgpt_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(f"nbgpt_{name}", text, buckets=_SECONDS, registry=self.registry)

    def watch(self, counts: Callable[[], tuple[int, int]], engines: Mapping[str, Engine]) -> None:
        """Ask engines, and for the numbers of running and waiting texts, whenever the metrics are read."""
        self.registry.register(_Engines(counts, engines))

    def observe(self, request: Request, timing: TextTiming) -> None:
        """Note the time of what a step has added to a text."""
        now = time.monotonic()
        if not timing.started and request.has_begun:
            timing.started = now
            self._queue_time.observe(now - timing.arrived)
            self._prompt_tokens.inc(len(request.prompt))
        n_new = len(request.tokens) - timing.n_tokens
        if n_new <= 0:
            return
        if timing.n_tokens:
            gap = (now - timing.last_token) / n_new
            for _ in range(n_new):
                self._gap.observe(gap)
        else:
            timing.first_token = now
            self._first_token.observe(now - timing.arrived)
        self._new_tokens.inc(n_new)
        timing.n_tokens, timing.last_token = len(request.tokens), now

    def note_end(self, request: Request, timing: TextTiming) -> None:
        """Note that a text has ended."""
        reason = request.finish_reason
        if reason in ("stop", "length", "time"):
            self._ended.labels(reason).inc()
            self._whole.observe(time.monotonic() - timing.arrived)
        else:
            self._failed.inc()

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self.registry)


class _Engines(Collector):
    """What the engines know at the moment."""

    def __init__(self, counts: Callable[[], tuple[int, int]], engines: Mapping[str, Engine]) -> None:
        self._counts, self._engines = counts, engines

    def collect(self) -> Iterator[Metric]:
        running, waiting = self._counts()
        yield GaugeMetricFamily("nbgpt_num_requests_running", "Texts that grow.", running)
        yield GaugeMetricFamily("nbgpt_num_requests_waiting", "Texts that wait for a place or for memory.", waiting)
        usage = GaugeMetricFamily(
            "nbgpt_kv_cache_usage_perc", "Share of the KV cache's pages in use.", labels=["model"]
        )
        queries = CounterMetricFamily("nbgpt_prefix_cache_queries", "Tokens of prompts looked up.", labels=["model"])
        hits = CounterMetricFamily("nbgpt_prefix_cache_hits", "Tokens of prompts found in the cache.", labels=["model"])
        preemptions = CounterMetricFamily("nbgpt_num_preemptions", "Texts put back for memory.", labels=["model"])
        for name, engine in self._engines.items():
            cache, scheduler = engine.cache, engine.scheduler
            usage.add_metric([name], cache.usage)
            queries.add_metric([name], scheduler.n_prompt_tokens)
            hits.add_metric([name], scheduler.n_cached_tokens)
            preemptions.add_metric([name], scheduler.n_preemptions)
        yield from (usage, queries, hits, preemptions)
