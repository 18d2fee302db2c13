"""What a server allows its clients: sizes, counts and times."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server. A text is one sample of one prompt."""

    max_batch: int = 32
    """Texts of a model that grow at a time."""
    max_queue: int = 256
    """Texts that wait for a place; one more is refused with status 429."""
    timeout: float = 600.0
    """Seconds from the arrival of a request to the end of its texts."""
    client_timeout: float = 30.0
    """Seconds in which a client must send its request, and take what is written to it."""
    max_body: int = 1 << 20
    """Bytes of the body of a request."""
    max_texts: int = 128
    """Texts of one request: prompts times samples."""
    max_logprobs: int = 20
    """Likeliest tokens shown in the place of each."""
    max_stops: int = 16
    """Stop strings of a request."""
    max_stop_length: int = 256
    """Characters of a stop string."""
    max_grammar: int = 20_000
    """Characters of a schema or regular expression, or of all choices together."""
    grammar_seconds: float = 5.0
    """Seconds in which a schema, regular expression or choice must be compiled."""
