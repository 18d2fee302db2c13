"""An HTTP server that speaks OpenAI's API, and a page to try it on.

May import: model and what is below it.
Start with `application.py`; `worker.py` is the thread that runs the engines, `completions.py` the main route.
"""

from .application import app
from .limits import Limits

__all__ = ["Limits", "app"]
