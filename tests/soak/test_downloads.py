"""`downloads.py`: every operation on the cache."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="downloads are an extra: pip install 'nbgpt[download]'")


def test_operations_on_the_cache():
    """Every seventh, as each takes half a second."""
    command = [sys.executable, str(Path(__file__).with_name("downloads.py")), "--every", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"failing: .*?(\d+) errors", done.stdout)[1]) > 5
    assert int(re.search(r"killed: .*?(\d+) killed", done.stdout)[1]) > 10
