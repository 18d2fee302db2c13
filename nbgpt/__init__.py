"""GPT-2 on CPUs: official weights in, text out, kernels compiled by Numba.

    import nbgpt
    model = nbgpt.load()
    for piece in model.stream("It was a dark and stormy night"):
        print(piece, end="", flush=True)

Names are imported when they are first used, so that `import nbgpt` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classification import Classification
    from .completion import Completion, Continuation, Usage
    from .formats import FormatError
    from .library import ModelNotFoundError
    from .logprobs import TokenLogprob
    from .runtime import KernelError
    from .scoring import Score
    from .session import Session
    from .stream import Stream
    from .text import Model, load
    from .trace import Trace

__version__ = "0.1.0"

_HOME = {
    "Classification": "classification",
    "Completion": "completion",
    "Continuation": "completion",
    "FormatError": "formats",
    "KernelError": "runtime",
    "Model": "text",
    "ModelNotFoundError": "library",
    "Score": "scoring",
    "Session": "session",
    "Stream": "stream",
    "TokenLogprob": "logprobs",
    "Trace": "trace",
    "Usage": "completion",
    "load": "text",
}

__all__ = [
    "Classification",
    "Completion",
    "Continuation",
    "FormatError",
    "KernelError",
    "Model",
    "ModelNotFoundError",
    "Score",
    "Session",
    "Stream",
    "TokenLogprob",
    "Trace",
    "Usage",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nbgpt' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
