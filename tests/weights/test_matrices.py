"""Matrices of a native file, against the reference's reading of its bytes."""

import numpy as np
import pytest
from models import config_of, native_params, random_params, write_native

from nbgpt import weights
from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.weights.matrices import block_matrix, head_rows, mean_head_row


def dense(matrix):
    """[n_in, n_out] of what a file stores."""
    return matrix if isinstance(matrix, np.ndarray) else matrix.weights().T


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", HEAD_DTYPE)
def test_matrices_are_what_the_file_stores(tmp_path, dtype, tied):
    config = config_of(n_vocab=1100, tied_embeddings=tied)  # more panels than are decoded at a time
    params = random_params(config)
    native = weights.load(write_native(tmp_path / "m.safetensors", params, config, dtype))
    stored = native_params(native)
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        np.testing.assert_allclose(
            block_matrix(native, 1, name), dense(stored[f"h.1.{name}.weight"]), rtol=1e-6, atol=1e-7
        )
    head = params["wte.weight" if tied else "lm_head.weight"]
    ids = np.array([0, 1099, 17, 17, 512], np.int32)
    tolerance = {"float32": 0, "float16": 1e-3, "bfloat16": 4e-3}.get(dtype, 0.02)
    np.testing.assert_allclose(head_rows(native, ids), head[ids], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(mean_head_row(native), head.mean(axis=0), atol=1e-6 + 0.1 * tolerance)
