"""What `nbgpt verify` does: compares this machine's digests with the committed ones, part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import GPT2Config
from ..conversion.registry import EMBEDDED
from ..engine.engine import Engine
from ..model import Model
from ..paths import shipped
from ..weights import DTYPES, Weights, load
from .digests import logits_digests, text_digest, texts_digest
from .exact import SIZES, exact_weights
from .texts import DEFAULTS, TEXTS

KV_DTYPES = ("float32", "float16")
EXPECTED = Path(__file__).with_name("expected.json")
_KV_MEMORY = 64 << 20


@dataclass(frozen=True)
class Check:
    """A part of the verification: how many things were compared, and the names of those that differ."""

    name: str
    n_compared: int
    different: tuple[str, ...]


def expected() -> dict[str, Any]:
    """The committed digests: those of everybody's bits ("fma"), and SHA-256 of the files that come with nbgpt."""
    found: dict[str, Any] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return found


def checks() -> Iterator[Check]:
    """Compare files, logits and texts, each part when it is asked for. Raises as `nbgpt.load` does."""
    wanted = expected()
    yield _compared("files", wanted["files"], {name: file_digest(shipped(name)) for name in wanted["files"]})
    logits = {f"{dtype}, cache {kv_dtype}": exact_logits(dtype, kv_dtype) for dtype in DTYPES for kv_dtype in KV_DTYPES}
    yield _compared("logits", wanted["fma"]["logits"], logits)
    with Model(load(shipped(f"{EMBEDDED}-int8.safetensors"))) as model:
        texts = {name: text_digest(model, {**DEFAULTS, **options}) for name, options in TEXTS.items()}
    yield _compared("texts", wanted["fma"]["texts"], texts)


def _compared(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> Check:
    return Check(name, len(found), tuple(one for one, digest in found.items() if digest != wanted[one]))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def exact_logits(dtype: str, kv_dtype: Any, threads: int | None = None, **changes: Any) -> list[str]:
    """Digests of the logits of a small model, of each text; changes: fields of the config."""
    weights = exact_weights(GPT2Config(**{**SIZES, **changes}), dtype)
    engine = Engine(weights, threads, kv_dtype, _KV_MEMORY)
    try:
        return logits_digests(engine)
    finally:
        engine.close()


def model_digest(weights: Weights, threads: int | None = None) -> str:
    """One digest of a model's own logits and texts: two machines that print the same one compute the same bits.

    Args:
        weights: of the model.
        threads: threads of the kernels; None: one for each physical core.

    Raises:
        VerificationError: a text's logits depend on what else is in the batch.
    """
    engine = Engine(weights, threads)
    try:
        parts = [*logits_digests(engine), texts_digest(engine)]
    finally:
        engine.close()
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
