"""Types of the public face: strict checkers find no error in a user's script, and refuse wrong options briefly."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "user_script.py", HERE / "wrong_options.py"
SCREEN = 24  # lines


def lines_with_errors():
    """The calls in wrong_options.py."""
    return [
        number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if re.match(r"(model|nbgpt)\.", line)
    ]


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
    shown = mypy(WRONG).stdout.splitlines()
    assert {int(line.split(":")[1]) for line in shown if ": error: " in line} == {*lines_with_errors()}
    assert len(shown) <= SCREEN
    assert "max_token" in shown[0]


def test_pyright_finds_no_error_in_a_users_script(tmp_path):
    done = pyright(RIGHT, tmp_path)
    assert json.loads(done.stdout)["generalDiagnostics"] == []


def test_pyright_refuses_each_wrong_option_on_one_screen(tmp_path):
    found = json.loads(pyright(WRONG, tmp_path).stdout)["generalDiagnostics"]
    assert {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"} == {*lines_with_errors()}
    assert sum(one["message"].count("\n") + 1 for one in found) <= SCREEN * 2
