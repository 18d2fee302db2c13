"""A model for EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness).

Texts are encoded and long ones cut as its `hf` backend does, so that the numbers are the same. Importing this module
imports the harness, which is an extra.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from ..engine.engine import Engine
from ..progress import progress_bar
from ..text.prompts import Prompt
from ..tokenizer import Tokenizer
from ..validation import check
from .likelihood import likelihoods

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise ImportError('eval harness needs the package lm-eval: pip install "nbgpt[harness]"') from None

_BATCH = 64
"""Texts that are generated together at most."""
_PASSED_ON = ("top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size", "seed")
"""Options of generation that mean the same here as in transformers."""


class Generates(Protocol):
    """What the harness needs of a model, as `nbgpt.Model` has it."""

    engine: Engine
    tokenizer: Tokenizer

    @property
    def generate(self) -> Callable[..., Any]:
        """`generate(prompts, **options)`: a list of texts."""
        ...


class HarnessModel(TemplateLM):
    """A model that `lm_eval.simple_evaluate(model=...)` takes."""

    def __init__(self, model: Generates, add_bos_token: bool = False) -> None:
        """add_bos_token: begin each text with <|endoftext|>; `hf` does not, for GPT-2.

        Raises ValueError if the model has no token that begins texts, which an empty context needs.
        """
        super().__init__()
        self._model = model
        self._engine, self._tokenizer = model.engine, model.tokenizer
        if self._tokenizer.bos_id is None:
            raise ValueError("this model has no token that begins texts, which lm-eval puts in place of an empty one")
        self._bos_id = self._tokenizer.bos_id
        self._add_bos = add_bos_token

    @property
    def eot_token_id(self) -> int:
        return self._bos_id

    @property
    def max_length(self) -> int:
        """Tokens of the context."""
        return self._engine.config.n_ctx

    @property
    def max_gen_toks(self) -> int:
        """New tokens of a text if the task does not say."""
        return 256

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text. Names of special tokens stand for those tokens, as in transformers."""
        ids = self._tokenizer.encode(string, special=True)
        begins = self._add_bos and add_special_tokens is not False and ids[:1] != [self._bos_id]
        return [self._bos_id, *ids] if begins else ids

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each text as a whole, in windows of the context that do not score a token twice."""
        owners, windows = [], []
        for owner, request in enumerate(requests):
            (text,) = request.args
            for pair in get_rolling_token_windows(self.tok_encode(text), self._bos_id, self.max_length, 1):
                owners.append(owner)
                windows.append((None, *make_disjoint_window(pair)))
        totals = [0.0] * len(requests)
        for owner, (total, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[owner] += total
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is what greedy decoding would give."""
        with progress_bar("requests", "text", len(requests), disable=disable_tqdm or None) as bar:
            found = likelihoods(self._engine, [(context, after) for _, context, after in requests], bar.update)
        answers = [(one.total, one.is_greedy) for one in found]
        for request, answer in zip(requests, answers, strict=True):
            if request[0] is not None:  # as it is for a part of a rolling text
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until one of its stop strings, or the end of text.

        A context that does not fit beside the new tokens loses its beginning.
        """
        texts: list[str] = []
        with progress_bar("requests", "text", len(requests), disable=disable_tqdm or None) as bar:
            for start in range(0, len(requests), _BATCH):
                part = [request.args for request in requests[start : start + _BATCH]]
                made = self._model.generate([self._prompt(*one) for one in part], batch_size=_BATCH)
                texts += map(str, made)
                for arguments, text in zip(part, texts[start:], strict=True):
                    self.cache_hook.add_partial("generate_until", arguments, text)
                bar.update(len(part))
        return texts

    def _prompt(self, context: str, asked: Mapping[str, Any]) -> Prompt:
        """A prompt with its options. Raises ValueError for options that are not there."""
        options: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked), self.max_gen_toks))
        n_new, until = options.pop("max_gen_toks"), options.pop("until")
        if n_new >= self.max_length:
            raise ValueError(f"max_gen_toks is {n_new}; it must be less than {self.max_length}, this model's context")
        temperature = options.pop("temperature", 0.0) if options.pop("do_sample") else 0.0
        if unknown := options.keys() - {*_PASSED_ON}:
            raise ValueError(f"generation_kwargs has {', '.join(sorted(unknown))}; nbgpt has {', '.join(_PASSED_ON)}")
        how = {
            "top_k": 50,
            "seed": 0,
            **options,
            "temperature": temperature,
        }  # transformers' top_k; the same texts again
        ids = self.tok_encode(context)[-(self.max_length - n_new) :] or [self._bos_id]
        return Prompt(ids, max_tokens=n_new, stop=[term for term in until if term], bos=False, **how)


def evaluate(
    model: HarnessModel,
    tasks: Sequence[str],
    *,
    include_path: str | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run tasks of the harness, as `lm_eval.simple_evaluate` does; what it downloads is up to the tasks.

    Args:
        model: the model.
        tasks: names of tasks, groups or tags.
        include_path: a folder with tasks of one's own.
        num_fewshot: examples before each; None: as the task says.
        limit: how many examples of each task; None: all.

    Returns:
        What `simple_evaluate` returns, without samples.

    Raises:
        ValueError: there is no such task, the harness cannot run it, or a number is out of range.
        OSError: the folder or a data set cannot be read.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    check("limit", 1 if limit is None else limit, Integral, lambda n: n >= 1, "from 1 on")
    check("num_fewshot", 0 if num_fewshot is None else num_fewshot, Integral, lambda n: n >= 0, "from 0 on")
    if include_path is not None and not Path(include_path).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no folder with tasks", include_path)
    try:
        manager = TaskManager(include_path=include_path)
        if unknown := [name for name in tasks if not manager.match_tasks([name])]:
            raise ValueError(f"lm-eval has no task {unknown[0]!r}; `lm-eval ls tasks` lists those that it has")
        results: dict[str, Any] = simple_evaluate(
            model=model,
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            log_samples=False,
            torch_random_seed=None,  # nothing here draws from torch
            task_manager=manager,
        )
    except (OSError, ValueError, MemoryError, RuntimeError):
        raise
    except Exception as error:  # a task's own code may raise anything
        raise ValueError(f"lm-eval cannot run {', '.join(tasks)}: {type(error).__name__}: {error}") from error
    return results


def table(results: dict[str, Any]) -> str:
    """The results as the harness prints them."""
    from lm_eval.utils import make_table

    return "\n".join(str(make_table(results, name)) for name in ("results", "groups") if name in results)
