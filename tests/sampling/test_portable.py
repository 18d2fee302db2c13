"""exp, log and powers beside `math`; and texts that do not depend on the instructions that NumPy finds."""

import json
import math
import os
import re
import subprocess
import sys
from hashlib import sha256
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbgpt.sampling import portable
from nbgpt.sampling.portable import LN_2, exp, exp_array, largest, log, log_softmax, power, softmax
from nbgpt.verification.machine import EXPECTED

positive = st.floats(1e-300, 1e300)


@given(st.floats(-700, 700))
def test_exp(x):
    assert exp(x) == pytest.approx(math.exp(x), rel=1e-15)


@given(positive)
def test_log(x):
    assert log(x) == pytest.approx(math.log(x), rel=1e-15, abs=1e-300)


@given(st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_power(base, exponent):
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-14)


def test_edges():
    assert (exp(0), exp(-math.inf), log(1), power(7, 0), power(np.float32(0.5), 2)) == (1, 0, 0, 1, 0.25)
    assert math.log(2) == LN_2


def test_exp_array_is_within_two_units_in_the_last_place():
    x = np.concatenate([-np.geomspace(1e-10, 86, 200_000), np.arange(-11_000, 1) / 128, np.arange(-11_000, 0) / 256])
    x = x.astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    unit = np.spacing(expected.astype(np.float32)).astype(np.float64)
    assert (np.abs(exp_array(x) - expected) / unit).max() <= 2


def test_exp_array_where_there_is_nothing_left():
    x = np.array([0, -0.0, -88, -103, -104, -105, -1e30, -np.inf], np.float32)
    kept = x.copy()
    found = exp_array(x)
    assert found.dtype == np.float32
    assert found[:2].tolist() == [1, 1]
    assert (found[2:4] > 0).all()
    assert found[4:].tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(x, kept)  # the caller's array is not changed


@given(st.lists(st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1.0]), min_size=1, max_size=40), st.integers(0, 50))
def test_largest(scores, n):
    scores = np.array(scores, np.float32)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:n]
    assert largest(scores, n).tolist() == expected


def test_largest_of_many_equals():
    """Where `argpartition` takes other ones, and other ones on other CPUs."""
    assert largest(np.zeros(5000, np.float32), 5).tolist() == [0, 1, 2, 3, 4]


def test_softmax_divides_in_float64(rng):
    """As NumPy 2 does by itself, and NumPy 1 does not."""
    scores = rng.standard_normal(5000).astype(np.float32)
    weights = exp_array(scores - scores.max())
    expected = (weights.astype(np.float64) / weights.sum(dtype=np.float64)).astype(np.float32)
    np.testing.assert_array_equal(softmax(scores), expected)


@pytest.mark.parametrize("package", ["sampling", "decoding"])
def test_what_chooses_an_id_computes_with_these(package):
    """Not with `operations`, whose softmax has other bits, nor with what NumPy chooses among equals."""
    for path in files(f"nbgpt.{package}").iterdir():
        if path.name.endswith(".py"):
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"\.operations import|import operations|np\.argpartition", source), path.name


def test_softmax(rng):
    scores = (5 * rng.standard_normal(1000)).astype(np.float32)
    scores[::7] = -np.inf
    expected = np.exp(scores.astype(np.float64) - scores.max())
    expected /= expected.sum()
    np.testing.assert_allclose(softmax(scores), expected, rtol=3e-6)  # scores are rounded before
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(log_softmax(scores), np.log(expected), rtol=1e-6)


# --- Whatever chooses an id -------------------------------------------------------------------------------------------


def numpy_features() -> list[str]:
    """Features of this CPU for which NumPy has code of its own, beyond those that it always uses."""
    core = np._core if hasattr(np, "_core") else np.core
    found = core._multiarray_umath
    return [name for name in found.__cpu_dispatch__ if found.__cpu_features__.get(name)]


PROGRAM = """
import json, sys
from hashlib import sha256
from importlib.resources import files
import numpy as np
import nbgpt
from nbgpt.sampling import portable
from nbgpt.verification.digests import text_digest
from nbgpt.verification.texts import DEFAULTS, STORY, TEXTS

x = np.linspace(-20, 0, 50257, dtype=np.float32)
found = {"numpy": sha256(np.exp(x).tobytes()).hexdigest(), "ours": sha256(portable.softmax(x).tobytes()).hexdigest()}
with nbgpt.load(threads=2) as model:
    found["texts"] = {name: text_digest(model, {**DEFAULTS, **options}) for name, options in TEXTS.items()}
    beams = model.beam_search(STORY, 4, num_return=3, max_tokens=20, length_penalty=0.5)
    found["searches"] = [beam.tokens for beam in beams] + [model.contrastive_search(STORY, alpha=0.6, k=5).tokens]
json.dump(found, sys.stdout)
"""


def run(**environment) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NPY_", "OPENBLAS_CORETYPE"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**kept, **environment}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not numpy_features(), reason="NumPy has no code of its own for this CPU that could be disabled")
def test_texts_do_not_depend_on_what_numpy_finds(home):
    """NumPy and its BLAS as on a CPU without AVX, the kernels as they are."""
    plain = run(NPY_DISABLE_CPU_FEATURES=" ".join(numpy_features()), OPENBLAS_CORETYPE="NEHALEM")
    x = np.linspace(-20, 0, 50257, dtype=np.float32)
    assert plain["numpy"] != sha256(np.exp(x).tobytes()).hexdigest(), "NumPy's own exp should differ, else this is idle"
    assert plain["ours"] == sha256(portable.softmax(x).tobytes()).hexdigest()
    expected = json.loads(EXPECTED.read_text())["fma"]
    different = [name for name, digest in plain["texts"].items() if digest != expected["texts"][name]]
    assert different == []
    assert plain["searches"] == run()["searches"]
