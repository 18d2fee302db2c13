"""The explain page: what a model does with a text, as one HTML file with its style, script and data.

May import: the other modules of analysis, and what is below it.
Start with `page.py`; a module gathers the data of each panel, and `assets/` has what the browser runs.
"""

from .page import MAX_TOKENS, check_length, page
from .switches import switched_off

__all__ = ["MAX_TOKENS", "check_length", "page", "switched_off"]
