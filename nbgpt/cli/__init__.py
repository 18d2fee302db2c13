"""The command line: `main.py` lists the subcommands, each a module that does its work's imports when it runs.

May import: everything but plugins.
Start with `main.py`, then `generate.py`.
"""
