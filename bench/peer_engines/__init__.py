"""Engines that run GPT-2 on CPUs, and what measures them side by side: see bench/peers.py.

A module here is named after the engine that it drives, and holds `convert` (a Hugging Face folder to that engine's own
file) and `Engine` (see engine.py). The engine itself is imported by the process alone that runs it.
"""
