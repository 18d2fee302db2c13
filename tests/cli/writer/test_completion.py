"""What Tab makes of a line."""

import pytest

from nbgpt.cli.writer.commands import COMMANDS
from nbgpt.cli.writer.completion import completions


@pytest.mark.parametrize(
    ("line", "word", "found"),
    [
        ("/al", "/al", ["/alternatives"]),
        ("/sa", "/sa", ["/save", "/save!"]),
        ("/set temp", "temp", ["temperature"]),
        ("/set color ", "", ["model", "probability", "off"]),
        ("/set color p", "p", ["probability"]),
        ("/set temperature ", "", []),
        ("/again ", "", ["same"]),
        ("/end p", "p", ["paragraph"]),
        ("/help alt", "alt", ["alternatives"]),
        ("/sing ", "", []),
        ("//al", "", []),
        ("al", "", []),
        ("", "", []),
    ],
)
def test_candidates(line, word, found):
    assert (completions(line)[0], [one.text for one in completions(line)[1]]) == (word, found)


def test_commands_and_files(tmp_path, monkeypatch):
    assert {one.text: one.meaning for one in completions("/")[1]} == {
        f"/{name}": command.summary for name, command in COMMANDS.items()
    }
    (tmp_path / "my story.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert [(word, one.text) for word, found in [completions("/load my s")] for one in found] == [
        ("my s", "my story.txt")
    ]
