"""The operations of a GPT-2 as serial functions on rows or tiles, one file each; `forward` composes them.

May import: simd and what is below it.
Start with `forward.py`.
"""
