"""`Deployment`: the server on Ray Serve."""

from __future__ import annotations

from typing import Any

from ..engine.kv_cache import KVDtype


def Deployment(  # noqa: N802 - stands where Ray has a class
    model: str | None = None,
    *,
    dtype: str | None = None,
    threads: int | None = None,
    kv_dtype: KVDtype = "float32",
    kv_memory: int | None = None,
    chat_template: str | None = None,
    **options: Any,
) -> Any:
    """The server as an application for `ray.serve.run`: each replica loads the model and speaks OpenAI's API.

    >>> serve.run(nbgpt.ray.Deployment("gpt2", num_replicas=4, ray_actor_options={"num_cpus": 8}))  # doctest: +SKIP

    Args:
        model: as for `nbgpt.load`, on every node; so are dtype, threads, kv_dtype and kv_memory.
        dtype: as for `nbgpt.load`.
        threads: as for `nbgpt.load`; None: the CPUs that ray_actor_options gives a replica, at least 1.
        kv_dtype: as for `nbgpt.load`.
        kv_memory: as for `nbgpt.load`.
        chat_template: "plain", or a file; None: chat is refused.
        options: of `ray.serve.deployment`, such as num_replicas, ray_actor_options and max_ongoing_requests.

    Returns:
        An application for `ray.serve.run`.

    Raises:
        ImportError: Ray Serve or the server's packages are not installed.
    """
    try:
        from ray import serve

        from ..serve import application  # noqa: F401 - a missing package is said here, and not by a replica
    except ImportError as error:
        raise ImportError(f'a deployment needs the package {error.name}: pip install "nbgpt[ray,serve]"') from None
    cpus = options.get("ray_actor_options", {}).get("num_cpus", 1)
    loading = model, dtype, threads or max(1, int(cpus)), kv_dtype, kv_memory

    def build() -> Any:
        from nbgpt.model import load
        from nbgpt.serve.application import app
        from nbgpt.tasks.chat_template import load_template

        return app(load(*loading), chat_template=load_template(chat_template) if chat_template else None)

    return serve.deployment(name="nbgpt", **options)(serve.ingress(build)()).bind()
