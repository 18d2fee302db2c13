"""What a run says of itself: a bar while it lasts, a summary at its end, and metrics for Prometheus."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..progress import progress_bar
from .job import Answer

if TYPE_CHECKING:
    from prometheus_client import Gauge

_METRICS_SECONDS = 5.0
"""Between two writings of the metrics."""
_PUSH_SECONDS = 2.0
"""That a gateway may take: the run waits for it."""


@dataclass
class Summary:
    """What a run has done. Tokens and speeds are those of this process, without what an earlier one had done."""

    rows: int = 0  # of the input, or of this part of it
    resumed: int = 0  # of these, answered before
    answered: int = 0  # by this process; of these, `failed` could not be
    failed: int = 0  # of all rows
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields, and the speeds."""
        seconds = max(self.seconds, 1e-9)
        n_tokens = self.prompt_tokens + self.new_tokens
        speeds = {"rows_per_second": self.answered / seconds, "tokens_per_second": n_tokens / seconds}
        return {**asdict(self), **{name: round(speed, 3) for name, speed in speeds.items()}}

    def __str__(self) -> str:
        found = self.to_dict()
        again = f", {self.resumed} of them before" * bool(self.resumed)
        return (
            f"{self.rows} rows{again}, {self.failed} failed; {self.seconds:.1f} s, {found['rows_per_second']:.1f} "
            f"rows/s, {found['tokens_per_second']:.0f} tokens/s ({self.prompt_tokens} read, {self.new_tokens} new)"
        )


class Progress(AbstractContextManager["Progress"]):
    """Counts answers and shows them in a bar on standard error."""

    def __init__(self, summary: Summary, publish: Callable[[Summary], object] | None = None) -> None:
        """publish: is given the summary now, every few seconds, and at the end.

        Raises OSError if metrics cannot be written now; if they cannot be pushed, or later, one note says so.
        """
        self.summary, self._publish, self._has_noted = summary, publish, False
        self._tell(is_first=True)
        self._start = self._published = time.monotonic()
        self._bar = progress_bar("batch", "row", summary.rows, initial=summary.resumed)

    def note(self, answer: Answer) -> None:
        """Count an answer."""
        self.add(1, answer.prompt_tokens, answer.new_tokens)

    def add(self, n_rows: int, prompt_tokens: int, new_tokens: int) -> None:
        """Count answers."""
        summary, now = self.summary, time.monotonic()
        summary.answered += n_rows
        summary.prompt_tokens += prompt_tokens
        summary.new_tokens += new_tokens
        summary.seconds = now - self._start
        n_tokens = summary.prompt_tokens + summary.new_tokens
        self._bar.set_postfix_str(f"{n_tokens / max(summary.seconds, 1e-9):.0f} tokens/s", refresh=False)
        self._bar.update(n_rows)
        if now - self._published > _METRICS_SECONDS:
            self._published = now
            self._tell()

    def _tell(self, is_first: bool = False) -> None:
        """Publish the summary; a run does not end because that fails."""
        from tqdm import tqdm

        if not self._publish:
            return
        try:
            self._publish(self.summary)
        except OSError as error:
            if is_first and not isinstance(error, PushError):
                raise
            if not self._has_noted:
                self._has_noted = True
                tqdm.write(f"nbgpt: the metrics cannot be told: {error}; the run goes on", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self.summary.seconds = time.monotonic() - self._start
        self._tell()


class PushError(OSError):
    """A push gateway has not taken the metrics."""


def publisher(target: str, part: str) -> Callable[[Summary], None]:
    """Publishes summaries for Prometheus: to a textfile, or to a push gateway if the target is an http(s) address.

    Args:
        target: the file or address.
        part: of the input, as `--shard` names it; a gateway keeps the metrics of each part and machine apart.

    Raises ImportError without prometheus_client.
    """
    try:
        from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile
    except ImportError:
        raise ImportError('--prometheus needs the package prometheus_client: pip install "nbgpt[serve]"') from None
    registry = CollectorRegistry()
    about = {
        "rows": "Rows of the input.",
        "resumed": "Rows answered by earlier runs.",
        "answered": "Rows answered by this run.",
        "failed": "Rows that could not be answered.",
        "prompt_tokens": "Tokens of prompts read by this run.",
        "new_tokens": "Tokens written by this run.",
        "seconds": "Seconds of this run.",
    }
    gauges: dict[str, Gauge] = {
        name: Gauge(f"nbgpt_batch_{name}", text, registry=registry) for name, text in about.items()
    }

    group = {"instance": socket.gethostname(), "part": part}

    def publish(summary: Summary) -> None:
        for name, gauge in gauges.items():
            gauge.set(getattr(summary, name))
        if target.startswith(("http://", "https://")):
            try:
                push_to_gateway(target, "nbgpt_batch", registry, group, timeout=_PUSH_SECONDS)
            except OSError as error:
                raise PushError(f"{target}: {error}") from None
        else:
            write_to_textfile(target, registry)

    return publish
