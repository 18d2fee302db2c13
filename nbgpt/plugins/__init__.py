"""nbgpt inside other programs.

May import: everything.
Start with `llm.py`, the plugin of the command line tool `llm`.
"""
