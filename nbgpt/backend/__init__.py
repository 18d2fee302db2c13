"""From kernels to callable code on threads: compile, cache, load, run.

May import: kernels, simd, abi, paths.
Start with `kernel_cache.py`, which finds compiled kernels; `compiler.py` makes them; `thread_pool.py` runs them.
"""
