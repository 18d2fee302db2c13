"""The writer's terminal, `repl`: a text that a person and the model write in turns.

May import: everything but plugins. Commands, text and history know no terminal library; `prompt.py` alone does.
Start with `repl.py`, then `workspace.py`.
"""
