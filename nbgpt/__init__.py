"""GPT-2 on CPUs: official weights in, text out, kernels compiled by Numba.

    import nbgpt
    model = nbgpt.load()
    for piece in model.stream("It was a dark and stormy night"):
        print(piece, end="", flush=True)

Names are imported when they are first used, so that `import nbgpt` costs milliseconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if sys.platform == "win32":
    raise ImportError("nbgpt does not run on Windows: install it in WSL or in a container")

if TYPE_CHECKING:
    from .analysis.trace import Trace
    from .backend.kernel_cache import KernelError
    from .conversion.registry import ModelNotFoundError
    from .formats import FormatError
    from .model import Model, load
    from .sampling.logprobs import TokenLogprob
    from .tasks.classification import Classification
    from .tasks.scoring import Score
    from .tasks.training.classifier import Classifier
    from .tasks.training.train import train_classifier
    from .text.completion import Completion, Continuation, Usage
    from .text.prompts import Prompt
    from .text.session import Session
    from .text.stream import Stream

_HOME = {
    "Classification": "tasks.classification",
    "Classifier": "tasks.training.classifier",
    "Completion": "text.completion",
    "Continuation": "text.completion",
    "FormatError": "formats",
    "KernelError": "backend.kernel_cache",
    "Model": "model",
    "ModelNotFoundError": "conversion.registry",
    "Prompt": "text.prompts",
    "Score": "tasks.scoring",
    "Session": "text.session",
    "Stream": "text.stream",
    "TokenLogprob": "sampling.logprobs",
    "Trace": "analysis.trace",
    "Usage": "text.completion",
    "load": "model",
    "train_classifier": "tasks.training.train",
}

__all__ = [
    "Classification",
    "Classifier",
    "Completion",
    "Continuation",
    "FormatError",
    "KernelError",
    "Model",
    "ModelNotFoundError",
    "Prompt",
    "Score",
    "Session",
    "Stream",
    "TokenLogprob",
    "Trace",
    "Usage",
    "__version__",
    "load",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nbgpt' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
