"""Forward passes in parts, so that the residual stream can be seen and changed between them.

The kernels compute every part; without a change the logits have the bits of a whole pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids

import numpy as np

from ..config import GPT2Config
from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_LOGIT_ROWS, MAX_ROWS
from ..progress import progress_bar

Edit = Callable[[int, np.ndarray], np.ndarray]
"""(layer, residual stream float32 [n, n_embd]) -> the stream that the pass goes on with."""


def attention_part(layer: int) -> int:
    """The part of a pass, as `ModelRunner.forward` counts them, that is the attention of a layer; its MLP follows."""
    return 2 * layer + 1


def run_parts(
    engine: Engine, ids: Ids[int], parts: tuple[int, int], stream: np.ndarray | None = None, wants: Ids[int] = ()
) -> dict[str, np.ndarray]:
    """`each_pass`, joined: arrays of all rows."""
    found = list(each_pass(engine, ids, parts, stream, wants))
    names = {name for one in found for name in one}
    return {name: np.concatenate([one[name] for one in found if name in one]) for name in names}


def each_pass(
    engine: Engine, ids: Ids[int], parts: tuple[int, int], stream: np.ndarray | None = None, wants: Ids[int] = ()
) -> Iterator[dict[str, np.ndarray]]:
    """`ModelRunner.run_parts` over a whole text from an empty context, pass by pass.

    wants: positions whose logits are asked for, in ascending order.
    """
    sequence = Sequence()
    size = MAX_LOGIT_ROWS if len(wants) > 1 else MAX_ROWS
    try:
        for start in range(0, len(ids), size):
            rows = slice(start, start + size)
            own = [position - start for position in wants if start <= position < start + size]
            yield engine.run_parts(sequence, ids[rows], parts, None if stream is None else stream[rows], own)
    finally:
        engine.free(sequence)


def each_layer(config: GPT2Config, label: str) -> Iterator[int]:
    """Numbers of the layers, with a progress bar if they take long."""
    layers: Iterator[int] = progress_bar(label, "layer", iterable=range(config.n_layer), leave=False)
    return layers


def read_logits(engine: Engine, ids: Ids[int], edit: Edit | None = None) -> np.ndarray:
    """`Model.logits`: float32 [n, n_vocab]."""
    if edit and ids:
        return edited_logits(engine, ids, edit)
    result, start = np.empty((len(ids), engine.config.n_vocab), np.float32), 0
    for part in engine.logits(ids):
        result[start : start + len(part)] = part
        start += len(part)
    return result


def edited_logits(engine: Engine, ids: Ids[int], edit: Edit) -> np.ndarray:
    """`Model.logits` of a model whose residual stream is edited before each layer and before ln_f.

    Args:
        engine: runs the model.
        ids: token ids, from 1 to n_ctx.
        edit: called with the layer that reads the stream next, 0 to n_layer - 1, and n_layer for ln_f; what it returns
            takes the place of the stream. It may change the array that it is given, which is a copy.

    Returns:
        float32 [n, n_vocab]; the bits of `Model.logits` if edit changes nothing.

    Raises:
        ValueError: edit returned something that is not an array of numbers [n, n_embd].
    """
    n_layer = engine.config.n_layer
    stream = run_parts(engine, ids, (0, 1))["x"]
    for layer in range(n_layer):
        stream = _edited(edit, layer, stream)
        stream = run_parts(engine, ids, (attention_part(layer), attention_part(layer + 1)), stream)["x"]
    stream = _edited(edit, n_layer, stream)
    head = (attention_part(n_layer), engine.runner.n_parts)
    return run_parts(engine, ids, head, stream, range(len(ids)))["logits"]


def _edited(edit: Edit, layer: int, stream: np.ndarray) -> np.ndarray:
    """What edit makes of a stream, checked."""
    shape = stream.shape
    changed = edit(layer, stream)
    if not isinstance(changed, np.ndarray) or changed.shape != shape or changed.dtype.kind not in "fiu":
        what = f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, np.ndarray) else repr(changed)[:40]
        raise ValueError(f"edit returned {what} at layer {layer}; it must return the stream, float32 {list(shape)}")
    return changed.astype(np.float32)
