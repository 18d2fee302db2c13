"""How an idle thread of the kernels sleeps where there is no futex: on a condition variable of POSIX threads.

Kernels sleep and wake by Linux's futex(2), which they call through `syscall` of the C library. On other systems a
function in LLVM's assembly takes its place when an object is linked. One mutex and one condition variable serve every
counter: all threads that sleep wake, and look whether it was for them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

SYSCALL = """
@mutex = global [16 x i64] zeroinitializer, align 64
@condition = global [16 x i64] zeroinitializer, align 64
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define i64 @syscall(i64 %number, ptr %counter, i64 %operation, i64 %seen, ptr %timeout, ptr %other, i64 %mask) {
    call i32 @pthread_mutex_lock(ptr @mutex)
    %is_wait = icmp eq i64 %operation, 128 ; FUTEX_WAIT_PRIVATE, see simd/atomics.py
    br i1 %is_wait, label %look, label %wake
look:
    %now = load atomic i64, ptr %counter seq_cst, align 8
    %is_same = icmp eq i64 %now, %seen
    br i1 %is_same, label %sleep, label %leave
sleep:
    call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)
    br label %leave
wake:
    call i32 @pthread_cond_broadcast(ptr @condition)
    br label %leave
leave:
    call i32 @pthread_mutex_unlock(ptr @mutex)
    ret i64 0
}
"""
"""LLVM's assembly; a mutex or a condition variable takes at most 64 bytes on Linux and macOS."""


def is_needed() -> bool:
    """True if this system has no futex."""
    return sys.platform != "linux"


def begin(engine: Any) -> None:
    """Make the mutex and the condition variable ready in LLVM's engine that has loaded `SYSCALL`."""
    process = ctypes.CDLL(None)

    def make() -> None:
        for name, of_system in ("mutex", process.pthread_mutex_init), ("condition", process.pthread_cond_init):
            of_system(ctypes.c_void_p(engine.get_global_value_address(name)), None)

    make()
    os.register_at_fork(after_in_child=make)  # a thread of the parent, which the child lacks, may have held the mutex
