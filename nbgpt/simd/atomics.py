"""Atomic operations on int64 counters, and ways for a thread to wait."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .codegen import I32, I64, call


@intrinsic
def atomic_add(typing: Any, counters: Any, index: Any, value: Any) -> Any:
    """counters[index] += value; returns the previous value."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), args[2], "seq_cst")

    return types.int64(counters, types.intp, types.int64), generate


@intrinsic
def atomic_load(typing: Any, counters: Any, index: Any) -> Any:
    """counters[index]; the caller then sees all writes that preceded the store of this value."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def atomic_store(typing: Any, counters: Any, index: Any, value: Any) -> Any:
    """counters[index] = value, after all previous writes of this thread."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(counters, types.intp, types.int64), generate


@intrinsic
def relax(typing: Any) -> Any:
    """A hint to the core that this is a spin loop (x86 `pause`)."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.codegen()._llvm_module.triple.startswith("x86_64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_cpu(typing: Any) -> Any:
    """Let another thread run on this core: sched_yield of the C library."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        call(builder, "sched_yield", I32)
        return context.get_dummy_value()

    return types.void(), generate


_FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98}  # of the system call, by architecture
_FUTEX_WAIT_PRIVATE, _FUTEX_WAKE_PRIVATE, _ALL_THREADS = 128, 129, 0x7FFFFFFF


def _futex(context: Any, builder: Any, address: Any, operation: int, value: Any) -> Any:
    """futex(2) on the low 32 bits of a counter (little-endian), through the C library's syscall().

    That takes any number of arguments, and is declared here with seven. Both are called in the same way on Linux, but
    not on Apple's ARM, where a function with seven stands in for it (backend/parking.py).
    """
    architecture = context.codegen()._llvm_module.triple.split("-")[0]
    pointer = address.type
    signature = ir.FunctionType(I64, [I64, pointer, I64, I64, pointer, pointer, I64])
    syscall = cgutils.get_or_insert_function(builder.module, signature, "syscall")
    null = ir.Constant(pointer, None)
    number = I64(_FUTEX_NUMBER[architecture])
    builder.call(syscall, [number, address, I64(operation), value, null, null, I64(0)])
    return context.get_dummy_value()


@intrinsic
def futex_wait(typing: Any, counters: Any, index: Any, seen: Any) -> Any:
    """Sleep until another thread wakes those that wait for this counter, unless it differs from `seen`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _futex(context, builder, builder.gep(args[0], [args[1]]), _FUTEX_WAIT_PRIVATE, args[2])

    return types.void(counters, types.intp, types.int64), generate


@intrinsic
def futex_wake(typing: Any, counters: Any, index: Any) -> Any:
    """Wake all threads that wait for this counter."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _futex(context, builder, builder.gep(args[0], [args[1]]), _FUTEX_WAKE_PRIVATE, I64(_ALL_THREADS))

    return types.void(counters, types.intp), generate
