"""Commands as processes of their own, and the line of figures that `generate` writes."""

import os
import re
import signal
import subprocess
import sys

FIGURES = re.compile(
    r"nbgpt: (?P<prompt>\d+) prompt tokens, prefill [\d.]+ tokens/s; (?P<new>\d+) new tokens, decode [\d.]+ tokens/s; "
    r"(?P<model>.+) (?P<dtype>\w+), (?P<threads>\d+) threads, seed (?P<seed>\d+)\n"
)


def start(*arguments, **options):
    """Start a command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])} | options.pop("env", {})
    command = [sys.executable, "-m", "nbgpt", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, encoding="utf-8", preexec_fn=_heed_interrupts, **pipes | options)


def _heed_interrupts():
    """A shell starts background jobs with Ctrl-C ignored, which their children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
