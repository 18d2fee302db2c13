"""What is computed: the operations of GPT-2 as compiled functions, one file an operation.

May import: abi, simd. A function make_... builds a kernel for one type of weights before Numba compiles anything.
Start with `forward.py`, then `phases.py` (how threads share work) and `matmul.py` (where the time goes).
"""
