"""What compiled kernels and Python share: the record of a pass, the layout of arrays, and the CPUs to compile for.

May import: nothing of nbgpt.
Start with `job.py`.
"""
