"""nbgpt inside other programs.

May import: everything.
Start with `llm.py`, the plugin for the command line tool `llm`.
"""
