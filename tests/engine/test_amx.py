"""The machine code of a wheel for CPUs with AMX, on a CPU without: a handler of SIGILL does what the CPU would do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbgpt.abi.amx import DTYPES
from nbgpt.abi.targets import SHIPPED, described_host
from nbgpt.backend import kernel_cache
from nbgpt.verification.machine import expected

TARGET = SHIPPED[0]

SOURCE = Path(__file__).parents[1] / "fixtures/amx/trap.c"
SCRIPT = """
import ctypes, json, sys
trap = ctypes.CDLL(sys.argv[1])
trap.install()

from dataclasses import replace
from pathlib import Path
from nbgpt.abi import amx
from nbgpt.backend import kernel_cache
from nbgpt.verification.machine import exact_logits

host = kernel_cache.described_host()
amx._refusal = lambda: ""  # the system has nothing against it
kernel_cache.described_host = lambda: replace(host, features=host.features | amx.FEATURES).allowed
kernel_cache.source_digest()  # of the sources, which are elsewhere
kernel_cache._PACKAGE, dtype = Path(sys.argv[2]), sys.argv[3]
found = kernel_cache.find_object(dtype)
assert (found.state, found.target.amx) == ("shipped", True)
logits = exact_logits(dtype, "float32", threads=2)
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
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", SOURCE, "-o", library, "-lm"], check=True)
    return library


@pytest.fixture(params=DTYPES)
def dtype(request, tmp_path):
    """A type of weights whose object is in a folder as a wheel has it."""
    wanted = kernel_cache._shipped_object(request.param, TARGET, tmp_path / "objects")
    wanted.path.parent.mkdir()
    wanted.path.write_bytes(kernel_cache._compile(wanted))
    return request.param


@pytest.mark.skipif(has_amx(), reason="this CPU has AMX: tests/kernels/test_amx.py runs its instructions")
@pytest.mark.skipif(
    not SHIPPED[1].features <= described_host().features, reason="the rest needs AVX-512 with VNNI and bfloat16"
)
def test_everybodys_bits_come_from_the_machine_code(trap, dtype, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = {sys.path}\n{SCRIPT}", trap, tmp_path, dtype],
        env={**environment, "NBGPT_AMX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")  # nothing was compiled
    logits, counts = json.loads(done.stdout)
    assert logits == expected()["fma"]["logits"][f"{dtype}, cache float32"]
    assert counts["n_products"] > 1000
    assert 0 < counts["n_configurations"] == counts["n_releases"]  # no thread is left with tiles
