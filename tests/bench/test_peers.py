"""What bench/peers.py makes of its samples, and the processes that it times; peers themselves are not needed here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def peers(monkeypatch):
    """The package that bench/peers.py runs."""
    monkeypatch.syspath_prepend(str(BENCH))
    from peer_engines import chart, contest, figures, report, results, worker

    return {"chart": chart, "contest": contest, "figures": figures, "report": report, "results": results, "w": worker}


SECTION = {
    "test": "tg128",
    "dtype": "int8",
    "threads": 2,
    "tokens": 128,
    "busy": 0.01,
    "seconds": {
        "nbgpt int8": [1.0, 2.0, 1.0, 1.0, 1.0],
        "llama.cpp Q8_0": [4.0, 8.0, 4.0, 3.0, 5.0],
        "CTranslate2 int8": [2.0, 2.0, 2.0, 1.5, 2.5],
    },
}


def test_a_ratio_is_of_one_round(peers):
    """nbgpt's speed by the peer's: a round in which the machine was slow for both counts as any other."""
    ours, second, third = peers["figures"].rows(SECTION)
    assert (ours.name, second.name, third.name) == ("nbgpt int8", "CTranslate2 int8", "llama.cpp Q8_0")
    assert ours.speed == 128
    assert ours.ratios is None
    assert third.speed == 32
    assert third.ratios == tuple(np.quantile([4, 4, 4, 3, 5], [0.25, 0.5, 0.75]))
    assert peers["figures"].fastest_peer(SECTION) == second


def test_one_round_has_its_ratio_for_quartiles(peers):
    short = {**SECTION, "seconds": {name: seconds[:1] for name, seconds in SECTION["seconds"].items()}}
    assert peers["figures"].rows(short)[1].ratios == (2, 2, 2)


def test_files_keep_other_sections(peers, tmp_path, monkeypatch):
    monkeypatch.setattr(peers["chart"], "svg", lambda data: "<svg/>")
    Results = peers["results"].Results  # noqa: N806
    Results(tmp_path).add_section(**SECTION)
    Results(tmp_path).add_section(**{**SECTION, "threads": 1})
    Results(tmp_path).add_section(**{**SECTION, "seconds": {"nbgpt int8": [2.0], "llama.cpp Q8_0": [3.0]}})
    sections = json.loads((tmp_path / "peers.json").read_text())["sections"]
    assert [(one["threads"], len(one["seconds"])) for one in sections] == [(1, 3), (2, 2)]
    text = (tmp_path / "peers.md").read_text()
    assert "| tg128 | int8 | 2 | 64.0 | llama.cpp Q8_0 | 42.7 | **1.50 (1.50 to 1.50)** |" in text
    assert "not idle" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["peers.json", "peers.md", "peers.svg"]

    monkeypatch.setattr(peers["results"], "machine", lambda: {"processor": "another"})
    Results(tmp_path).add_section(**{**SECTION, "busy": 0.7})
    assert "before 1 of 1 tests others used up to 70% of it" in (tmp_path / "peers.md").read_text()
    assert len(json.loads((tmp_path / "peers.json").read_text())["sections"]) == 1


def test_distance_of_logits(peers):
    expected = np.array([[3.0, -4.0]])
    found = peers["w"].compare([expected, expected + np.array([0.0, 0.5])], expected)
    assert found["difference"] == 0.5
    assert found["relative"] == pytest.approx(np.sqrt(0.0625 / 12.5))


def test_a_worker_runs_in_its_turns_alone(peers, tmp_path):
    contest = peers["contest"]
    model = tmp_path / "model.safetensors"
    model.symlink_to(BENCH.parent / "weights" / "story-34m-int8.safetensors")
    with contest.loaded({contest.Entrant("nbgpt", "int8"): model}, threads=1) as loaded:
        (worker,) = loaded.workers
        for request in ({"do": "prompt", "ids": [1, 2, 3]}, {"do": "generate", "ids": [[1, 2], [3, 4]]}):
            assert 0 < worker.ask(**request)["seconds"] < 60
        state = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"  # stopped
    assert worker.process.returncode is not None


def test_a_worker_that_fails_says_why(peers, tmp_path):
    contest = peers["contest"]
    model = tmp_path / "model.safetensors"
    with (
        pytest.raises(RuntimeError, match=r"nbgpt int8 ended: .*model\.safetensors"),
        contest.loaded({contest.Entrant("nbgpt", "int8"): model}, threads=1),
    ):
        pass


def test_rounds_turn_the_order(peers):
    asked = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def ask(self, **request):
            asked.append((self.name, np.array(request["ids"]).shape))
            return {"seconds": len(asked)}

    rounds = list(peers["contest"].Contest([Fake("a"), Fake("b")]).run("tg128b8", 2))
    assert rounds == [{"a": 3, "b": 4}, {"b": 5, "a": 6}]
    warm_up, whole = (8, 16), (8, 128)
    assert asked == [("b", warm_up), ("a", warm_up), ("a", whole), ("b", whole), ("b", whole), ("a", whole)]


def test_the_names_of_tests_are_those_of_their_sizes(peers):
    contest = peers["contest"]
    assert contest.TESTS == {"pp512": 512, "tg128": 128, "tg128b8": 1024}
    assert sys.modules["peer_engines"].__path__ == [str(BENCH / "peer_engines")]
