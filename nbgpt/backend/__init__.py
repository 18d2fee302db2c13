"""From kernels to functions that run on threads: compile them, cache the object files, load them, run them.

May import: kernels and what is below it.
Start with `kernel_cache.py`, which finds compiled kernels; `compiler.py` makes them; `thread_pool.py` runs them.
"""
