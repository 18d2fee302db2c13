"""OpenVINO: a stateful model, as optimum-intel would export it for text generation.

It is traced from transformers' model with the cache as inputs and outputs, which `make stateful` turns into variables
inside; the beam table before them lets the CPU plugin fuse attention with the cache.
"""

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from . import engine


def convert(source: Path, dtype: str, target: Path) -> None:
    """An OpenVINO model; int8 and int4 weights are compressed by NNCF, which leaves activations as they are."""
    model = _stateful(source)
    if dtype != "float32":
        import nncf

        options = {
            "int8": {"mode": nncf.CompressWeightsMode.INT8_SYM},
            "int4": {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": 64, "ratio": 1.0},
        }[dtype]
        model = nncf.compress_weights(model, **options)
    target.mkdir()
    ov.save_model(model, target / "model.xml", compress_to_fp16=False)


def _stateful(source: Path) -> ov.Model:
    import torch
    import transformers
    from openvino._offline_transformations import apply_make_stateful_transformation

    peer = transformers.GPT2LMHeadModel.from_pretrained(source, dtype=torch.float32).eval()
    n_layer, n_head = peer.config.n_layer, peer.config.n_head
    head_dim = peer.config.n_embd // n_head

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.peer = peer

        def forward(self, ids, positions, beams, *past):
            past = [one.index_select(0, beams) for one in past]
            cache = transformers.DynamicCache(config=peer.config)
            for layer, key, value in zip(cache.layers, past[::2], past[1::2], strict=True):
                layer.lazy_initialization(key, value)
                layer.keys, layer.values = key, value
            n_keys = past[0].shape[2] + ids.shape[1]
            mask = torch.arange(n_keys)[None, None, None] <= positions[:, None, :, None]
            body = self.peer.transformer(
                ids, position_ids=positions, past_key_values=cache, attention_mask=mask, use_cache=True
            )
            logits = self.peer.lm_head(body.last_hidden_state[:, -1])
            return logits, *(one for layer in cache.layers for one in (layer.keys, layer.values))

    names = [f"{kind}.{i}" for i in range(n_layer) for kind in ("key", "value")]
    past = [torch.zeros(2, n_head, 3, head_dim) for _ in names]
    beams = torch.arange(2, dtype=torch.int32)  # with 64 bits attention would not be fused with the cache
    example = (torch.zeros(2, 4, dtype=torch.int64), torch.arange(3, 7).expand(2, 4), beams, *past)
    with torch.no_grad():
        model = ov.convert_model(Step(), example_input=example)
    for port, name in zip(model.inputs, ["ids", "positions", "beams", *names], strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(
            ov.PartialShape([-1, n_head, -1, head_dim] if name in names else [-1] if name == "beams" else [-1, -1])
        )
    for port, name in zip(model.outputs, ["logits", *(f"new.{name}" for name in names)], strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, {name: f"new.{name}" for name in names})
    _begin_empty(model, n_head, head_dim)
    return model


def _begin_empty(model: ov.Model, n_head: int, head_dim: int) -> None:
    """Let the cache begin with no positions of as many sequences as there are ids."""
    shape = ops.shape_of(model.input("ids"), output_type="i64")
    batch = ops.gather(shape, ops.constant(np.array([0])), ops.constant(np.array(0)))
    empty = ops.concat([batch, ops.constant(np.array([n_head, 0, head_dim]))], axis=0)
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([ops.broadcast(ops.constant(np.float32(0)), empty).output(0)])
    model.validate_nodes_and_infer_types()


class Engine(engine.Engine):
    def __init__(self, path: Path, dtype: str, threads: int) -> None:
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        if dtype == "float32":
            options |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        model = ov.compile_model(path / "model.xml", "CPU", options)
        # one for each batch: an 8-bit cache that held another number of sequences before gave logits of nan
        self.requests = {batch: model.create_infer_request() for batch in (1, engine.BATCH)}
        weights = {
            "float32": "float32",
            "int8": "int8 weights by row (NNCF)",
            "int4": "int4 weights in groups of 64, int8 token matrix (NNCF)",
        }[dtype]
        precision, cache = (model.get_property(name) for name in ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION"))
        self.settings = (
            f"{weights}, computing in {precision.get_type_name()}, {cache.get_type_name()} KV cache, stateful, latency "
            "hint, one stream; logits of the last position"
        )

    def clear(self, batch: int) -> None:
        self.request = self.requests[batch]
        self.request.reset_state()
        self.beams = np.arange(batch, dtype=np.int32)

    def prompt(self, ids: list[int]) -> np.ndarray:
        return self._forward(np.array([ids]), np.arange(len(ids))[None])[0]

    def generate(self, ids: list[list[int]]) -> np.ndarray:
        for position, step in enumerate(zip(*ids, strict=True)):
            logits = self._forward(np.array(step)[:, None], np.full((len(step), 1), position))
        return logits

    def _forward(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        self.request.infer({"ids": ids, "positions": positions, "beams": self.beams}, share_inputs=True)
        return self.request.get_output_tensor(0).data
