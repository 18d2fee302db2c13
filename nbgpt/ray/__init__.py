"""nbgpt on Ray: batches on a cluster, and a deployment of the server. `pip install "nbgpt[ray]"`.

May import: batch and what is below it.
Start with `cluster.py`, which the command `batch --ray` uses; `generator.py` and `deployment.py` are for own pipelines.
"""

from .deployment import Deployment
from .generator import Generator

__all__ = ["Deployment", "Generator"]
