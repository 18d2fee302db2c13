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
    from peer_engines import chart, cold, contest, figures, report, results, worker

    return {
        "chart": chart,
        "cold": cold,
        "contest": contest,
        "figures": figures,
        "report": report,
        "results": results,
        "w": worker,
    }


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


class Script:
    """A worker that ends when its answers do."""

    settings = "its own"

    def __init__(self, ended, name, *answers):
        self.ended, self.name, self.answers = ended, name, list(answers)

    def ask(self, **request):
        if not self.answers:
            raise self.ended(f"{self.name} ended: killed by SIGILL")
        return self.answers.pop(0)


NEAR = {"difference": 0.1, "relative": 0.0}


def test_an_engine_that_ends_is_tried_in_its_plain_way(peers, tmp_path):
    contest = peers["contest"]
    ways = {False: Script(contest.EndedError, "llama.cpp Q8_0"), True: Script(contest.EndedError, "plain", NEAR)}
    ways[True].name = "llama.cpp Q8_0"
    one = contest.Contest([])
    one.add(contest.Entrant("llama_cpp", "Q8_0"), ways.get, tmp_path / "logits.npy")
    assert one.workers == [ways[True]]
    assert one.failures == {}
    [(name, found)] = one.check(0.1)
    assert name == "llama.cpp Q8_0"
    assert found["settings"].endswith("; **without repacking**, since llama.cpp Q8_0 ended: killed by SIGILL")


def test_an_engine_that_ends_costs_its_own_figures(peers, tmp_path):
    contest = peers["contest"]
    one = contest.Contest([])
    answers = {"nbgpt int8": [NEAR, *[{"seconds": 1.0}] * 3], "CTranslate2 int8": [NEAR, *[{"seconds": 2.0}] * 2]}
    for entrant in (*contest.CONTESTS["int8"][:1], *contest.CONTESTS["int8"][2:]):
        script = Script(contest.EndedError, entrant.name, *answers.get(entrant.name, ()))
        one.add(entrant, lambda is_plain, script=script: script, tmp_path)
    assert one.failures == {"OpenVINO int8": "OpenVINO int8 ended: killed by SIGILL"}
    assert list(one.run("pp512", 2)) == [{"nbgpt int8": 1.0, "CTranslate2 int8": 2.0}, {"nbgpt int8": 1.0}]
    assert one.failures["CTranslate2 int8"] == "pp512: CTranslate2 int8 ended: killed by SIGILL"
    with pytest.raises(contest.EndedError, match="nbgpt int8 ended"):
        list(one.run("pp512", 1))


def test_a_cold_start_that_fails(peers, monkeypatch):
    cold, failures = peers["cold"], {}

    def first_byte(entrant):
        if entrant.engine == "llama_cpp":
            raise RuntimeError("printed nothing")
        return 1.0

    monkeypatch.setattr(cold, "_command", lambda entrant, file, threads: entrant)
    monkeypatch.setattr(cold, "_first_byte", first_byte)
    found = list(cold.rounds(dict.fromkeys(cold.ENTRANTS, Path()), 1, 2, failures))
    assert found == [{"nbgpt int8": 1.0, "CTranslate2 int8": 1.0}] * 2
    assert failures == {"llama.cpp Q8_0": "cold start: printed nothing"}


def test_a_killed_process_is_named_by_its_signal(peers, tmp_path):
    contest = peers["contest"]
    model = tmp_path / "model.safetensors"
    model.symlink_to(BENCH.parent / "weights" / "story-34m-int8.safetensors")
    with contest.loaded({contest.Entrant("nbgpt", "int8"): model}, threads=1) as loaded:
        loaded.workers[0].process.kill()
        with pytest.raises(contest.EndedError, match="nbgpt int8 ended: killed by SIGKILL"):
            loaded.workers[0].ask(do="prompt", ids=[1])


def test_failures_and_other_machines_are_reported(peers, tmp_path, monkeypatch):
    monkeypatch.setattr(peers["chart"], "svg", lambda data: "<svg/>")
    Results, module = peers["results"].Results, peers["results"]  # noqa: N806
    for name, slower in (("AMD EPYC (family 26)", 1), ("Intel Xeon", 2), ("AMD EPYC (family 26)", 1)):
        monkeypatch.setattr(module, "machine", lambda name=name: {"processor": name})
        results = Results(tmp_path)
        assert results.add_failure("llama.cpp Q8_0", "it ended\nand said more")
        assert not results.add_failure("llama.cpp Q8_0", "it ended\nand said more")
        seconds = {"nbgpt int8": [1.0], "CTranslate2 int8": [4.0 / slower]}
        results.add_section(**{**SECTION, "seconds": seconds})
    text = (tmp_path / "peers.md").read_text()
    assert "| test | weights | threads | AMD EPYC (family 26) | Intel Xeon |" in text
    cells = "4.00 (128 tokens/s; CTranslate2 int8) | 2.00 (128 tokens/s; CTranslate2 int8)"
    assert f"| tg128 | int8 | 2 | {cells} |" in text
    assert "Left out:\n\n- llama.cpp Q8_0: it ended\n\n" in text


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
