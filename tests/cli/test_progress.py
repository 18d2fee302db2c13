"""The progress bar."""

from nbgpt.cli.progress import counting


def test_no_bar_without_a_terminal(capsys):
    with counting("reading", "text") as progress:
        for n in range(5):
            progress(n, 4)
    assert capsys.readouterr() == ("", "")
