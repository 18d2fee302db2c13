"""`serve`: an HTTP server that speaks OpenAI's API."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parser import add, add_loading
from .terminal import note

if TYPE_CHECKING:
    from ..model import Model
    from .parser import Commands

_EXAMPLES = """\
examples:
  python -m nbgpt serve
  python -m nbgpt serve --model small=gpt2 --model large=gpt2-xl --port 9000
  NBGPT_API_KEY=... python -m nbgpt serve --host 0.0.0.0

clients: see docs/serving.md; the page at http://127.0.0.1:8000 is a playground.
"""


def define_serve(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "serve", "serve models over HTTP by OpenAI's API, and a page to try them on", _serve)
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLES
    command.add_argument(
        "-m",
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="native file, folder or file of official weights, or name; several: requests choose by NAME; "
        "default: the embedded story-34m",
    )
    add_loading(command)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, this machine")
    command.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: a free one")
    command.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys that clients need, one a line")
    command.add_argument(
        "--chat-template", metavar="FILE", help='how conversations become prompts: a Jinja file, or "plain"'
    )
    for flag, kind, default, text in (
        ("--max-batch", int, 32, "texts that grow together"),
        ("--max-queue", int, 256, "texts that wait for a place; more are refused"),
        ("--timeout", float, 600.0, "seconds from a request's arrival to the end of its texts"),
        ("--client-timeout", float, 30.0, "seconds for a client to send a request, or to read what it is sent"),
        ("--drain-timeout", float, 30.0, "seconds that texts have to end after SIGTERM"),
    ):
        command.add_argument(flag, type=kind, default=default, metavar="N", help=f"{text}; default: %(default)s")
    command.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a site whose pages may ask this server; may be repeated",
    )
    command.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients reach this server; may be repeated",
    )
    command.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="PEM files, for https")
    command.add_argument("--log-level", choices=("warning", "info"), default="info", help="default: %(default)s")
    command.add_argument("--log-json", action="store_true", help="log a line of JSON for each request")


def _serve(options: argparse.Namespace) -> None:
    try:
        from ..serve.application import app
        from ..serve.run import run
        from ..tasks.chat_template import load_template
    except ImportError as error:
        raise ImportError(f'serve needs the package {error.name}: pip install "nbgpt[serve]"') from None
    template = load_template(options.chat_template) if options.chat_template else None
    keys, hosts = _keys(options), _hosts(options)
    _start_log(options)
    models = _load(options)
    application = app(
        models,
        limits=_limits(options),
        keys=keys,
        hosts=hosts,
        cors_origins=options.cors_origin,
        chat_template=template,
    )
    run(
        application,
        options.host,
        options.port,
        drain_timeout=options.drain_timeout,
        client_timeout=options.client_timeout,
        on_started=lambda url: _announce(url, application.state.server.models, bool(keys)),
        on_hangup=lambda: _reload(keys),
        tls=options.tls,
    )
    for model in models.values():
        model.close()


def _load(options: argparse.Namespace) -> dict[str, Model]:
    """The models by name; they share the KV cache's memory evenly."""
    from ..engine.memory import default_kv_memory
    from ..model import load

    given = [one.rpartition("=")[::2] for one in options.model] or [("", None)]
    memory = (options.kv_memory or default_kv_memory()) // len(given)
    models: dict[str, Model] = {}
    for name, path in given:
        model = load(path, options.dtype, options.threads, options.kv_dtype, memory)
        if (name or model.name) in models:
            raise ValueError(f"two models are called {name or model.name!r}; name them: --model NAME=MODEL")
        models[name or model.name] = model
    return models


def _limits(options: argparse.Namespace) -> Any:
    from ..serve.limits import Limits

    names = ("max_batch", "max_queue", "timeout", "client_timeout")
    for name in (*names, "drain_timeout"):
        if not getattr(options, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be above 0")
    return Limits(**{name: getattr(options, name) for name in names})


def _keys(options: argparse.Namespace) -> Any:
    from ..serve.guard import Keys

    key = os.environ.get("NBGPT_API_KEY", "")
    return Keys(options.api_key_file, [key] if key else [])


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(options: argparse.Namespace) -> set[str] | None:
    """On loopback a browser must not reach the server by another site's name."""
    from ..serve.guard import LOOPBACK_HOSTS

    if _is_loopback(options.host) or options.allow_host:
        return {*LOOPBACK_HOSTS, options.host, *options.allow_host}
    return None


def _start_log(options: argparse.Namespace) -> None:
    from ..serve.guard import LogFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(options.log_json))
    for name in ("nbgpt.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel("WARNING" if name != "nbgpt.serve" else options.log_level.upper())
    if not _is_loopback(options.host) and not _keys(options):
        note(f"anybody who reaches {options.host} may use this server: --api-key-file or NBGPT_API_KEY asks for a key")


def _reload(keys: Any) -> None:
    try:
        keys.reload()
        note("the API keys were read again")
    except (OSError, ValueError) as error:
        note(f"the API keys stay as they were: {error}")


def _announce(url: str, models: Any, has_keys: bool) -> None:
    for served in models:
        model = served.model
        note(
            f"{served.name}: {model.dtype}, {model.n_threads} threads; memory for {served.texts_in_memory} texts of "
            f"{model.config.n_ctx} tokens"
        )
    key = ' -H "Authorization: Bearer $NBGPT_API_KEY"' if has_keys else ""
    note(f"listening on {url} (a playground); try:")
    body = """-H "Content-Type: application/json" -d '{"prompt": "Once upon a time"}'"""
    note(f"  curl {url}/v1/completions{key} {body}")
