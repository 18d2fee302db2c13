"""Types of the public face: strict checkers find no error in a user's script, and refuse wrong options briefly."""

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "user_script.py", HERE / "wrong_options.py"
SCREEN, WIDTH = 40, 100  # lines, columns


def lines_with_errors():
    """The calls in wrong_options.py."""
    return [
        number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if re.match(r"(model|nbgpt)\.", line)
    ]


def height(messages):
    """Lines of a screen."""
    return sum(math.ceil(len(line) / WIDTH) for message in messages for line in message.splitlines())


def mypy(path):
    pytest.importorskip("mypy", reason='mypy is not installed: pip install "nbgpt[dev]"')
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-color-output", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent.parent)


def pyright(path, tmp_path):
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip('pyright is not installed: pip install "nbgpt[dev]"')
    project = tmp_path / "pyrightconfig.json"
    settings = {"typeCheckingMode": "strict", "include": [str(path)], "extraPaths": [str(HERE.parent.parent)]}
    project.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(project), "--pythonpath", sys.executable]
    return subprocess.run([*command, "--outputjson"], capture_output=True, text=True, check=False)


def test_mypy_finds_no_error_in_a_users_script():
    done = mypy(RIGHT)
    assert done.returncode == 0, done.stdout


def test_mypy_refuses_each_wrong_option_on_one_screen():
    shown = mypy(WRONG).stdout.splitlines()[:-1]
    by_line = {int(line.split(":")[1]): [] for line in shown}
    for line in shown:
        by_line[int(line.split(":")[1])].append(line)
    assert [*by_line] == lines_with_errors()
    assert all(": error: " in messages[0] and height(messages) <= SCREEN for messages in by_line.values())
    assert "max_token" in shown[0]


def test_pyright_finds_no_error_in_a_users_script(tmp_path):
    done = pyright(RIGHT, tmp_path)
    assert json.loads(done.stdout)["generalDiagnostics"] == []


def test_pyright_refuses_each_wrong_option_on_one_screen(tmp_path):
    found = json.loads(pyright(WRONG, tmp_path).stdout)["generalDiagnostics"]
    errors = [one for one in found if one["severity"] == "error"]
    assert sorted({one["range"]["start"]["line"] + 1 for one in errors}) == lines_with_errors()
    assert height(one["message"] for one in found) <= SCREEN  # all of them
