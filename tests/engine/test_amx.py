"""The machine code that a CPU with AMX would run, on a CPU without: a handler of SIGILL does what the CPU would do."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nbgpt.abi.amx import FEATURES
from nbgpt.abi.targets import host_target
from nbgpt.verification.machine import expected

SOURCE = Path(__file__).parents[1] / "fixtures/amx/trap.c"
SCRIPT = """
import ctypes, json, sys
trap = ctypes.CDLL(sys.argv[1])
trap.install()

from nbgpt.abi import amx
amx._refusal = lambda: ""  # the system has nothing against it

from nbgpt.backend.kernel_cache import find_object
from nbgpt.verification.machine import exact_logits
assert find_object("int8").target.amx
logits = {dtype: exact_logits(dtype, "float32", threads=2) for dtype in ("int8", "int4")}
counts = {name: ctypes.c_long.in_dll(trap, name).value for name in ("n_products", "n_configurations", "n_releases")}
print(json.dumps([logits, counts]))
"""


def has_amx():
    return Path("/proc/cpuinfo").exists() and " amx_tile" in Path("/proc/cpuinfo").read_text()


@pytest.fixture
def trap(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for the handler")
    library = tmp_path / "trap.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", SOURCE, "-o", library], check=True)
    return library


@pytest.mark.skipif(has_amx(), reason="this CPU has AMX: tests/kernels/test_amx.py runs its instructions")
@pytest.mark.skipif(not (host_target().avx512 and host_target().vnni), reason="the rest needs AVX-512 with VNNI")
def test_everybodys_bits_come_from_the_machine_code(trap):
    host = host_target()
    target = replace(host, features=host.features | FEATURES, missing=host.missing - FEATURES)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = {sys.path}\n{SCRIPT}", trap],
        env={**os.environ, "NBGPT_AMX": "1", "NUMBA_CPU_NAME": host.cpu, "NUMBA_CPU_FEATURES": target.llvm_features},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits, counts = json.loads(done.stdout)
    wanted = expected()["fma"]["logits"]
    assert logits == {dtype: wanted[f"{dtype}, cache float32"] for dtype in ("int8", "int4")}
    assert counts["n_products"] > 1000
    assert 0 < counts["n_configurations"] == counts["n_releases"]  # no thread is left with tiles
