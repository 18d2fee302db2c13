"""AMX, the matrix unit of Intel's server CPUs: may the kernels of this process use it?

Only if somebody asks for it (NBGPT_AMX=1), the CPU has it, and the system allows it: Linux gives a process the tile
registers when it asks for them, before it first uses them. The permission is the process's: its threads have it, and
forked processes inherit it.

Source: https://docs.kernel.org/arch/x86/xstate.html; the numbers are those of asm/prctl.h.
"""

from __future__ import annotations

import functools
import os
import platform
import sys

FEATURES = frozenset({"amx-tile", "amx-int8", "amx-bf16"})
"""LLVM's names of the features that the kernels use beside those of the vector kernels.

There is one answer for all types of weights: every CPU known to have one of the three has the others too.
"""
NEEDED = FEATURES | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"}
"""All that a CPU must have: rows that fill no tile go to the vector kernels of AVX-512 with VNNI."""
DTYPES = ("bfloat16", "int8", "int4")
"""Types of weights that have kernels with AMX."""
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18


def obstacle(features: frozenset[str]) -> str:
    """Why the kernels of this process use no AMX on a CPU with these features; empty if they do."""
    if missing := NEEDED - features:
        return "the CPU has none" if missing >= FEATURES else f"the CPU lacks {', '.join(sorted(missing))}"
    if os.environ.get("NBGPT_AMX") != "1":
        return "nobody asked for it (NBGPT_AMX=1)"
    refusal = _refusal()
    return f"the system does not allow it: {refusal}" if refusal else ""


@functools.cache
def _refusal() -> str:
    """Ask the system, once; what it has against it, or nothing."""
    import ctypes

    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "it is asked for on Linux on x86-64 alone"
    process = ctypes.CDLL(None, use_errno=True)
    if process.syscall(*map(ctypes.c_long, (_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA))) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
