"""Hugging Face transformers on PyTorch, token by token through the model's own forward."""

from pathlib import Path

import numpy as np
import torch
import transformers

from . import engine


def convert(source: Path, dtype: str, target: Path) -> None:
    """It reads the folder itself."""
    target.symlink_to(source.resolve())


class Engine(engine.Engine):
    def __init__(self, path: Path, dtype: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.model = transformers.GPT2LMHeadModel.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        ).eval()
        self.settings = (
            f"{dtype}, eager PyTorch, scaled_dot_product_attention, growing KV cache; logits of the last position"
        )

    def clear(self, batch: int) -> None:
        self.past = transformers.DynamicCache(config=self.model.config)

    def prompt(self, ids: list[int]) -> np.ndarray:
        return self._forward(torch.tensor([ids]))[0]

    def generate(self, ids: list[list[int]]) -> np.ndarray:
        for step in torch.tensor(ids).split(1, dim=1):
            logits = self._forward(step)
        return logits

    def _forward(self, ids: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            out = self.model(ids, past_key_values=self.past, use_cache=True, logits_to_keep=1)
            return out.logits[:, -1].float().numpy()
